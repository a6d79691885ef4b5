"""Work through many items in batches that fit the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from core.engine.device import release_cached_memory
from core.engine.engine import is_out_of_memory

R = TypeVar("R")


def in_batches(
    run: Callable[[slice], R], count: int, batch_size: int, device: torch.device
) -> Iterator[R]:
    """Yield ``run(rows)`` for consecutive slices of ``range(count)``.

    After an out-of-memory error the slice is tried again at half its size, and the size stays
    there; with a single item left the error passes through.
    """
    start = 0
    while start < count:
        rows = slice(start, min(start + batch_size, count))
        result = _run_or_none(run, rows)
        if result is None:  # outside of the handler, where the error holds no tensors any more
            release_cached_memory(device)
            batch_size = (rows.stop - rows.start) // 2
            continue
        yield result
        start = rows.stop


def _run_or_none(run: Callable[[slice], R], rows: slice) -> R | None:
    try:
        return run(rows)
    except (RuntimeError, MemoryError) as error:
        if rows.stop - rows.start == 1 or not is_out_of_memory(error):
            raise
        return None
