"""Which listener each part of the Text query tab has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    wire_drawing,
)
from apps.suite.frame import Frame
from apps.suite.segment import edits
from apps.suite.services import Services
from apps.suite.text import examples, inputs, work
from apps.suite.text.downloads import write_files
from apps.suite.text.markup import background_html
from apps.suite.text.session import Asked, TextSession
from apps.suite.text.show import (
    NOTHING,
    Shown,
    show,
    show_canvas,
    show_compare,
    show_look,
    show_progress,
    show_start,
    show_words,
    status_of,
)
from core.car.choices import DEFAULT_PRESETS, preset_titles, word_lists


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
    start: dict[str, Any] = {
        "report": show_start,
        "report_to": (parts.canvas, parts.status, parts.words, parts.cancel),
    }
    fields = list(shown_parts(parts, Asked))
    search: dict[str, Any] = {**start, "then": find, "then_inputs": fields}
    take(parts.canvas.upload, inputs.read_upload, (parts.canvas,), **start)
    take(parts.canvas.clear, edits.remove_picture)
    take(parts.channel.select, on_example, **search)
    take(parts.run.click, inputs.begin, **search)
    take(parts.channel.change, inputs.begin, **{**search, "then": find_anyway})
    parts.cancel.click(edits.cancel, parts.state, parts.status, queue=False, **PRIVATE)
    _wire_looks(parts, services)
    _wire_presets(parts, frame, fields)
    wire_downloads(parts, write_files, status_of)


def refresh(session: TextSession, model_id: str) -> tuple[Any, ...]:
    """Draw; no model is asked before Find."""
    session.use_models(model_id)
    return _show(session)


def find(session: TextSession, model_id: str, *fields: Any) -> Iterator[tuple[Any, ...]]:
    """Look for the words, saying how far it is."""
    yield from _find(session, model_id, fields, anyway=False)


def find_anyway(session: TextSession, model_id: str, *fields: Any) -> Iterator[tuple[Any, ...]]:
    """The same, but keep every word, whatever its score."""
    yield from _find(session, model_id, fields, anyway=True)


def _find(
    session: TextSession, model_id: str, fields: Sequence[Any], *, anyway: bool
) -> Iterator[tuple[Any, ...]]:
    session.use_models(model_id)
    for notice in work.find(session, Asked(*fields), anyway=anyway):
        yield gr.skip(), gr.skip(), *show_progress(session, notice)
    yield _show(session)


def on_example(session: TextSession, event: gr.EventData) -> None:
    """Take one of the suite's own pictures with its words."""
    inputs.use_example(session, examples.example(data_of(event).get("name")))


def on_edit(session: TextSession, event: gr.EventData) -> None:
    """Take what a chip, a field or a button asks for."""
    inputs.edit(session, data_of(event))


def _wire_looks(parts: SimpleNamespace, services: Services) -> None:
    """Attach what changes words or views: at once, and in no line for the model."""

    def look(
        trigger: Callable[..., Any],
        function: Callable[..., None],
        report: Callable[[TextSession], Any],
        outputs: Sequence[gr.components.Component],
        given: Sequence[gr.components.Component] = (),
    ) -> None:
        trigger(
            guarded(function, report, services.doorkeeper, services.visitors),
            [parts.state, *given],
            list(outputs),
            queue=False,
            trigger_mode="multiple",
            **PRIVATE,
        )

    lists = [parts.words, parts.background_words, parts.status]
    views = [parts.canvas, parts.compare, parts.pair, parts.steps, parts.maps, parts.status]
    look(parts.channel.submit, on_edit, show_words, lists)
    look(parts.channel.input, on_edit, show_look, views)
    # Not `input`: gradio sends that twice for one choice.
    look(parts.word_list.select, inputs.use_list, show_words, lists, [parts.word_list])
    look(parts.mode.input, inputs.set_mode, show_words, lists, [parts.mode])
    look(parts.panel.input, inputs.set_panel, show_look, views, [parts.panel])
    look(parts.pair.input, inputs.set_pair, show_look, views, [parts.pair])

    def redraw(session: TextSession, **choices: Any) -> tuple[Any, Any]:
        edits.set_drawing(session, **choices)
        return show_canvas(session), show_compare(session)

    wire_drawing(parts, redraw, (parts.canvas, parts.compare))


def use_preset(session: TextSession, preset: str) -> tuple[Any, ...]:
    """What a preset sets the other fields to, and the background words."""
    asked = Asked.of(preset, session.model_set)
    session.preset = preset
    return *asked[1:], background_html(session)


def use_set(session: TextSession, model_id: str) -> tuple[Any, ...]:
    """Offer the lists and presets of a model's set, and set the fields to its own preset."""
    session.use_models(model_id)
    preset = DEFAULT_PRESETS[session.model_set]
    return (
        gr.update(choices=list_choices(session.model_set), value=""),
        gr.update(choices=preset_choices(session.model_set), value=preset),
        *use_preset(session, preset),
    )


def _wire_presets(parts: SimpleNamespace, frame: Frame, fields: Sequence[Any]) -> None:
    """Let a preset set the fields, and another set of models offer its own."""
    state, preset_sets = parts.state, [*fields[1:], parts.background_words]
    parts.preset.input(use_preset, [state, parts.preset], preset_sets, queue=False, **PRIVATE)
    frame.in_use.change(
        use_set,
        [state, frame.in_use],
        [parts.word_list, parts.preset, *preset_sets],
        queue=False,
        **PRIVATE,
    )


def list_choices(model_set: str) -> list[tuple[str, str]]:
    """(title, name) of a set's ready lists, after an invitation without a name."""
    return [
        ("Choose a list", ""),
        *((one.title, name) for name, one in word_lists(model_set).items()),
    ]


def preset_choices(model_set: str) -> list[tuple[str, str]]:
    """(title, name) of a set's presets."""
    return [(title, name) for name, title in preset_titles(model_set).items()]


def _show(session: TextSession) -> tuple[Any, ...]:
    return show_all(session, show, NOTHING)
