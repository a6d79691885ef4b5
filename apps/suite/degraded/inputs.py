"""What a visitor does in the Degraded tab, beyond marking, each a function of the session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.suite.canvas import View
from apps.suite.degraded.session import PANELS, Choice, Clear, DegradedSession
from apps.suite.masks import read_mask
from apps.suite.notices import Notice
from apps.suite.segment import edits
from apps.suite.segment.session import Picture
from core.degradations import COMBINATIONS, Degraded, degrade, degrade_chain
from core.errors import PromptError
from core.images import LoadedImage, load


def read_upload(session: DegradedSession, path: str | None) -> None:
    """Take an uploaded file as the picture, degraded as chosen; on an error the one before stays.

    Raises:
        ImageError: the file is no readable picture, or over a limit.
    """
    edits.take_upload(session, path, use_picture)


def use_picture(session: DegradedSession, loaded: LoadedImage) -> None:
    """Start on a picture with nothing marked."""
    with session.lock:
        edits.use_picture(session, loaded)
        session.clear = Clear(loaded)
        session.panel = "picture"
        _degrade(session)


def use_example(session: DegradedSession, path: Path, choice: Choice) -> None:
    """Take one of the suite's own pictures with the degradation that it is shown with."""
    with session.lock:
        session.choice = choice
        use_picture(session, load(path))


def set_choice(session: DegradedSession, name: str, severity: float, seed: float | None) -> None:
    """Degrade the picture in another way; the prompts stay.

    Raises:
        PromptError: no such degradation, severity or seed.
    """
    choice = Choice(str(name), int(severity), int(seed or 0))
    with session.lock:
        if choice == session.choice:
            return
        session.choice = choice
        if session.clear is not None:
            _degrade(session)


def new_seed(session: DegradedSession) -> None:
    """Degrade in the same way with other chances."""
    choice = session.choice
    set_choice(session, choice.name, choice.severity, (choice.seed + 1) % 2**31)


def upload_truth(session: DegradedSession, path: str | None) -> None:
    """Take a mask picture as what both answers are measured with.

    Raises:
        ImageError: the file is no readable picture.
        PromptError: there is no picture, or the mask is empty.
    """
    if path is None:
        return
    session.own_upload(path)
    clear = session.need_clear()
    prompt = read_mask(path, clear.loaded.size)
    with session.lock:
        session.clear = replace(clear, truth=prompt.mask)
        session.forget_answer()
        session.notice = Notice("hint", " ".join(prompt.notices))


def set_panel(session: DegradedSession, panel: str) -> None:
    """Choose what the large frame shows. Raises PromptError if unknown or without a picture."""
    if panel not in PANELS:
        raise PromptError(f"There is no view {str(panel)[:20]!r}; use one of {', '.join(PANELS)}.")
    session.need_clear()
    session.panel = panel


def set_options(session: DegradedSession, multimask: str, mask_threshold: float) -> None:
    """Change what both models are asked."""
    edits.set_options(session, multimask=multimask, mask_threshold=mask_threshold)
    session.forget_answer()


def run_again(session: DegradedSession) -> None:
    """Ask both models once more. Raises PromptError without a picture or a prompt."""
    edits.run_again(session)
    session.forget_answer()


def begin_job(session: DegradedSession) -> None:
    """Get ready for a sweep. Raises PromptError without a picture or a prompt."""
    session.need_clear()
    if not session.scene.prompts:
        raise PromptError("There is no prompt yet: click an object or draw a box around it first.")
    session.begin_job()
    session.notice = Notice("busy", "Waiting for the model…")


def begin_restoring(session: DegradedSession) -> None:
    """Get ready to deblur. Raises PromptError without a blur that is known, or without masks."""
    if missing := session.missing_to_restore():
        raise PromptError(missing)
    begin_job(session)


def choose_kind(session: DegradedSession, data: dict[str, Any]) -> None:
    """Take the kind of one card of the sheet."""
    choice = session.choice
    set_choice(session, str(data.get("kind")), choice.severity, choice.seed)
    session.panel = "picture"


def make_degraded(loaded: LoadedImage, choice: Choice) -> Degraded:
    """Degrade a picture as chosen."""
    if choice.name in COMBINATIONS:
        return degrade_chain(loaded.image, COMBINATIONS[choice.name], seed=choice.seed)
    return degrade(loaded.image, choice.name, severity=choice.severity, seed=choice.seed)


def _degrade(session: DegradedSession) -> None:
    """Put the degraded picture in the place of the one that is shown and asked about."""
    clear = session.need_clear()
    session.degraded = make_degraded(clear.loaded, session.choice)
    image = session.degraded.image
    session.picture = Picture(replace(clear.loaded, image=image), View.of(image))
    edits.forget_answers(session)
    session.forget_answer()
    session.seconds = {}
    session.guesses = ()
