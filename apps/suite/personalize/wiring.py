"""Which listener each part of the Personalize tab has.

A new question stops the search that answers the one before.
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
    place_of,
    show_all,
    shown_parts,
    take_then,
    wire_downloads,
    wire_drawing,
)
from apps.suite.frame import Frame
from apps.suite.personalize import examples, inputs, work
from apps.suite.personalize.downloads import write_files
from apps.suite.personalize.drawing import write_followed
from apps.suite.personalize.markup import how_html
from apps.suite.personalize.session import Choices, PersonalizeSession
from apps.suite.personalize.show import (
    NOTHING,
    Shown,
    show,
    show_canvas,
    show_clip,
    show_compare,
    show_gallery,
    show_marking,
    show_progress,
    show_result,
    status_of,
)
from apps.suite.segment import answers, edits
from apps.suite.segment.wiring import on_click, on_stroke
from apps.suite.services import Services

CHOICES = (
    "guided_attention",
    "semantic_prompt",
    "negative_point",
    "refinement_1",
    "refinement_2",
    "guidance_weight",
    "points",
    "max_instances",
    "presence_threshold",
    "steps",
    "learning_rate",
)


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

    def redraw(trigger: Any, function: Callable[..., None], inputs: tuple[Any, ...] = ()) -> None:
        """Let a trigger change what is shown: at once what is known, then what has to be asked."""
        attach(trigger, function, inputs, then=look, report=_show, report_to=outputs)

    new_picture: dict[str, Any] = {
        "report": lambda session: (show_canvas(session), status_of(session)),
        "report_to": (parts.canvas, parts.status),
    }
    take(parts.canvas.upload, edits.read_upload, (parts.canvas,), **new_picture)
    take(parts.channel.select, on_example, **new_picture)
    take(frame.in_use.change, inputs.use_model, (frame.in_use,))
    take(parts.canvas.clear, edits.remove_picture)
    take(parts.canvas.select, on_click, (parts.tool,))
    take(parts.channel.submit, on_stroke)
    take(parts.channel.input, on_edit)
    take(parts.undo.click, edits.undo)
    take(parts.clear.click, edits.clear)
    take(parts.new_object.click, inputs.new_object)
    take(parts.channel.change, inputs.show_anyway)
    take(parts.another.click, inputs.another_reference)
    take(parts.mask.upload, inputs.upload_mask, (parts.mask,))
    take(parts.profile.upload, inputs.load_profile, (parts.profile,))
    take(parts.tests.upload, inputs.read_queries, (parts.tests,))
    take(parts.tests.clear, lambda session: inputs.read_queries(session, None))
    take(parts.truth.upload, inputs.read_truth, (parts.truth,))
    take(parts.truth.clear, inputs.read_truth, (parts.truth,))
    take(parts.mark_frame.click, inputs.mark_frame, (parts.frame,), **new_picture)
    take(parts.variant.input, inputs.set_variant, (parts.variant,))
    take(parts.run.click, inputs.begin_search, then=find)
    redraw(parts.panel.input, inputs.set_stage, (parts.panel,))
    attach(parts.result.select, on_correction, (parts.correct,), then=answer_correction)
    redraw(parts.take_back.click, inputs.take_back)
    redraw(parts.gallery.select, on_choice)
    redraw(parts.next.click, lambda session: inputs.step(session, 1))
    redraw(parts.previous.click, lambda session: inputs.step(session, -1))
    parts.cancel.click(edits.cancel, parts.state, parts.status, queue=False, **PRIVATE)
    _wire_choices(parts, take)
    _wire_drawing(parts)
    _wire_extras(parts)


def refresh(session: PersonalizeSession, model_id: str) -> Iterator[tuple[Any, ...]]:
    """Answer the reference's prompts, learn, search the pictures; a clip waits for Find."""
    _use(session, model_id)
    if session.picture is not None and "encode" not in session.seconds:
        answers.read_picture(session)
    answers.answer_prompts(session)
    yield gr.skip(), gr.skip(), *show_marking(session)
    if session.clip is not None or not session.queries:
        yield from _work(session, work.learn_only)
    else:
        yield from _work(session, work.search)


def find(session: PersonalizeSession, model_id: str) -> Iterator[tuple[Any, ...]]:
    """Search, a clip as well."""
    _use(session, model_id)
    answers.answer_prompts(session)
    yield from _work(session, work.search)


