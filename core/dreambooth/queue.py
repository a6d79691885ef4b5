"""Trainings that wait their turn, one at a time on each device, and go on without their visitor.

A job is found again by its id, after a reload of the page in the memory of this process, after a
restart of the server by the record in its folder. Its id is random and the only key to it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.dreambooth.control import Control
from core.dreambooth.events import (
    CheckpointSaved,
    Event,
    Finished,
    Paused,
    Phase,
    Resumed,
    Samples,
    StepDone,
)
from core.dreambooth.storage import write_atomically
from core.errors import Cancelled, PromptError, SuiteError

State = Literal["waiting", "running", "paused", "finished", "stopped", "failed", "interrupted"]
# Given the training's folder and its control; what it yields is kept, what it raises ends it.
Work = Callable[[Path, Control], Iterator[Event]]

RECORD_FILE = "run.json"
ENDED = ("finished", "stopped", "failed", "interrupted")
MAX_WAITING = 20
KEPT_JOBS = 100  # ended ones in memory; their folders stay
KEPT_SAMPLES = 50  # of each job, in memory

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobStatus:
    """What a page shows of a training.

    Args:
        place: how many trainings come first; 0 for one that is not waiting.
        phase: what goes on besides steps, None if nothing.
        step: the last one's figures, None before the first.
        checkpoint: the newest one's step.
        subject: folder of the learned subject.
        error: why it failed, as a sentence for the visitor.
    """

    id: str
    title: str
    state: State
    place: int
    phase: Phase | None
    step: StepDone | None
    checkpoint: int | None
    subject: Path | None
    error: str | None
    folder: Path


@dataclass(eq=False)
class _Job:
    id: str
    title: str
    work: Work
    folder: Path
    facts: dict[str, Any]
    control: Control = field(default_factory=Control)
    state: State = "waiting"
    phase: Phase | None = None
    steps: list[StepDone] = field(default_factory=list)
    samples: deque[Samples] = field(default_factory=lambda: deque(maxlen=KEPT_SAMPLES))
    checkpoint: int | None = None
    subject: Path | None = None
    error: str | None = None


class TrainingQueue:
    """The trainings of one device, each in a folder of its own under ``root``.

    Args:
        root: made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._changed = threading.Condition()  # guards what follows
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._worker: threading.Thread | None = None

    def submit(
        self,
        work: Work,
        *,
        title: str = "",
        facts: dict[str, Any] | None = None,
        job_id: str | None = None,
    ) -> str:
        """Queue a training and return its id.

        Args:
            work: called in this queue's thread when its turn comes.
            facts: JSON values for its record, such as the settings.
            job_id: of a training that ended, to go on with in its folder.

        Raises:
            PromptError: the queue is full, or that training has not ended.
        """
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                raise PromptError(
                    f"{len(self._waiting)} trainings are waiting already: try again later."
                )
            if job_id is not None and self.status(job_id).state not in ENDED:
                raise PromptError("This training is still going on.")
            one = job_id or uuid.uuid4().hex
            job = _Job(one, title, work, self._root / one, dict(facts or {}))
            job.folder.mkdir(parents=True, exist_ok=True)
            self._jobs[one] = job
            self._waiting.append(job)
            self._write(job)
            self._drop_old()
            if self._worker is None:
                self._worker = threading.Thread(target=self._run_all, daemon=True)
                self._worker.start()
        return one

    def status(self, job_id: str) -> JobStatus:
        """How a training stands; also one of a process that is gone.

        Raises:
            PromptError: there is none of this id.
        """
        with self._changed:
            if (job := self._jobs.get(job_id)) is None:
                return self._status_on_disk(job_id)
            running = any(one.state in ("running", "paused") for one in self._jobs.values())
            place = self._waiting.index(job) + running if job in self._waiting else 0
            return JobStatus(
                id=job.id,
                title=job.title,
                state=job.state,
                place=place,
                phase=job.phase,
                step=job.steps[-1] if job.steps else None,
                checkpoint=job.checkpoint,
                subject=job.subject,
                error=job.error,
                folder=job.folder,
            )

    def steps(self, job_id: str, after: int = 0) -> list[StepDone]:
        """The figures of a training's steps beyond ``after``, for its curve."""
        with self._changed:
            job = self._jobs.get(job_id)
            return [step for step in job.steps if step.step > after] if job else []

    def samples(self, job_id: str, after: int = -1) -> list[Samples]:
        """The sample pictures drawn so far beyond step ``after``."""
        with self._changed:
            job = self._jobs.get(job_id)
            return [sample for sample in job.samples if sample.step > after] if job else []

    def facts(self, job_id: str) -> dict[str, Any]:
        """What was given at ``submit``. Raises PromptError if there is no such training."""
        with self._changed:
            if job_id in self._jobs:
                return dict(self._jobs[job_id].facts)
        return dict(self._read(job_id)["facts"])

    def pause(self, job_id: str) -> None:
        """Hold a training; the next one does not begin meanwhile."""
        self._running(job_id).control.pause()

    def go_on(self, job_id: str) -> None:
        """End a pause."""
        self._running(job_id).control.go_on()

    def cancel(self, job_id: str) -> None:
        """Stop a training, or take it out of the queue; one that has ended stays as it is."""
        with self._changed:
            job = self._running(job_id)
            job.control.cancel()
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "stopped")

    def delete(self, job_id: str) -> None:
        """Remove an ended training and its folder.

        Raises:
            PromptError: there is none of this id, or it has not ended.
        """
        with self._changed:
            if (status := self.status(job_id)).state not in ENDED:
                raise PromptError("This training is still going on: cancel it first.")
            self._jobs.pop(job_id, None)
            shutil.rmtree(status.folder, ignore_errors=True)

    def wait(self, job_id: str, timeout: float | None = None) -> JobStatus:
        """Return a training's status when it has ended, or after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while (status := self.status(job_id)).state not in ENDED:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
        return status

    def _run_all(self) -> None:
        """Run the waiting jobs, one after the other, until there is none."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._worker = None
                    return
                job = self._waiting.pop(0)
                job.state = "running"
                self._write(job)
                self._changed.notify_all()
            self._run(job)

    def _run(self, job: _Job) -> None:
        try:
            for event in job.work(job.folder, job.control):
                with self._changed:
                    self._note(job, event)
                    self._changed.notify_all()
            state: State = "finished" if job.subject else "stopped"
        except Cancelled:
            state = "stopped"
        except SuiteError as error:
            state, job.error = "failed", error.message
        except Exception:
            _log.exception("training %s failed", job.id)
            state = "failed"
            job.error = "The training failed by a fault of this program; the log has its trace."
        with self._changed:
            self._end(job, state)

    def _note(self, job: _Job, event: Event) -> None:
        """Keep what an event tells. The lock is held."""
        job.state = "paused" if isinstance(event, Paused) else "running"
        job.phase = event if isinstance(event, Phase) else job.phase
        if isinstance(event, StepDone):
            job.steps.append(event)
            job.phase = None
        elif isinstance(event, Resumed):
            job.steps = list(event.steps)
        elif isinstance(event, Samples):
            job.samples.append(event)
            job.phase = None
        elif isinstance(event, CheckpointSaved):
            job.checkpoint = event.step
            self._write(job)
        elif isinstance(event, Finished):
            job.subject = event.subject

    def _end(self, job: _Job, state: State) -> None:
        """The lock is held."""
        job.state, job.phase = state, None
        self._write(job)
        self._changed.notify_all()

    def _running(self, job_id: str) -> _Job:
        with self._changed:
            if job_id not in self._jobs:
                raise PromptError("This training is not running here.")
            return self._jobs[job_id]

    def _drop_old(self) -> None:
        """Forget the oldest ended jobs; their records stay on the disk. The lock is held."""
        ended = [job for job in self._jobs.values() if job.state in ENDED]
        for job in ended[: max(0, len(ended) - KEPT_JOBS)]:
            del self._jobs[job.id]

    def _write(self, job: _Job) -> None:
        record = {
            "id": job.id,
            "title": job.title,
            "state": job.state,
            "checkpoint": job.checkpoint,
            "subject": None if job.subject is None else job.subject.name,
            "error": job.error,
            "facts": job.facts,
        }
        try:
            write_atomically(job.folder / RECORD_FILE, json.dumps(record, indent=1).encode())
        except OSError:  # a full disk: the training itself says so
            _log.warning("the record of %s could not be written", job.id, exc_info=True)

    def _read(self, job_id: str) -> dict[str, Any]:
        # Ids come from outside and become paths.
        if re.fullmatch("[0-9a-f]{32}", job_id):
            try:
                record = json.loads((self._root / job_id / RECORD_FILE).read_bytes())
                if isinstance(record, dict) and record.get("id") == job_id:
                    return record
            except (OSError, ValueError):
                pass
        raise PromptError("There is no such training: it was deleted, or its link is cut off.")

    def _status_on_disk(self, job_id: str) -> JobStatus:
        record = self._read(job_id)
        folder = self._root / job_id
        return JobStatus(
            id=job_id,
            title=record["title"],
            state=record["state"] if record["state"] in ENDED else "interrupted",
            place=0,
            phase=None,
            step=None,
            checkpoint=record["checkpoint"],
            subject=folder / record["subject"] if record["subject"] else None,
            error=record["error"],
            folder=folder,
        )


_queues: dict[tuple[str, Path], TrainingQueue] = {}
_queues_lock = threading.Lock()


def queue_of(device: str, root: Path) -> TrainingQueue:
    """The process's queue of a device, such as "cuda:0"; made at the first call."""
    with _queues_lock:
        return _queues.setdefault((device, root), TrainingQueue(root))
