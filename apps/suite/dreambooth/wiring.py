"""Which listener each part of the DreamBooth tab has.

What is marked anew stops the search for the former mask. A training is only begun, held and
stopped here; a timer asks the queue how it stands, so the page may vanish at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from types import SimpleNamespace
from typing import Any

import gradio as gr

from apps.suite.components import (
    PRIVATE,
    data_of,
    guarded,
    show_all,
    shown_parts,
    take_then,
    wire_downloads,
)
from apps.suite.dreambooth import examples, inputs, work
from apps.suite.dreambooth.downloads import write_files
from apps.suite.dreambooth.session import FIELDS, DreamBoothSession
from apps.suite.dreambooth.show import (
    NOTHING,
    Shown,
    show,
    show_canvas,
    show_marking,
    show_progress,
    show_tick,
    status_of,
)
from apps.suite.frame import Frame
from apps.suite.notices import Notice
from apps.suite.personalize.session import PersonalizeSession
from apps.suite.segment import answers, edits
from apps.suite.segment.wiring import on_click, on_stroke
from apps.suite.services import Services
from core.errors import PromptError


def wire(parts: SimpleNamespace, frame: Frame, services: Services) -> None:
    """Attach the listeners."""
    outputs = [parts.state, frame.device, *shown_parts(parts, Shown)]
    attach = take_then(
        parts,
        frame.in_use,
        services,
        refresh=refresh,
        outputs=outputs,
        status_of=status_of,
    )

    def take(trigger: Any, function: Callable[..., None], *args: Any, **options: Any) -> None:
        """Let a trigger begin a new search: the one that runs now is out of date."""
        attach(trigger, _anew(function), *args, **options)

    new_picture: dict[str, Any] = {
        "report": lambda session: (show_canvas(session), status_of(session), None),
        "report_to": (parts.canvas, parts.status, parts.drop),
    }
    take(parts.drop.upload, inputs.add_uploads, (parts.drop,), **new_picture)
    take(parts.canvas.upload, inputs.add_upload, (parts.canvas,), **new_picture)
    take(parts.channel.select, on_example, **new_picture)
    take(parts.canvas.clear, inputs.remove_shown)
    take(parts.canvas.select, on_click, (parts.tool,))
    take(parts.channel.submit, on_stroke)
    attach(parts.channel.input, on_edit)
    take(parts.undo.click, edits.undo)
    take(parts.clear.click, edits.clear)
    take(parts.start_over.click, inputs.start_over)
    take(frame.in_use.change, edits.forget_answers)
    parts.cancel.click(edits.cancel, parts.state, parts.status, queue=False, **PRIVATE)
    _wire_settings(parts, attach)
    _wire_training(parts, attach, outputs, services)
    _wire_result(parts, attach)


def refresh(session: DreamBoothSession, model_id: str) -> Iterator[tuple[Any, ...]]:
    """Answer what is marked, look for it in the others, and measure what a training takes."""
    session.model = model_id
    if session.picture is not None and "encode" not in session.seconds:
        answers.read_picture(session)
    answers.answer_prompts(session)
    inputs.take_mask(session)
    yield gr.skip(), gr.skip(), *show_marking(session)
    yield from _work(session, work.find_masks(session))
    yield from measure(session, model_id)


def measure(session: DreamBoothSession, _model_id: str) -> Iterator[tuple[Any, ...]]:
    """Measure how long a training takes, where that is not known yet."""
    yield from _work(session, work.estimate(session))


def train(session: DreamBoothSession, _model_id: str) -> tuple[Any, ...]:
    """Put the training into the queue."""
    work.begin_training(session)
    return _show(session)


def recall(session: DreamBoothSession, _model_id: str) -> tuple[Any, ...]:
    """Find the visitor's trainings again."""
    work.recall(session)
    return _show(session)


def draw(session: DreamBoothSession, _model_id: str, *fields: Any) -> Iterator[tuple[Any, ...]]:
    """Draw with what was learned."""
    yield from _work(session, work.draw(session, *fields))


def on_example(session: DreamBoothSession, event: gr.EventData) -> None:
    """Take one of the tab's own subjects."""
    examples.use_example(session, data_of(event).get("name"))


