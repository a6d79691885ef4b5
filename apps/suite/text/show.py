"""Turn a session into what the page's components show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from apps.suite.notices import Notice, status_html
from apps.suite.segment.drawing import save_png, say_score
from apps.suite.text.drawing import draw_pair, draw_result
from apps.suite.text.markup import answers_html, background_html, maps_html, steps_html, words_html
from apps.suite.text.session import NO_PICTURE, NO_WORDS, PAIRS, Found, TextSession
from apps.suite.text.work import say_found


class Shown(NamedTuple):
    """Updates of the tab's components, in the order that the tab lists them as outputs."""

    canvas: Any
    compare: Any
    pair: Any
    steps: Any
    maps: Any
    panel: Any
    status: Any
    words: Any
    background_words: Any
    mode: Any
    answers: Any
    cancel: Any
    prepare: Any
    files: Any


NOTHING = Shown(*[gr.skip()] * len(Shown._fields))


def show(session: TextSession) -> Shown:
    """Draw everything that the session's last change can have changed."""
    with session.lock:
        return Shown(
            canvas=show_canvas(session),
            compare=show_compare(session),
            pair=show_pair(session),
            steps=_panel(session, "steps", steps_html),
            maps=_panel(session, "maps", maps_html),
            panel=session.panel,
            status=status_of(session),
            words=words_html(session),
            background_words=background_html(session),
            mode=session.mode,
            answers=answers_html(session),
            cancel=gr.update(interactive=session.waiting is not None),
            prepare=gr.update(interactive=session.found is not None),
            files=gr.update(value=None, visible=False),
        )


def show_start(session: TextSession) -> tuple[Any, ...]:
    """Draw a new picture and its words before any model is asked."""
    with session.lock:
        return (
            show_canvas(session),
            status_of(session),
            words_html(session),
            gr.update(interactive=session.waiting is not None),
        )


def show_words(session: TextSession) -> tuple[str, str, str]:
    """Write the lists and the status line."""
    with session.lock:
        return words_html(session), background_html(session), status_of(session)


def show_look(session: TextSession) -> tuple[Any, ...]:
    """Draw what the visitor looks at: panels and status line."""
    with session.lock:
        return (
            show_canvas(session),
            show_compare(session),
            show_pair(session),
            _panel(session, "steps", steps_html),
            _panel(session, "maps", maps_html),
            status_of(session),
        )


def show_progress(session: TextSession, notice: Notice) -> Shown:
    """Change the status line only."""
    return NOTHING._replace(status=status_html(notice), cancel=gr.update(interactive=True))


def status_of(session: TextSession) -> str:
    """Write the session's notice, or what there is to say when nothing went wrong."""
    notice = session.notice
    return status_html(notice if notice.text else _state(session))


def _state(session: TextSession) -> Notice:
    if session.picture is None:
        return Notice("hint", NO_PICTURE)
    if session.found is not None:
        asked = session.found.result.queries.words
        if asked != session.words:
            return Notice("ready", "The words have changed: press Find to look for them.")
        return say_found(session.found)
    if not session.words:
        return Notice("hint", NO_WORDS)
    return Notice("ready", "Press Find to look for the words.")


def show_canvas(session: TextSession) -> Any:
    """Draw the picture with the label map, unless it is what the browser shows already."""
    visible = session.panel == "result"
    wanted: tuple[Any, ...] = ()
    if session.picture is not None:
        wanted = (session.picture, session.found, session.drawing)
    if wanted == session.on_canvas:
        return gr.update(visible=visible)
    session.on_canvas = wanted
    if session.picture is None:
        return gr.update(value=None, alt_text=None, visible=True)
    return gr.update(
        value=save_png(session, draw_result(session)),
        alt_text=f"{session.picture.loaded.stem}. {_describe(session.found)}",
        visible=visible,
    )


def _describe(found: Found | None) -> str:
    if found is None or not found.words:
        return "No word found." if found else ""
    parts = [
        f"{word.label} {say_score(word.score)}, {100 * word.mask.share:.1f} %"
        for word in found.words
    ]
    return f"Found: {'; '.join(parts)}."


def show_compare(session: TextSession) -> Any:
    """Draw the chosen two pictures for the slider, if it is what the visitor looks at."""
    if session.panel != "compare" or session.picture is None:
        return gr.update(visible=False)
    first, second = draw_pair(session)
    return gr.update(value=(save_png(session, first), save_png(session, second)), visible=True)


def show_pair(session: TextSession) -> Any:
    """Offer the pairs that there are to compare."""
    before = session.found.before if session.found else {}
    choices = [(text, name) for name, text in PAIRS.items() if name == "picture" or name in before]
    return gr.update(choices=choices, value=session.pair, visible=session.panel == "compare")


def _panel(session: TextSession, name: str, html: Callable[[TextSession], str]) -> Any:
    if session.panel != name:
        return gr.update(visible=False)
    return gr.update(value=html(session), visible=True)
