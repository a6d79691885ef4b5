"""One or many GPUs through accelerate, for any number of trainings in a process.

accelerate keeps its settings once per process. They are made without precision and device here,
which each training handles itself, so that two trainings on two devices do not meet in them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

_lock = threading.Lock()
_users = 0


@contextmanager
def accelerator() -> Iterator[Any]:
    """An ``Accelerator`` that belongs to nobody else's precision; forgotten after its last user.

    Started by ``accelerate launch`` on several GPUs it knows of the other processes, each of which
    needs its model on a GPU of its own (``Engine(device=f"cuda:{local_rank}")``).
    """
    global _users
    from accelerate import Accelerator

    with _lock:
        if not _users:
            _forget()
        one = Accelerator(mixed_precision="no", device_placement=False)
        _users += 1
    try:
        yield one
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _forget()


def make_optimizer(
    parameters: list[torch.nn.Parameter],
    device: torch.device,
    *,
    rate: float,
    decay: float,
    in_8bit: bool,
) -> torch.optim.Optimizer:
    """AdamW, in 8 bit if that is wanted and can be had (bitsandbytes and a GPU)."""
    kind: Any = torch.optim.AdamW
    if in_8bit and device.type == "cuda":
        with suppress(ImportError):  # then the state takes more memory, and that is all
            from bitsandbytes.optim import AdamW8bit

            kind = AdamW8bit
    return kind(parameters, lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)


def _forget() -> None:
    from accelerate.state import AcceleratorState

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    AcceleratorState._reset_state(reset_partial_state=not several)