def look(session: PersonalizeSession, model_id: str) -> Iterator[tuple[Any, ...]]:
    """Ask the other variant, too, if that is what the visitor looks at."""
    _use(session, model_id)
    if session.stage == "compare":
        yield from _work(session, work.compare)
    else:
        yield gr.skip(), gr.skip(), *NOTHING


def answer_correction(session: PersonalizeSession, model_id: str) -> tuple[Any, ...]:
    """Ask the model for the corrections that were clicked."""
    _use(session, model_id)
    work.answer_corrections(session)
    return _show(session)


def on_correction(session: PersonalizeSession, tool: str, event: gr.SelectData) -> None:
    """Take a click on a result."""
    inputs.correct(session, *place_of(event), tool)


def on_edit(session: PersonalizeSession, event: gr.EventData) -> None:
    """Take what a field or button inside the tables asks for."""
    data = data_of(event)
    known: dict[str, tuple[Callable[[PersonalizeSession, int], None], str]] = {
        "activate": (inputs.activate, "number"),
        "remove-profile": (inputs.remove_profile, "index"),
        "remove-reference": (inputs.remove_reference, "index"),
    }
    if data.get("do") in known:
        function, key = known[str(data["do"])]
        function(session, edits.read_whole(data, key))
    else:
        edits.edit(session, data)


def on_example(session: PersonalizeSession, event: gr.EventData) -> None:
    """Take one of the tab's own sets."""
    examples.use_example(session, data_of(event).get("name"))


def on_choice(session: PersonalizeSession, event: gr.SelectData) -> None:
    """Take a click in the gallery."""
    if session.queries:
        inputs.select(session, edits.read_whole(data_of(event), "index"))


def _anew(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function begin a new search: the one that runs now is stopped.

    Not in a clip, which is followed again only when Find is pressed.
    """

    @wraps(function)  # gradio hands over events by the signature
    def begin(session: PersonalizeSession, *args: Any) -> None:
        function(session, *args)
        if session.clip is None or function is inputs.begin_search:
            session.begin_job()

    return begin


def _use(session: PersonalizeSession, model_id: str) -> None:
    if session.model != model_id:
        inputs.use_model(session, model_id)


def _work(
    session: PersonalizeSession, work: Callable[[PersonalizeSession], Iterator[Any]]
) -> Iterator[tuple[Any, ...]]:
    """Run long work, showing how far it is, then everything."""
    try:
        for notice in work(session):
            session.running = True
            yield gr.skip(), gr.skip(), *show_progress(session, notice)
    finally:
        session.running = False
    yield _show(session)


def _wire_choices(parts: SimpleNamespace, take: Callable[..., None]) -> None:
    fields = tuple(getattr(parts, name) for name in CHOICES)

    def set_choices(session: PersonalizeSession, *values: Any) -> None:
        inputs.set_choices(session, **dict(zip(CHOICES, values, strict=True)))

    for field in fields:
        take(field.change, set_choices, fields)
    default = Choices()
    published = [getattr(default, name) for name in CHOICES]
    parts.paper.click(lambda: published, None, list(fields), queue=False, **PRIVATE)

    def suit(session: PersonalizeSession) -> list[Any]:
        own = {"presence_threshold": inputs.threshold_of(session.model)}
        return [own.get(name, getattr(default, name)) for name in CHOICES]

    parts.suited.click(suit, parts.state, list(fields), queue=False, **PRIVATE)


def _wire_drawing(parts: SimpleNamespace) -> None:
    def redraw(session: PersonalizeSession, **choices: Any) -> tuple[Any, ...]:
        edits.set_drawing(session, **choices)
        if session.followed is not None:
            write_followed(session)
        return (
            show_canvas(session),
            show_result(session),
            show_compare(session),
            show_gallery(session),
            show_clip(session),
        )

    shown = (parts.canvas, parts.result, parts.compare, parts.gallery, parts.clip)
    wire_drawing(parts, redraw, shown)


def _wire_extras(parts: SimpleNamespace) -> None:
    wire_downloads(parts, write_files, status_of)

    def open_how(session: PersonalizeSession) -> str:
        session.how_open = True
        return how_html(session)

    def close_how(session: PersonalizeSession) -> None:
        session.how_open = False

    parts.how_box.expand(open_how, parts.state, parts.how, queue=False, **PRIVATE)
    parts.how_box.collapse(close_how, parts.state, None, queue=False, **PRIVATE)


def _show(session: PersonalizeSession) -> tuple[Any, ...]:
    return show_all(session, show, NOTHING)
