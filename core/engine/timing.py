"""Measure the stages of one request; the figures travel with its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from core.engine.device import synchronize

CPU = torch.device("cpu")


class StageTimer:
    """Seconds by stage name, and their ``total`` since the timer was made.

    Args:
        device: waited for at both ends of a stage, because a GPU works on after the call.
        clock: returns seconds.
    """

    def __init__(
        self, device: torch.device = CPU, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._device = device
        self._clock = clock
        self._stages: dict[str, float] = {}
        self._start = self._end = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; the times of blocks of one name add up, also when they fail."""
        synchronize(self._device)
        start = self._clock()
        try:
            yield
        finally:
            synchronize(self._device)
            self._end = self._clock()
            self._stages[name] = self._stages.get(name, 0.0) + self._end - start

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage in order of first use, and ``total``: up to the last one's end."""
        return {**self._stages, "total": self._end - self._start}
