"""Random numbers that depend on a seed and a place, not on what was drawn before.

So a training that goes on after a checkpoint draws what an uninterrupted one would have drawn,
on any device and with any number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator_at(seed: int, *place: str | int) -> torch.Generator:
    """A generator on the CPU for one place, such as ("noise", step, rank)."""
    return torch.Generator().manual_seed(_number(seed, place))


def random_below(high: int, generator: torch.Generator) -> int:
    """A whole number from 0 to ``high`` - 1."""
    return int(torch.randint(high, (), generator=generator))


def position(index: int, length: int, seed: int, name: str) -> int:
    """The item at a place of an endless sequence of shuffled rounds over ``length`` items."""
    epoch, place = divmod(index, length)
    order = torch.randperm(length, generator=generator_at(seed, "order", name, epoch))
    return int(order[place])


@contextmanager
def own_randomness(seed: int, device: torch.device, *place: str | int) -> Iterator[None]:
    """Run a block on its own global random numbers, and put the old ones back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(_number(seed, place))
        yield


def _number(seed: int, place: tuple[str | int, ...]) -> int:
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
