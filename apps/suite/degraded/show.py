"""Turn a session into what the page's components show."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from apps.suite.degraded.drawing import draw_pair, draw_picture
from apps.suite.degraded.markup import (
    answers_html,
    four_html,
    guesses_html,
    restored_html,
    series_html,
    sheet_html,
)
from apps.suite.degraded.session import FIRST_CLICK, NO_PICTURE, DegradedSession
from apps.suite.notices import Notice, say_seconds, status_html
from apps.suite.segment.drawing import save_png
from apps.suite.segment.markup import prompts_html
from core.degradations import COMBINATIONS


class Shown(NamedTuple):
    """Updates of the tab's components, in the order that the tab lists them as outputs."""

    canvas: Any
    compare: Any
    four: Any
    sheet: Any
    restored: Any
    panel: Any
    status: Any
    guesses: Any
    answers: Any
    series: Any
    prompts: Any
    name: Any
    severity: Any
    seed: Any
    undo: Any
    clear: Any
    find_all: Any
    find_series: Any
    restore: Any
    cancel: Any
    prepare: Any
    files: Any


NOTHING = Shown(*[gr.skip()] * len(Shown._fields))


def show(session: DegradedSession) -> Shown:
    """Draw everything that the session's last change can have changed."""
    with session.lock:
        scene, choice = session.scene, session.choice
        can_sweep = bool(scene.prompts) and session.clear is not None
        one_kind = not choice.is_clear and choice.name not in COMBINATIONS
        return Shown(
            canvas=show_canvas(session),
            compare=show_compare(session),
            four=_panel(session, "four", four_html),
            sheet=_panel(session, "all", lambda s: sheet_html(s.sheet)),
            restored=_panel(session, "restored", restored_html),
            panel=session.panel,
            status=status_of(session),
            guesses=guesses_html(session.guesses, choice),
            answers=answers_html(session),
            series=series_html(session.series),
            prompts=prompts_html(scene, session.picture.size if session.picture else None),
            name=choice.name,
            severity=gr.update(value=choice.severity, interactive=one_kind),
            seed=choice.seed,
            undo=gr.update(interactive=len(session.history) > 1),
            clear=gr.update(interactive=bool(scene.prompts or scene.corner)),
            find_all=gr.update(interactive=can_sweep),
            find_series=gr.update(interactive=can_sweep and one_kind),
            restore=gr.update(interactive=not session.missing_to_restore()),
            cancel=gr.update(interactive=False),
            prepare=gr.update(interactive=session.comparison is not None),
            files=gr.update(value=None, visible=False),
        )


def show_degraded(session: DegradedSession) -> tuple[Any, Any]:
    """Draw the picture as it is degraded now, before any model is asked."""
    return show_canvas(session), status_of(session)


def show_progress(session: DegradedSession, notice: Notice) -> Shown:
    """Change the status line, and the sweep as far as it has come."""
    with session.lock:
        sheet = gr.skip()
        if session.panel == "all":
            sheet = gr.update(value=sheet_html(session.sheet), visible=True)
        return NOTHING._replace(
            status=status_html(notice),
            sheet=sheet,
            series=series_html(session.series),
            panel=session.panel,
            cancel=gr.update(interactive=True),
        )


def status_of(session: DegradedSession) -> str:
    """Write the session's notice, or what there is to say when nothing went wrong."""
    notice = session.notice
    return status_html(notice if notice.text else Notice("ready", _say_state(session)))


def _say_state(session: DegradedSession) -> str:
    scene, found = session.scene, session.comparison
    if session.clear is None:
        return NO_PICTURE
    if scene.corner is not None:
        return "First corner set: click the opposite corner of the box."
    if found is not None:
        took = say_seconds(session.seconds.get("predict", 0.0))
        if session.ious is None:
            return f"Both answered in {took}; they agree to {found.agreement:.2f} (IoU)."
        sam, robust = session.ious
        return f"Both answered in {took}. IoU: SAM {sam:.2f}, RobustSAM {robust:.2f}."
    if "encode" in session.seconds:
        read = say_seconds(session.seconds["encode"])
        return f"Picture read in {read}, once for both models. {FIRST_CLICK}"
    return FIRST_CLICK


def show_canvas(session: DegradedSession) -> Any:
    """Draw the clickable picture, unless it is what the browser shows already."""
    wanted: tuple[Any, ...] = ()
    if session.picture is not None:
        prompts = (session.scene.prompts, session.scene.corner)
        wanted = (session.picture, prompts, session.comparison, session.drawing, session.panel)
    if wanted == session.on_canvas:
        return gr.skip()
    session.on_canvas = wanted
    if session.picture is None:
        return gr.update(value=None, alt_text=None)
    return gr.update(
        value=save_png(session, draw_picture(session)),
        alt_text=f"{session.picture.loaded.stem}, {session.choice.title}.",
        visible=session.panel == "picture",
    )


def show_compare(session: DegradedSession) -> Any:
    """Draw both answers for the slider, if it is what the visitor looks at."""
    if session.panel != "slider" or session.picture is None:
        return gr.update(visible=False)
    first, second = draw_pair(session)
    return gr.update(value=(save_png(session, first), save_png(session, second)), visible=True)


def _panel(session: DegradedSession, name: str, html: Any) -> Any:
    if session.panel != name:
        return gr.update(visible=False)
    return gr.update(value=html(session), visible=True)
