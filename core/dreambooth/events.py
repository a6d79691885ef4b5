"""What a training tells while it runs, in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PhaseName = Literal["class_pictures", "caching", "training", "preview"]


@dataclass(frozen=True)
class Phase:
    """Something begins or goes on besides steps: ``fraction`` in [0, 1] of it is done."""

    name: PhaseName
    fraction: float
    message: str


@dataclass(frozen=True)
class StepDone:
    """A step is done.

    Args:
        step: steps done so far, of ``steps``.
        loss, instance, prior, unmasked: as in ``Losses``; prior is None without one.
        smoothed: running mean of ``loss``.
        learning_rate: of this step.
        seconds: that all steps took.
        remaining: seconds that the others will take, by the last ones' speed.
        memory_mib: most that the GPU held; 0 on other devices.
    """

    step: int
    steps: int
    loss: float
    instance: float
    prior: float | None
    unmasked: float
    smoothed: float
    learning_rate: float
    seconds: float
    remaining: float
    memory_mib: int = 0


@dataclass(frozen=True)
class Resumed:
    """The training goes on after ``step`` steps; those before, without their times."""

    step: int
    steps: tuple[StepDone, ...]


@dataclass(frozen=True, eq=False)
class Samples:
    """Pictures of the model as it is after ``step`` steps; one for each prompt and seed."""

    step: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: tuple[NDArray[np.uint8], ...]  # RGB (H, W, 3)
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint is on the disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Paused:
    """The training holds after ``step`` steps, until it is told to go on."""

    step: int


@dataclass(frozen=True)
class Finished:
    """All steps are done; ``subject`` is the folder with weights and card."""

    step: int
    subject: Path


@dataclass(frozen=True)
class Stopped:
    """The training was cancelled; it can go on from ``checkpoint``, None if nothing was done."""

    step: int
    checkpoint: Path | None


Event = Phase | Resumed | StepDone | Samples | CheckpointSaved | Paused | Finished | Stopped