def on_edit(session: DreamBoothSession, event: gr.EventData) -> None:
    """Take what a button of a card, a saved subject or a table asks for."""
    data = data_of(event)
    name = str(data.get("do"))
    if name in ("select", "remove"):
        index = edits.read_whole(data, "index")
        (inputs.select if name == "select" else inputs.remove)(session, index)
    elif name in ("accept", "whole", "exclude"):
        inputs.decide(session, edits.read_whole(data, "index"), name)
    elif name == "accept-all":
        inputs.accept_all(session)
    elif name == "open-saved":
        work.open_saved(session, str(data.get("id")))
    elif name == "delete-saved":
        work.delete(session, str(data.get("id")))
    else:
        edits.edit(session, data)


def _anew(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function begin a new search: the one that runs now is stopped."""

    @wraps(function)  # gradio hands over events by the signature
    def begin(session: DreamBoothSession, *args: Any) -> None:
        function(session, *args)
        session.begin_job()

    return begin


def _work(session: DreamBoothSession, notices: Iterator[Notice]) -> Iterator[tuple[Any, ...]]:
    """Run long work, showing how far it is, then everything."""
    try:
        for notice in notices:
            session.running = True
            yield gr.skip(), gr.skip(), *show_progress(session, notice)
    finally:
        session.running = False
    yield _show(session)


def _wire_settings(parts: SimpleNamespace, attach: Callable[..., None]) -> None:
    own = tuple(getattr(parts, name) for name in FIELDS)
    fields = (parts.preset, parts.class_noun, parts.identifier, parts.masked, parts.method, *own)

    def report(session: DreamBoothSession) -> tuple[Any, ...]:
        wishes = session.wishes
        values = [gr.update(value=wishes.values[name]) for name in FIELDS]
        return status_of(session), wishes.method, *values

    shown: dict[str, Any] = {"report": report, "report_to": (parts.status, parts.method, *own)}
    attach(parts.preset.input, inputs.set_preset, (parts.preset,), then=measure, **shown)
    attach(parts.model.input, inputs.use_diffusion, (parts.model,), then=measure, **shown)
    for field in (parts.masked, parts.method, *own):
        attach(field.input, inputs.set_wishes, fields, then=measure)
    attach(parts.train.click, inputs.begin_training, fields, then=train)


def _wire_training(
    parts: SimpleNamespace, attach: Callable[..., None], outputs: list[Any], services: Services
) -> None:
    def on_channel(session: DreamBoothSession, event: gr.EventData, request: gr.Request) -> None:
        """Take what the page says when it opens, or what another tab hands over."""
        data = data_of(event)
        if data.get("do") != "from-personalize":
            inputs.recall(session, data.get("training"), data.get("known"))
            return
        other = services.visitors.find(request.session_hash, PersonalizeSession)
        if other is None:
            raise PromptError("There is no object in Personalize yet: mark it there first.")
        inputs.take_over(session, other)

    def then(session: DreamBoothSession, model_id: str) -> Iterator[tuple[Any, ...]]:
        if session.items:
            yield from refresh(session, model_id)
        yield recall(session, model_id)

    attach(parts.channel.change, on_channel, then=then)

    def tick(session: DreamBoothSession) -> tuple[Any, ...]:
        work.look(session)
        return session, gr.skip(), *show_tick(session)

    parts.timer.tick(tick, parts.state, outputs, queue=False, **PRIVATE)

    def steer(trigger: Any, function: Callable[[DreamBoothSession], None]) -> None:
        """Attach what acts on the training, in no line for the model."""

        def report(session: DreamBoothSession) -> tuple[Any, ...]:
            notice = session.notice
            work.look(session)
            session.notice = notice if notice.text else session.notice
            return _show(session)

        listener = guarded(function, report, services.doorkeeper, services.visitors)
        trigger(listener, parts.state, outputs, queue=False, **PRIVATE)

    steer(parts.pause.click, work.pause)
    steer(parts.go_on.click, work.go_on)
    steer(parts.stop.click, work.stop)
    steer(parts.another.click, inputs.put_aside)


def _wire_result(parts: SimpleNamespace, attach: Callable[..., None]) -> None:
    fields = (parts.prompt, parts.seeds, parts.guidance, parts.sampler, parts.both)
    for trigger in (parts.run.click, parts.prompt.submit):
        attach(trigger, inputs.begin_drawing, fields, then=draw, then_inputs=fields)

    def open_uploaded(session: DreamBoothSession, path: str | None) -> None:
        if path is not None:
            session.own_upload(path)
            work.open_uploaded(session, path)

    attach(parts.weights.upload, open_uploaded, (parts.weights,), then=recall)
    wire_downloads(parts, write_files, status_of)


def _show(session: DreamBoothSession) -> tuple[Any, ...]:
    return show_all(session, show, NOTHING)
