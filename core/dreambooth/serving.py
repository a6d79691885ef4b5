"""Trainings as pages and endpoints run them: in the queue of a device, found again by their ids.

Everything lies under one folder: ``runs`` with a folder for each training, and ``class_pictures``.
A training's id is random and the only key to it and to what it has learned; nothing here lists
ids unless it is asked for everybody's.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.dreambooth.card import LearnedSubject, list_subjects, read_subject
from core.dreambooth.checkpoints import list_checkpoints, read_facts
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.pipeline import compare, resume, sample, train
from core.dreambooth.queue import ENDED, RECORD_FILE, JobStatus, TrainingQueue, queue_of
from core.dreambooth.subjects import SubjectPicture, training_pictures
from core.errors import PromptError
from core.settings import settings

if TYPE_CHECKING:
    from core.dreambooth.control import Control
    from core.dreambooth.events import Event
    from core.dreambooth.sampling import Progress
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine

MAX_KNOWN = 50  # ids that a browser may remember

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """A training's loss after a step: as it was, and its running mean."""

    step: int
    loss: float
    smoothed: float


@dataclass(frozen=True)
class SampleFiles:
    """Pictures that were drawn after a step, one for each sample prompt, as PNG files."""

    step: int
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Standing:
    """How a training stands, also one of a server that was started anew since.

    Args:
        subject: its words.
        config: its settings.
        model: that it teaches.
        curve: a point for each step.
        samples: in the order of their steps.
    """

    status: JobStatus
    subject: Subject
    config: DreamBoothConfig
    model: str
    curve: tuple[Point, ...]
    samples: tuple[SampleFiles, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens any more, unless somebody lets it go on."""
        return self.status.state in ENDED

    @property
    def step(self) -> int:
        """Steps done."""
        if self.status.step is not None:
            return self.status.step.step
        return self.curve[-1].step if self.curve else self.status.checkpoint or 0


@dataclass(frozen=True)
class Saved:
    """A learned subject, the id of its training, and its newest sample picture, if any."""

    id: str
    learned: LearnedSubject
    picture: Path | None


@dataclass(frozen=True, eq=False)
class Pair:
    """What one prompt and seed give before training (None: not asked for) and after it.

    Args:
        before, after: RGB uint8 (S, S, 3).
    """

    prompt: str
    seed: int
    before: NDArray[np.uint8] | None
    after: NDArray[np.uint8]


class Trainings:
    """All trainings of an engine's device under one folder.

    Args:
        root: None: as set for the suite.
    """

    def __init__(self, engine: Engine, root: Path | None = None) -> None:
        root = (root or Path(settings.training_folder)).resolve()
        self._engine = engine
        self._runs = root / "runs"
        self._class_root = root / "class_pictures"
        self.queue: TrainingQueue = queue_of(str(engine.device), self._runs)

    def begin(
        self,
        model_id: str,
        subject: Subject,
        pictures: Sequence[SubjectPicture],
        config: DreamBoothConfig,
    ) -> str:
        """Queue a training and return its id.

        Raises:
            PromptError: pictures or settings are not fit for training, or the queue is full.
            ModelUnavailable: no such model.
        """
        self._engine.entry(model_id)
        used = training_pictures(pictures)
        check_limits(config)
        self.forget_old()
        facts = {
            "model": model_id,
            "subject": asdict(subject),
            "settings": config.to_dict(),
            "pictures": len(used),
        }

        def work(folder: Path, control: Control) -> Iterator[Event]:
            return train(
                self._engine,
                model_id,
                subject,
                used,
                config,
                folder,
                class_root=self._class_root,
                control=control,
            )

        return self.queue.submit(work, title=subject.name, facts=facts)

    def go_on(self, training_id: str) -> None:
        """Let a training that ended without a subject go on from its last checkpoint.

        Raises:
            PromptError: there is none of this id, or it has not ended, or is finished.
        """
        status = self.queue.status(training_id)
        if status.state == "finished":
            raise PromptError("This training is finished: there is nothing left to go on with.")

        def work(folder: Path, control: Control) -> Iterator[Event]:
            return resume(self._engine, folder, class_root=self._class_root, control=control)

        facts = self.queue.facts(training_id)
        self.queue.submit(work, title=status.title, facts=facts, job_id=training_id)

    def look(self, training_id: str) -> Standing:
        """How a training stands. Raises PromptError if there is none of this id."""
        status, facts = self.queue.status(training_id), self.queue.facts(training_id)
        try:
            subject = Subject(**facts["subject"])
            config = DreamBoothConfig.from_dict(facts["settings"])
            model = str(facts["model"])
        except (KeyError, TypeError) as error:
            raise PromptError("The record of this training is damaged: begin a new one.") from error
        steps = self.queue.steps(training_id)
        curve = tuple(Point(one.step, one.loss, one.smoothed) for one in steps)
        return Standing(
            status,
            subject,
            config,
            model,
            curve or _curve_on_disk(status.folder),
            _samples_on_disk(status.folder),
        )

    def learned(self, training_id: str) -> LearnedSubject:
        """What a training has learned.

        Raises:
            PromptError: there is none of this id, it is not finished, or its files are damaged.
        """
        status = self.queue.status(training_id)
        if status.subject is None:
            raise PromptError("This training has learned nothing yet: let it come to its end.")
        # It counts as used, so it is kept for longer.
        (status.folder / RECORD_FILE).touch()
        return read_subject(status.subject)

    def saved(self, training_ids: Sequence[str], *, everybody: bool = False) -> list[Saved]:
        """The learned subjects of some trainings, the newest first; others are left out.

        Args:
            everybody: also those of trainings whose ids are not given.
        """
        if everybody:
            return [_saved(one.folder.parent.name, one) for one in list_subjects(self._runs)]
        found = []
        for training_id in training_ids[-MAX_KNOWN:]:
            try:
                status = self.queue.status(training_id)
                if status.subject is not None:
                    found.append(_saved(training_id, read_subject(status.subject)))
            except PromptError as error:
                _log.info("%s", error)
        return sorted(found, key=_made, reverse=True)

    def forget_old(self) -> None:
        """Delete what ended long ago and was not used since."""
        oldest = time.time() - settings.training_days * 86400
        for record in self._runs.glob(f"*/{RECORD_FILE}"):
            if record.stat().st_mtime >= oldest:
                continue
            try:
                self.queue.delete(record.parent.name)
            except PromptError as error:  # it still goes on, or is none of ours
                _log.info("%s", error)


def check_limits(config: DreamBoothConfig) -> None:
    """Raise PromptError where settings would keep a shared machine busy for too long."""
    limits = (
        ("steps", config.steps, settings.max_training_steps),
        ("pictures of the class", config.prior_pictures, settings.max_class_pictures),
    )
    for what, wanted, most in limits:
        if wanted > most:
            raise PromptError(f"There are {wanted} {what}; the limit here is {most}.")


def draw_pairs(
    engine: Engine,
    model_id: str,
    prompt: str,
    seeds: Sequence[int],
    learned: LearnedSubject,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    before: bool = True,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> tuple[list[Pair], tuple[str, ...]]:
    """Draw a prompt from some seeds with the learned subject, and without it to compare.

    Args:
        guidance, steps: of the sampler; None: those of the training.
        before: whether the untouched model draws as well.

    Returns:
        The pairs in the order of the seeds, and warnings.

    Raises:
        As ``pipeline.sample``.
    """
    changes: dict[str, Any] = {"resolution": learned.side}
    if guidance is not None:
        changes["guidance_scale"] = guidance
    if steps is not None:
        changes["inference_steps"] = steps
    config = replace(learned.config, **changes)
    how: dict[str, Any] = {"config": config, "cancel": cancel, "progress": progress}
    if before:
        first, second = compare(engine, model_id, prompt, seeds, [learned], **how)
        plain: Sequence[NDArray[np.uint8] | None] = first.images
    else:
        second = sample(engine, model_id, prompt, seeds, learned=learned, **how)
        plain = [None] * len(seeds)
    pairs = [
        Pair(*one) for one in zip(second.prompts, second.seeds, plain, second.images, strict=True)
    ]
    return pairs, second.warnings


def parse_seeds(text: str, most: int) -> list[int]:
    """Read seeds such as "1, 2, 5-8". Raises PromptError if there are none, or too many."""
    seeds: list[int] = []
    for part in re.split(r"[,;\s]+", text.strip()):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if match is None:
            raise PromptError(f"The seeds are {text[:40]!r}: give numbers such as 1, 2, 3 or 1-4.")
        first, last = int(match[1]), int(match[2] or match[1])
        seeds += range(first, min(last, first + most) + 1)
    seeds = list(dict.fromkeys(seeds))
    if not 1 <= len(seeds) <= most:
        raise PromptError(f"There are more than {most} seeds, and each is a picture: give fewer.")
    return seeds


def _curve_on_disk(folder: Path) -> tuple[Point, ...]:
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return ()
    try:
        rows = read_facts(checkpoints[-1]).history
    except PromptError:
        return ()
    return tuple(Point(int(row["step"]), row["loss"], row["smoothed"]) for row in rows)


def _samples_on_disk(folder: Path) -> tuple[SampleFiles, ...]:
    found: dict[int, list[Path]] = {}
    for path in sorted((folder / "samples").glob("step-*.png")):
        if match := re.fullmatch(r"step-(\d+)_\d+", path.stem):
            found.setdefault(int(match[1]), []).append(path)
    return tuple(SampleFiles(step, tuple(files)) for step, files in sorted(found.items()))


def _saved(training_id: str, learned: LearnedSubject) -> Saved:
    samples = _samples_on_disk(learned.folder.parent)
    return Saved(training_id, learned, samples[-1].files[0] if samples else None)


def _made(one: Saved) -> str:
    card = json.loads((one.learned.folder / "card.json").read_bytes())
    return str(card.get("made", ""))
