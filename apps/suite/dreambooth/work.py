"""Ask the models: the only file of the tab that runs core.persam and core.dreambooth.

Trainings belong to the queue: they go on when the page is gone, and here they are only begun,
looked at, held and stopped. Everything else is a session's job, with progress and cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from apps.suite import jobs
from apps.suite.dreambooth import inputs
from apps.suite.dreambooth.session import DreamBoothSession
from apps.suite.jobs import Progress
from apps.suite.notices import Notice, notice_of
from core.dreambooth.config import PRESETS, DreamBoothConfig
from core.errors import Cancelled, PromptError
from core.settings import settings

if TYPE_CHECKING:
    from core.dreambooth.serving import Trainings
    from core.engine import CancelToken

MOST_PAIRS = 40  # drawn pictures that are kept

Work = Callable[["DreamBoothSession", "CancelToken", Progress], Notice | None]


def trainings() -> Trainings:
    """The trainings of this server."""
    from core.dreambooth.serving import Trainings
    from core.engine import get_engine

    return Trainings(get_engine())


# Masks


def find_masks(session: DreamBoothSession) -> Iterator[Notice]:
    """Look for the marked thing in the pictures without decision, unless that was done."""
    if session.unsought:
        yield from _run(session, "Masks:", _find_masks)


def _find_masks(session: DreamBoothSession, token: CancelToken, report: Progress) -> Notice | None:
    from core.dreambooth.pipeline import prepare
    from core.engine import get_engine

    with session.lock:
        items, marked, sought = list(session.items), session.marked, session.marked_mask
        asked = [item.subject for item in items]
    if marked is None:
        return None
    found, _ = prepare(get_engine(), session.model, asked, marked, cancel=token, progress=report)
    with session.lock:
        token.raise_if_cancelled()
        for item, before, after in zip(items, asked, found, strict=True):
            if after.decision is None and item.subject is before:
                inputs.put_found(session, item, after, sought)
    return None


# How long a training takes


def estimate(session: DreamBoothSession) -> Iterator[Notice]:
    """Measure how long the presets and the wished settings take here, unless that is known."""
    with session.lock:
        known = session.expected is not None
        if known or session.diffusion is None or not _is_here(session) or not session.is_prepared:
            return
    yield from _run(session, "Expected time:", _estimate)


def _is_here(session: DreamBoothSession) -> bool:
    from apps.suite.models import is_here

    return is_here(session.entry.id)


def _estimate(session: DreamBoothSession, token: CancelToken, report: Progress) -> Notice | None:
    from core.dreambooth.pipeline import estimate_seconds
    from core.engine import get_engine

    with session.lock:
        entry, config, measured = session.entry, inputs.config_of(session), {}
        presets = [] if session.seconds_by_preset else list(PRESETS)
    report(0.0, "measuring one step")
    for name in presets:
        token.raise_if_cancelled()
        preset = DreamBoothConfig.preset(name, entry.set)
        measured[name] = estimate_seconds(get_engine(), entry.id, preset)
    seconds = estimate_seconds(get_engine(), entry.id, config)
    with session.lock:
        if session.diffusion == entry.id:
            session.seconds_by_preset |= measured
            session.measured = config, seconds
    return None


# Trainings


def begin_training(session: DreamBoothSession) -> None:
    """Put the training into the queue; what goes wrong becomes the notice."""
    if session.notice.kind != "busy":  # the check before has refused it
        return

    def begin() -> None:
        with session.lock:
            pictures = [item.subject for item in session.items]
            subject, config = inputs.subject_of(session), inputs.config_of(session)
            model_id = session.entry.id
        training_id = trainings().begin(model_id, subject, pictures, config)
        inputs.remember(session, training_id)
        session.notice = Notice("ready", "")

    _say_errors(session, begin)
    look(session)


def look(session: DreamBoothSession) -> None:
    """See how the training stands; when it has learned its subject, that is what is drawn with."""

    def see() -> None:
        training_id = session.training
        if not training_id:
            return
        try:
            standing = trainings().look(training_id)
        except PromptError:
            with session.lock:
                session.training, session.standing = "", None
            raise
        with session.lock:
            former, session.standing = session.standing, standing
            is_new = former is None or former.status.state != "finished"
        if standing.status.state == "finished" and is_new:
            open_saved(session, training_id)

    _say_errors(session, see)


def recall(session: DreamBoothSession) -> None:
    """Find the visitor's trainings again: the one of the address, else one that still goes on."""
    from core.dreambooth.queue import ENDED

    if not session.training:
        for training_id in reversed(session.known):
            try:
                if trainings().queue.status(training_id).state not in ENDED:
                    session.training = training_id
                    break
            except PromptError:
                continue  # deleted meanwhile
    look(session)
    list_saved(session)


