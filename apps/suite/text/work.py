"""Look for the words: the only file of the tab that reaches core.car's models, when needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from apps.suite.jobs import Progress, follow
from apps.suite.notices import Notice, notice_of, say_seconds
from apps.suite.text import inputs
from apps.suite.text.session import Asked, Found, TextSession
from apps.suite.text.words import short


def find(session: TextSession, asked: Asked, *, anyway: bool = False) -> Iterator[Notice]:
    """Look for the words with the settings of the page's fields.

    Args:
        anyway: keep every word, whatever its score.
    """
    token = session.waiting
    if token is None:
        return

    def work(report: Progress) -> Notice | None:
        from core.car.choices import change
        from core.car.serving import find_words
        from core.engine import get_engine

        with session.lock:
            picture, words = session.need_picture(), inputs.need_words(session)
            config = inputs.read_config(asked, session.own_background, session.model_set)
            model_set, sam = session.model_set, session.sam if asked.sam else None
            phrases = session.mode == "phrases"
        if anyway:
            config = change(config, confidence_threshold=0.0, presence_threshold=None)
        answer = find_words(
            get_engine(),
            model_set,
            picture.image,
            words,
            config,
            phrases=phrases,
            sam=sam,
            cancel=token,
            progress=report,
        )
        found = Found.of(answer, picture.view)
        with session.lock:
            if session.picture is not picture:
                return None
            _keep(session, found)
        return say_found(found)

    def explain(session: TextSession, error: Exception) -> Notice | None:
        return notice_of(error) if session.waiting is token else None

    try:
        yield from follow(session, "Looking:", work, token, explain=explain)
    finally:
        if session.waiting is token:
            session.waiting = None


def _keep(session: TextSession, found: Found) -> None:
    """Make an answer the one that is shown, at its first step and its best word."""
    session.found = found
    session.step = 0
    kept = found.result.steps[-1].kept
    session.map_word = kept[0] if kept else 0
    if session.pair not in found.before:
        session.pair = "picture"
    seconds = found.result.segmentation.seconds
    read = seconds.get("encode", 0.0)
    session.seconds = {"encode": read, "predict": seconds["total"] - read}


def say_found(found: Found) -> Notice:
    """Say how many words were found, or that none was and which came nearest."""
    steps, count = found.result.steps, len(found.result.queries.words)
    if not found.words:
        text = f"{'The word was' if count == 1 else 'All words were'} dropped.{_say_best(found)}"
        return Notice("hint", text, action="anyway", label="Show them anyway")
    took = say_seconds(found.result.segmentation.seconds["total"])
    plural = "s" if len(steps) > 1 else ""
    return Notice(
        "ready", f"Found {len(found.words)} of {count} in {took}, {len(steps)} step{plural}."
    )


def _say_best(found: Found) -> str:
    """' Best: “dog” 0.41.', by what dropped them; "" where nothing was scored."""
    last = found.result.steps[-1]
    scores = last.scores
    if scores is None:
        return " No part of the picture answers to any of them."
    words = found.result.queries.words
    if scores.presence is None:
        row = int(np.argmax(scores.own))
        return f" Best: {short(words[last.live[row]])} {scores.own[row]:.2f}."
    row = int(np.argmax(scores.presence))
    value = scores.presence[row]
    return f" Best: {short(words[last.live[row]])} {value:.2f}, against the background words."
