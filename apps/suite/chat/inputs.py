"""What a visitor does in the chat tab, each a function of the session; no model is asked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from apps.suite.chat.examples import ChatExample
from apps.suite.chat.session import STYLES, Asked, ChatSession, Look, Said
from apps.suite.models import default_model, is_here
from apps.suite.notices import Notice
from apps.suite.segment import edits
from core.errors import NothingFound, PromptError
from core.images import LoadedImage, load
from core.models.catalogue import catalogue, for_method
from core.settings import settings

if TYPE_CHECKING:
    from core.pixellm.conversation import AnswerStyle
    from core.pixellm.generation import GenerationOptions
    from core.pixellm.postprocess import MaskOptions

BUSY = "The last question is still being answered: wait for it, or press Stop."
MOST_SEED = 2**31 - 1


def read_upload(session: ChatSession, path: str | None) -> None:
    """Take an uploaded file as the picture; on an error the one before stays.

    Raises:
        ImageError: the file is no readable picture, or over a limit.
    """
    edits.take_upload(session, path, use_picture)


def use_picture(session: ChatSession, loaded: LoadedImage) -> None:
    """Start on a picture, with nothing said."""
    with session.lock:
        session.cancel_job()
        edits.use_picture(session, loaded)


def use_example(session: ChatSession, example: ChatExample) -> None:
    """Take one of the suite's own pictures with the questions that it suggests."""
    with session.lock:
        use_picture(session, load(example.path))
        session.questions = example.questions


def begin(session: ChatSession, text: str | None) -> None:
    """Get ready to answer what is in the question box.

    Raises:
        PromptError: no picture, no or too long a question, or one is being answered.
    """
    with session.lock:
        session.sent = False
        _begin(session, text)
        session.sent = True


def ask(session: ChatSession, action: dict[str, Any]) -> None:
    """Get ready to answer a question of a button; errors as of ``begin``."""
    with session.lock:
        _begin(session, str(action.get("text", "")))


def _begin(session: ChatSession, text: str | None) -> None:
    from core.pixellm.conversation import Question

    session.need_picture()
    if session.waiting is not None:
        raise PromptError(BUSY)
    need_same_model(session)
    question = Question.parse(text)
    session.waiting = session.begin_job()
    session.live, session.failed = Said(question.text), None
    session.alone = session.peek = None
    session.notice = Notice("busy", "Waiting for the model…")


def read_settings(asked: Asked) -> tuple[AnswerStyle, GenerationOptions, MaskOptions]:
    """Make the method's settings of the page's fields.

    Raises:
        PromptError: an unknown style, or a number that is none or out of its range.
    """
    from core.pixellm.generation import GenerationOptions
    from core.pixellm.postprocess import MaskOptions

    if asked.style not in STYLES:
        raise PromptError(
            f"There is no answer style {str(asked.style)[:20]!r}; use one of {', '.join(STYLES)}."
        )
    generation = GenerationOptions(
        max_new_tokens=int(_number(asked.tokens, "longest answer", 1, settings.max_new_tokens)),
        temperature=_number(asked.temperature, "temperature", 0, 2),
        seed=int(_number(asked.seed, "seed", 0, MOST_SEED)),
    )
    threshold = _number(asked.threshold, "mask threshold", -20, 20)
    return asked.style, generation, MaskOptions(threshold=threshold)  # type: ignore[return-value]


def _number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, int | float) and math.isfinite(value) and least <= value <= most:
        return float(value)
    shown = "empty" if value is None else repr(value)[:20]
    raise PromptError(f"The {name} is {shown}; it must be a number from {least:g} to {most:g}.")


def look(session: ChatSession, action: dict[str, Any]) -> None:
    """Show other masks: those of a turn, one alone, or all again.

    Args:
        action: {"do": name, …} as static/suite.js sends it.

    Raises:
        PromptError: unknown or malformed.
        NothingFound: what is asked for is not there any more.
    """
    name = str(action.get("do"))
    if name not in _LOOKS:
        raise PromptError(f"The page asked for {name[:20]!r}, which is not known here.")
    with session.lock:
        session.peek = None
        _LOOKS[name](session, action)


def use_model(session: ChatSession, model_id: str | None) -> None:
    """Choose who answers from now on. Raises PromptError if there is no such PixelLM."""
    known = [model for _, model in chat_models()]
    if model_id not in known:
        raise PromptError(
            f"There is no PixelLM {str(model_id)[:20]!r}; choose one of {', '.join(known)}."
        )
    session.model = str(model_id)


def chat_models() -> list[tuple[str, str]]:
    """(title, id) of every PixelLM, the embedded one first."""
    entries = (entry for entry in catalogue().values() if entry.method == "pixellm")
    return [(entry.title, entry.id) for entry in entries]


def set_default(model_set: str) -> str:
    """The PixelLM to begin with in a set of models: one that is on this machine."""
    here = (entry.id for entry in for_method("pixellm", model_set) if is_here(entry.id))
    return next(here, default_model("embedded", "pixellm"))


def need_same_model(session: ChatSession) -> None:
    """Raise PromptError if the conversation was held with another model."""
    former = {told.result.segmentation.model for told in session.turns} - {session.model}
    if former:
        before, now = catalogue()[former.pop()].title, catalogue()[session.model].title
        raise PromptError(
            f"This conversation was held with {before}: press Clear to begin one with {now}, or "
            "choose the former model again."
        )


def clear(session: ChatSession) -> None:
    """Forget the conversation, which can be put back; the picture stays."""
    with session.lock:
        session.cancel_job()
        former = session.turns
        session.forget_turns()
        session.former = former
        if former:
            count = f"{len(former)} answer{'s' if len(former) > 1 else ''}"
            text = f"The conversation was cleared: {count}."
            session.notice = Notice("hint", text, action="turns-back", label="Put it back")


def new_picture(session: ChatSession) -> None:
    """Put picture and conversation away; the settings stay."""
    edits.remove_picture(session)


def _put_back(session: ChatSession, action: dict[str, Any]) -> None:
    if session.turns or session.live:
        raise PromptError("A new conversation has begun: clear it first.")
    session.turns, session.former = session.former, ()
    session.chosen = max(len(session.turns) - 1, 0)


def _choose_turn(session: ChatSession, action: dict[str, Any]) -> None:
    session.chosen = min(_turn_of(session, action), len(session.turns) - 1)
    session.alone = None


def _show_alone(session: ChatSession, action: dict[str, Any]) -> None:
    look = _look_of(session, action)
    session.alone = None if look == session.alone else look
    if look[0] < len(session.turns):
        session.chosen = look[0]


def _show_all(session: ChatSession, action: dict[str, Any]) -> None:
    session.alone = None


def _peek(session: ChatSession, action: dict[str, Any]) -> None:
    session.peek = _look_of(session, action) if action.get("numbers") else None


def _look_of(session: ChatSession, action: dict[str, Any]) -> Look:
    try:
        numbers = tuple(int(one) for one in str(action.get("numbers")).split(","))
    except ValueError:
        raise PromptError("The page sent something that cannot be read; reload it.") from None
    return _turn_of(session, action), numbers


def _turn_of(session: ChatSession, action: dict[str, Any]) -> int:
    index = edits.read_whole(action, "turn")
    if not 0 <= index < len(session.turns) + (session.live is not None):
        raise NothingFound("That answer is not here any more.")
    return index


_LOOKS = {
    "turn": _choose_turn,
    "alone": _show_alone,
    "all": _show_all,
    "peek": _peek,
    "turns-back": _put_back,
}
