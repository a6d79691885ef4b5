"""Which listener each part of the Segment tab has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr

from apps.suite import examples
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
from apps.suite.segment import answers, edits
from apps.suite.segment.downloads import write_files
from apps.suite.segment.session import Options, SegmentSession
from apps.suite.segment.show import (
    NOTHING,
    Shown,
    show,
    show_canvas,
    show_compare,
    show_maps,
    show_only_status,
    status_of,
)
from apps.suite.segment.words import find_words
from apps.suite.services import Services
from core.models.catalogue import catalogue
from core.models.presets import EverythingConfig


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
        "then": read_picture,
        "report": lambda session: (show_canvas(session), status_of(session)),
        "report_to": (parts.canvas, parts.status),
    }
    take(parts.canvas.upload, edits.read_upload, (parts.canvas,), **new_picture)
    take(parts.channel.select, on_example, **new_picture)
    take(frame.in_use.change, edits.forget_answers, then=read_picture)
    take(parts.canvas.clear, edits.remove_picture)
    take(parts.canvas.select, on_click, (parts.tool,))
    take(parts.channel.submit, on_stroke)
    take(parts.channel.input, on_edit)
    take(parts.undo.click, edits.undo)
    take(parts.clear.click, edits.clear)
    take(parts.new_object.click, edits.new_object)
    take(parts.run.click, edits.run_again)
    take(parts.panel.input, edits.set_panel, (parts.panel,))
    _wire_options(parts, frame.in_use, take)
    _wire_jobs(parts, take)
    _wire_drawing(parts)
    _wire_extras(parts)


def refresh(session: SegmentSession, model_id: str) -> tuple[Any, ...]:
    """Ask the model if the prompts changed, and draw; the last part of most listeners."""
    session.model = model_id
    answers.answer_prompts(session)
    return _show(session)


def read_picture(session: SegmentSession, model_id: str) -> Iterator[tuple[Any, ...]]:
    """Encode a new picture, and say how long that took."""
    session.model = model_id
    yield _show(session)
    answers.read_picture(session)
    answers.answer_prompts(session)
    yield _show(session)


def on_click(session: SegmentSession, tool: str, event: gr.SelectData) -> None:
    """Take a click on the shown picture; the same in every tab."""
    edits.click(session, *place_of(event), tool)


def on_stroke(session: SegmentSession, event: gr.EventData) -> None:
    """Take a line that was drawn over the picture; the same in every tab."""
    data = data_of(event)
    edits.draw_stroke(session, data.get("path"), str(data.get("tool")))


def on_edit(session: SegmentSession, event: gr.EventData) -> None:
    """Take what a field or button inside the tables asks for."""
    edits.edit(session, data_of(event))


def on_example(session: SegmentSession, event: gr.EventData) -> None:
    """Take one of the suite's own pictures."""
    edits.read_example(session, examples.example(data_of(event).get("name")).path)


def _wire_options(parts: SimpleNamespace, in_use: gr.State, take: Callable[..., None]) -> None:
    names = ("multimask", "mask_threshold", "feed_back", "scribble_points")

    def set_options(session: SegmentSession, *values: Any) -> None:
        edits.set_options(session, **dict(zip(names, values, strict=True)))

    fields = tuple(getattr(parts, name) for name in names)
    for field in fields:
        take(field.change, set_options, fields)
    default = Options()
    default_options = tuple(getattr(default, name) for name in names)
    parts.paper.click(
        lambda: (*default_options, *answers.everything_values(EverythingConfig())),
        None,
        [*fields, *_everything_fields(parts)],
        queue=False,
        **PRIVATE,
    )

    def suit(model_id: str) -> tuple[float, ...]:
        config = EverythingConfig.of_set(catalogue()[model_id].set)
        return (*default_options, *answers.everything_values(config))

    parts.suited.click(suit, in_use, [*fields, *_everything_fields(parts)], queue=False, **PRIVATE)
    in_use.change(
        lambda model_id: suit(model_id)[len(names) :],
        in_use,
        list(_everything_fields(parts)),
        queue=False,
        **PRIVATE,
    )


def _everything_fields(parts: SimpleNamespace) -> tuple[Any, ...]:
    return tuple(getattr(parts, name) for name in answers.EVERYTHING_FIELDS)


def _wire_jobs(parts: SimpleNamespace, take: Callable[..., None]) -> None:
    """Long work: a generator that says how far it is, with a button that stops it."""

    def job(work: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        def run(session: SegmentSession, model_id: str, *values: Any) -> Iterator[tuple[Any, ...]]:
            session.model = model_id
            for notice in work(session, *values):
                yield gr.skip(), gr.skip(), *show_only_status(session, notice)
            yield _show(session)

        return run

    fields = _everything_fields(parts)
    jobs = (
        (parts.find_everything.click, answers.find_everything, fields),
        (parts.find_edges.click, answers.find_edges, ()),
        (parts.find_proposals.click, answers.find_proposals, ()),
        (parts.words.submit, find_words, (parts.words, parts.way, *fields)),
    )
    for event, work, inputs in jobs:
        take(event, edits.begin_job, then=job(work), then_inputs=inputs)
    anyway = job(answers.find_anything)
    take(parts.channel.change, edits.begin_job, then=anyway, then_inputs=fields)
    parts.cancel.click(edits.cancel, parts.state, parts.status, queue=False, **PRIVATE)


def _wire_drawing(parts: SimpleNamespace) -> None:
    def redraw(session: SegmentSession, **choices: Any) -> tuple[Any, Any]:
        edits.set_drawing(session, **choices)
        return show_canvas(session), show_compare(session)

    wire_drawing(parts, redraw, (parts.canvas, parts.compare))


def _wire_extras(parts: SimpleNamespace) -> None:
    wire_downloads(parts, write_files, status_of)

    def open_maps(session: SegmentSession) -> Any:
        session.maps_open = True
        return show_maps(session)

    def close_maps(session: SegmentSession) -> None:
        session.maps_open = False

    parts.how.expand(open_maps, parts.state, parts.maps, queue=False, **PRIVATE)
    parts.how.collapse(close_maps, parts.state, None, queue=False, **PRIVATE)


def _show(session: SegmentSession) -> tuple[Any, ...]:
    return show_all(session, show, NOTHING)