def list_saved(session: DreamBoothSession) -> None:
    """Look which learned subjects there are for the visitor."""

    def see() -> None:
        found = trainings().saved(session.known, everybody=settings.shared_subjects)
        with session.lock:
            session.saved = found

    _say_errors(session, see)


def open_saved(session: DreamBoothSession, training_id: str) -> None:
    """Draw with what a training has learned from now on.

    Raises:
        SuiteError: it has learned nothing, or its files are damaged.
    """
    learned = trainings().learned(training_id)
    with session.lock:
        session.learned, session.learned_id = learned, training_id
        session.diffusion = learned.base[0]
        session.pairs, session.newest = [], 0
        session.fill_prompt = True
        if training_id not in session.known:
            session.known.append(training_id)
    list_saved(session)


def open_uploaded(session: DreamBoothSession, path: str) -> None:
    """Draw with the weights in an uploaded ZIP. Raises PromptError if it is none of ours."""
    from core.dreambooth.exports import read_weights

    learned = read_weights(Path(path), session.new_file(""))
    with session.lock:
        session.learned, session.learned_id = learned, ""
        session.pairs, session.newest = [], 0
        session.fill_prompt = True


def pause(session: DreamBoothSession) -> None:
    """Hold the training. Raises PromptError if it is not running."""
    trainings().queue.pause(session.need_training())


def go_on(session: DreamBoothSession) -> None:
    """End a pause, or go on from the last checkpoint of a training that was stopped.

    Raises:
        PromptError: there is nothing to go on with.
    """
    training_id = session.need_training()
    if trainings().look(training_id).has_ended:
        trainings().go_on(training_id)
    else:
        trainings().queue.go_on(training_id)


def stop(session: DreamBoothSession) -> None:
    """Stop the training; its last checkpoint stays. Raises PromptError if it is not running."""
    trainings().queue.cancel(session.need_training())


def delete(session: DreamBoothSession, training_id: str) -> None:
    """Delete an ended training with all that it has learned. Raises PromptError if it goes on."""
    trainings().queue.delete(training_id)
    with session.lock:
        session.known = [one for one in session.known if one != training_id]
        if session.training == training_id:
            session.training, session.standing, session.shown_samples = "", None, None
        if session.learned_id == training_id:
            session.learned, session.learned_id, session.pairs = None, "", []
    list_saved(session)


# Drawing


def draw(session: DreamBoothSession, *fields: object) -> Iterator[Notice]:
    """Draw what the fields of step 4 say, before and after training."""
    if session.notice.kind != "busy":  # the check before has refused it
        return

    def work(session: DreamBoothSession, token: CancelToken, report: Progress) -> Notice:
        from core.dreambooth.serving import draw_pairs
        from core.engine import get_engine

        learned, order = session.need_learned(), inputs.read_order(*fields)
        pairs, warnings = draw_pairs(
            get_engine(),
            learned.base[0],
            order.prompt,
            order.seeds,
            learned,
            guidance=order.guidance,
            steps=order.steps,
            before=order.compare,
            cancel=token,
            progress=report,
        )
        with session.lock:
            token.raise_if_cancelled()
            session.pairs = [*session.pairs, *pairs][-MOST_PAIRS:]
            session.newest = len(pairs)
        return Notice("warning", " ".join(warnings)) if warnings else Notice("ready", "")

    yield from _run(session, "Drawing:", work)


def _run(session: DreamBoothSession, doing: str, work: Work) -> Iterator[Notice]:
    token = session.job_token()

    def explain(session: DreamBoothSession, error: Exception) -> Notice | None:
        if isinstance(error, Cancelled) and session.notice.kind not in ("busy", "ready"):
            return None  # it would hide what stopped it
        return notice_of(error)

    def keep(session: DreamBoothSession, notice: Notice) -> None:
        with session.lock:
            session.notice = notice

    def run(report: Progress) -> Notice | None:
        return work(session, token, report)

    yield from jobs.follow(session, doing, run, token, keep=keep, explain=explain)


def _say_errors(session: DreamBoothSession, work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        with session.lock:
            session.notice = notice_of(error)
