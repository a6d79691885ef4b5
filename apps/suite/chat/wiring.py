"""Which listener each part of the chat tab has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr

from apps.suite.chat import examples, inputs, work
from apps.suite.chat.downloads import write_files
from apps.suite.chat.session import Asked, ChatSession
from apps.suite.chat.show import (
    NOTHING,
    Shown,
    show,
    show_asked,
    show_canvas,
    show_look,
    show_progress,
    show_sent,
    status_of,
)
from apps.suite.components import (
    PRIVATE,
    data_of,
    guarded,
    show_all,
    shown_parts,
    take_then,
    wire_downloads,
    wire_drawing,
)
from apps.suite.frame import Frame
from apps.suite.segment import edits
from apps.suite.services import Services
from core.models.catalogue import catalogue


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
    asked_parts = (parts.log, parts.live, parts.suggestions, parts.status, parts.cancel)
    look_parts = (
        *(parts.canvas, parts.log, parts.live, parts.suggestions),
        *(parts.inside, parts.status, parts.prepare),
    )
    looking: dict[str, Any] = {"report": show_look, "report_to": look_parts}
    reading = {**looking, "then": read}
    fields = (parts.style, parts.tokens_limit, parts.temperature, parts.seed, parts.threshold)
    asking: dict[str, Any] = {"then": answer, "then_inputs": fields}
    sending = {**asking, "report": show_sent, "report_to": (parts.question, *asked_parts)}
    take(parts.canvas.upload, inputs.read_upload, (parts.canvas,), **reading)
    take(parts.canvas.clear, edits.remove_picture)
    take(parts.channel.select, on_example, **reading)
    take(parts.question.submit, inputs.begin, (parts.question,), **sending)
    take(parts.run.click, inputs.begin, (parts.question,), **sending)
    take(parts.channel.submit, on_ask, **asking, report=show_asked, report_to=asked_parts)
    take(parts.new.click, inputs.new_picture, **looking)
    take(parts.clear.click, inputs.clear, **looking)
    parts.cancel.click(edits.cancel, parts.state, parts.status, queue=False, **PRIVATE)
    _wire_looks(parts, services, look_parts)
    _wire_models(parts, frame, services)
    wire_downloads(parts, write_files, status_of)


def refresh(session: ChatSession, _sam: str) -> tuple[Any, ...]:
    """Draw; no model is asked."""
    return _show(session)


def read(session: ChatSession, _sam: str) -> Iterator[tuple[Any, ...]]:
    """Read a new picture, saying how far it is."""
    for notice in work.read_picture(session):
        yield gr.skip(), gr.skip(), *show_progress(session, notice)
    yield _show(session)


def answer(session: ChatSession, _sam: str, *fields: Any) -> Iterator[tuple[Any, ...]]:
    """Answer the question that waits, showing what was said so far."""
    for notice in work.answer(session, Asked(*fields)):
        yield gr.skip(), gr.skip(), *show_progress(session, notice)
    yield _show(session)


def on_example(session: ChatSession, event: gr.EventData) -> None:
    """Take one of the suite's own pictures with its questions."""
    inputs.use_example(session, examples.example(data_of(event).get("name")))


def on_ask(session: ChatSession, event: gr.EventData) -> None:
    """Take the question of a button."""
    inputs.ask(session, data_of(event))


def on_look(session: ChatSession, event: gr.EventData) -> None:
    """Take what a phrase or a turn asks for."""
    inputs.look(session, data_of(event))


def _wire_looks(parts: SimpleNamespace, services: Services, outputs: Sequence[Any]) -> None:
    """Attach what changes the view: at once, and in no line for the model."""

    def attach(
        trigger: Any, report: Callable[[ChatSession], Any], to: Sequence[Any], mode: Any
    ) -> None:
        listener = guarded(on_look, report, services.doorkeeper, services.visitors)
        trigger(listener, [parts.state], list(to), queue=False, trigger_mode=mode, **PRIVATE)

    attach(parts.channel.input, show_look, outputs, "multiple")
    attach(parts.channel.change, show_canvas, [parts.canvas], "always_last")

    def redraw(session: ChatSession, **choices: Any) -> Any:
        edits.set_drawing(session, **choices)
        return show_canvas(session)  # one output: gradio takes no tuple

    wire_drawing(parts, redraw, (parts.canvas,))


def _wire_models(parts: SimpleNamespace, frame: Frame, services: Services) -> None:
    """Let the visitor choose who answers; another set of models begins with its own."""
    choose = guarded(inputs.use_model, status_of, services.doorkeeper, services.visitors)
    parts.model.input(choose, [parts.state, parts.model], parts.status, queue=False, **PRIVATE)

    def use_set(session: ChatSession, sam: str) -> str:
        session.model = inputs.set_default(catalogue()[sam].set)
        return session.model

    frame.in_use.change(use_set, [parts.state, frame.in_use], parts.model, queue=False, **PRIVATE)


def _show(session: ChatSession) -> tuple[Any, ...]:
    return show_all(session, show, NOTHING)
