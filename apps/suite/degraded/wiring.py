"""Which listener each part of the Degraded tab has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr

from apps.suite.components import (
    PRIVATE,
    data_of,
    show_all,
    shown_parts,
    take_then,
    wire_downloads,
    wire_drawing,
)
from apps.suite.degraded import examples, inputs, work
from apps.suite.degraded.downloads import write_files
from apps.suite.degraded.session import DegradedSession
from apps.suite.degraded.show import (
    NOTHING,
    Shown,
    show,
    show_canvas,
    show_compare,
    show_degraded,
    show_progress,
    status_of,
)
from apps.suite.frame import Frame
from apps.suite.notices import Notice
from apps.suite.segment import edits
from apps.suite.segment.session import Options
from apps.suite.segment.wiring import on_click, on_stroke
from apps.suite.services import Services


def wire(parts: SimpleNamespace, frame: Frame, services: Services) -> None:
    """Attach the listeners."""
    take = take_then(
        parts,
        frame.in_use,
        services,
        refresh=refresh,
        outputs=[parts.state, frame.device, *shown_parts(parts, Shown)],
        status_of=status_of,
    )
    new_picture: dict[str, Any] = {
        "report": show_degraded,
        "report_to": (parts.canvas, parts.status),
    }
    choice = (parts.name, parts.severity, parts.seed)
    take(parts.canvas.upload, inputs.read_upload, (parts.canvas,), **new_picture)
    take(parts.channel.select, on_example, **new_picture)
    take(frame.in_use.change, edits.forget_answers)
    take(parts.canvas.clear, edits.remove_picture)
    take(parts.canvas.select, on_click, (parts.tool,))
    take(parts.channel.submit, on_stroke)
    take(parts.channel.input, on_edit, **new_picture)
    take(parts.undo.click, edits.undo)
    take(parts.clear.click, edits.clear)
    take(parts.run.click, inputs.run_again)
    take(parts.name.input, inputs.set_choice, choice, **new_picture)
    take(parts.severity.release, inputs.set_choice, choice, **new_picture)
    take(parts.seed.submit, inputs.set_choice, choice, **new_picture)
    take(parts.new_seed.click, inputs.new_seed, **new_picture)
    take(parts.truth.upload, inputs.upload_truth, (parts.truth,))
    take(parts.panel.input, inputs.set_panel, (parts.panel,))
    take(parts.find_all.click, inputs.begin_job, then=_job(work.fill_sheet))
    take(parts.find_series.click, inputs.begin_job, then=_job(work.fill_series))
    take(parts.restore.click, inputs.begin_restoring, then=_job(work.restore))
    parts.cancel.click(edits.cancel, parts.state, parts.status, queue=False, **PRIVATE)
    _wire_options(parts, take)
    _wire_drawing(parts)
    wire_downloads(parts, write_files, status_of)


def refresh(session: DegradedSession, model_id: str) -> Iterator[tuple[Any, ...]]:
    """Read a new picture, answer the prompts by both models, and draw."""
    session.model = model_id
    if session.picture is not None and "encode" not in session.seconds:
        yield from _report(session, work.read_picture(session))
    yield from _report(session, work.compare(session))
    yield _show(session)


def on_edit(session: DegradedSession, event: gr.EventData) -> None:
    """Take what a card of the sheet asks for."""
    data = data_of(event)
    if data.get("do") == "kind":
        inputs.choose_kind(session, data)
    else:
        edits.edit(session, data)


def on_example(session: DegradedSession, event: gr.EventData) -> None:
    """Take one of the suite's own pictures, degraded as it is shown."""
    example = examples.example(data_of(event).get("name"))
    inputs.use_example(session, example.path, example.choice)


def _job(
    do: Callable[[DegradedSession], Iterator[Notice]],
) -> Callable[..., Iterator[tuple[Any, ...]]]:
    def run(session: DegradedSession, model_id: str) -> Iterator[tuple[Any, ...]]:
        session.model = model_id
        yield from _report(session, do(session))
        yield _show(session)

    return run


def _report(session: DegradedSession, notices: Iterator[Notice]) -> Iterator[tuple[Any, ...]]:
    for notice in notices:
        yield gr.skip(), gr.skip(), *show_progress(session, notice)


def _wire_options(parts: SimpleNamespace, take: Callable[..., None]) -> None:
    fields = (parts.multimask, parts.mask_threshold)
    for field in fields:
        take(field.change, inputs.set_options, fields)
    default = Options()
    parts.paper.click(
        lambda: (default.multimask, default.mask_threshold),
        None,
        list(fields),
        queue=False,
        **PRIVATE,
    )


def _wire_drawing(parts: SimpleNamespace) -> None:
    def redraw(session: DegradedSession, **choices: Any) -> tuple[Any, Any]:
        edits.set_drawing(session, **choices)
        return show_canvas(session), show_compare(session)

    wire_drawing(parts, redraw, (parts.canvas, parts.compare))


def _show(session: DegradedSession) -> tuple[Any, ...]:
    return show_all(session, show, NOTHING)
