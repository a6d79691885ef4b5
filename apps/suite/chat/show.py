"""Turn a session into what the page's components show."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from apps.suite.chat.drawing import draw_shown
from apps.suite.chat.markup import inside_html, live_html, log_html, suggestions_html
from apps.suite.chat.session import NO_PICTURE, ChatSession
from apps.suite.chat.work import say_told
from apps.suite.notices import Notice, status_html
from apps.suite.segment.drawing import save_png


class Shown(NamedTuple):
    """Updates of the tab's components, in the order that the tab lists them as outputs."""

    canvas: Any
    log: Any
    live: Any
    suggestions: Any
    inside: Any
    status: Any
    cancel: Any
    prepare: Any
    files: Any


NOTHING = Shown(*[gr.skip()] * len(Shown._fields))


def show(session: ChatSession) -> Shown:
    """Draw everything that the session's last change can have changed."""
    with session.lock:
        return Shown(
            canvas=show_canvas(session),
            log=log_html(session),
            live=live_html(session),
            suggestions=suggestions_html(session),
            inside=inside_html(session),
            status=status_of(session),
            cancel=gr.update(interactive=session.waiting is not None),
            prepare=gr.update(interactive=bool(session.turns)),
            files=gr.update(value=None, visible=False),
        )


def show_progress(session: ChatSession, notice: Notice) -> Shown:
    """Show what was said so far, and its masks."""
    with session.lock:
        return NOTHING._replace(
            canvas=show_canvas(session),
            live=live_html(session),
            status=status_html(notice),
            cancel=gr.update(interactive=True),
        )


def show_sent(session: ChatSession) -> tuple[Any, ...]:
    """Show a question at once; the box is emptied only if its text was taken."""
    with session.lock:
        sent, session.sent = session.sent, False
        return (gr.update(value="") if sent else gr.skip(), *show_asked(session))


def show_asked(session: ChatSession) -> tuple[Any, ...]:
    """Show a question before any model is asked."""
    with session.lock:
        return (
            log_html(session),
            live_html(session),
            suggestions_html(session),
            status_of(session),
            gr.update(interactive=session.waiting is not None),
        )


def show_look(session: ChatSession) -> tuple[Any, ...]:
    """Show the masks that are looked at, and which phrase is pressed."""
    with session.lock:
        return (
            show_canvas(session),
            log_html(session),
            live_html(session),
            suggestions_html(session),
            inside_html(session),
            status_of(session),
            gr.update(interactive=bool(session.turns)),
        )


def status_of(session: ChatSession) -> str:
    """Write the session's notice, or what there is to say when nothing went wrong."""
    notice = session.notice
    return status_html(notice if notice.text else _state(session))


def _state(session: ChatSession) -> Notice:
    if session.picture is None:
        return Notice("hint", NO_PICTURE)
    if session.waiting is not None:
        return Notice("busy", "Answering…")
    if session.turns:
        return say_told(session.turns[session.chosen])
    return Notice("ready", "Ask something about the picture.")


def show_canvas(session: ChatSession) -> Any:
    """Draw the picture with masks, unless it is what the browser shows already."""
    wanted: tuple[Any, ...] = ()
    if session.picture is not None:
        wanted = (session.picture, session.shown, session.drawing)
    if wanted == session.on_canvas:
        return gr.skip()
    session.on_canvas = wanted
    if session.picture is None:
        return gr.update(value=None, alt_text=None)
    return gr.update(
        value=save_png(session, draw_shown(session)),
        alt_text=f"{session.picture.loaded.stem}. {_describe(session)}",
    )


def _describe(session: ChatSession) -> str:
    shown = session.shown
    if not shown:
        return ""
    parts = [f"{number}, {100 * mask.share:.1f} %" for number, mask in shown.items()]
    return f"Masks: {'; '.join(parts)}."
