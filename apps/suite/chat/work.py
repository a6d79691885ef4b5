"""Read the picture and answer questions: the only file of the tab that reaches core's models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from apps.suite.canvas import View
from apps.suite.chat import inputs
from apps.suite.chat.session import Asked, ChatSession, Failed, Said, SaidMask, Told
from apps.suite.jobs import Progress, follow
from apps.suite.notices import Notice, notice_of, say_seconds

if TYPE_CHECKING:
    from core.pixellm.results import Event, PixelLMResult

SHOW_SECONDS = 0.1  # between two looks at an answer that is being written


def read_picture(session: ChatSession) -> Iterator[Notice]:
    """Load the model and encode a new picture, so that the first answer comes soon."""
    picture = session.picture
    if picture is None or session.waiting is not None or "encode" in session.seconds:
        return
    with session.lock:
        token = session.begin_job()

    def work(report: Progress) -> Notice | None:
        from core.engine import get_engine
        from core.pixellm import serving

        seconds = serving.read_picture(
            get_engine(), session.model, picture.image, cancel=token, progress=report
        )
        with session.lock:
            if session.picture is not picture or session.waiting is not None:
                return None
            session.seconds = {"encode": seconds}
        read = f"Picture read in {say_seconds(seconds)}. Ask something about it."
        return Notice("ready", " ".join([*picture.loaded.notices, read]))

    def explain(session: ChatSession, error: Exception) -> Notice | None:
        return notice_of(error) if session.picture is picture and not session.waiting else None

    yield from follow(session, "Reading the picture:", work, token, explain=explain)


def answer(session: ChatSession, asked: Asked) -> Iterator[Notice]:
    """Answer the question that waits, with the settings of the page's fields.

    What was said so far is ``session.live``; an answer that was stopped is kept as a turn.
    """
    with session.lock:
        token, live = session.waiting, session.live
    if token is None or live is None:
        return
    question = live.question

    def work(report: Progress) -> Notice | None:
        from core.engine import get_engine
        from core.pixellm.results import Finished
        from core.pixellm.serving import converse

        style, generation, masks = inputs.read_settings(asked)
        with session.lock:
            picture, turns = session.need_picture(), session.turns
        events = converse(
            get_engine(),
            session.model,
            picture.image,
            question,
            [told.result.turn.to_json() for told in turns],
            style=style,
            generation=generation,
            masks=masks,
            cancel=token,
            progress=report,
        )
        said, shown = Said(question), 0.0
        with closing(events):
            for event in events:
                if isinstance(event, Finished):
                    told = Told.of(event.result, _all_masks(said, event.result, picture.view))
                    return _keep(session, token, told)
                said = _add(said, event, picture.view)
                with session.lock:
                    if session.waiting is not token:
                        return None  # the picture is another one
                    session.live = said
                if time.monotonic() - shown >= SHOW_SECONDS:
                    shown = time.monotonic()
                    report(0.0, _say_so_far(said))
        return None

    def explain(session: ChatSession, error: Exception) -> Notice | None:
        with session.lock:
            if session.waiting is not token:
                return None
            notice = notice_of(error)
            session.live, session.failed = None, Failed(question, notice.text)
            return notice

    try:
        for notice in follow(session, "Answering:", work, token, explain=explain):
            yield replace(notice, progress=None)
    finally:
        with session.lock:
            if session.waiting is token:
                session.waiting = session.live = None


def _add(said: Said, event: Event, view: View) -> Said:
    """What is said after one more event."""
    from core.pixellm.results import TargetFound, TextPiece

    if isinstance(event, TextPiece):
        return replace(said, text=said.text + event.text)
    assert isinstance(event, TargetFound)
    masks = (*said.masks, SaidMask.of(event.target, view))
    if event.span is None:
        return replace(said, masks=masks)
    spans = (*(one for one in said.spans if one.end <= event.span.start), event.span)
    return replace(said, spans=spans, masks=masks)


def _all_masks(said: Said, result: PixelLMResult, view: View) -> tuple[SaidMask, ...]:
    """The masks of a result, in the order of its targets."""
    made = {one.number: one for one in said.masks}
    return tuple(made.get(one.number) or SaidMask.of(one, view) for one in result.targets)


def _keep(session: ChatSession, token: object, told: Told) -> Notice | None:
    """Make an answer the last turn, the one that is shown."""
    with session.lock:
        if session.waiting is not token:
            return None
        session.turns = (*session.turns, told)
        session.live, session.former = None, ()
        session.chosen = len(session.turns) - 1
        seconds = told.result.segmentation.seconds
        session.seconds = {
            "encode": session.seconds.get("encode", seconds["encode"]),
            "predict": seconds["total"] - seconds["encode"],
        }
    return say_told(told)


def say_told(told: Told) -> Notice:
    """Say what came of a question, and in what time."""
    took = say_seconds(told.result.segmentation.seconds["total"])
    if told.result.answer.ending == "stopped":
        return Notice("hint", "Stopped; what was said so far is kept.")
    if told.outcome == "masks":
        count = len(told.labels)
        return Notice("ready", f"Answered in {took} with {count} mask{'s' if count > 1 else ''}.")
    reasons = {
        "no_group": "and marks nothing in the picture",
        "broken_group": "but no mask was completed",
        "empty_mask": "but its masks have no pixel",
    }
    return Notice("hint", f"Answered in {took}, {reasons[told.outcome]}.")


def _say_so_far(said: Said) -> str:
    words, masks = len(said.text.split()), len(said.masks)
    plural = ["" if count == 1 else "s" for count in (words, masks)]
    return f"{words} word{plural[0]}, {masks} mask{plural[1]}"
