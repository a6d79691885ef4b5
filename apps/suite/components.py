"""Parts that tabs share: the channel from the page's script, and how listeners are guarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from apps.suite.canvas import Picture
from apps.suite.limits import Doorkeeper
from apps.suite.notices import Notice, notice_of
from apps.suite.services import Services
from apps.suite.sessions import Visitors
from core.errors import PromptError
from core.overlays import BACKGROUNDS, Background

READY = Notice("ready", "")
TOOLS = ("foreground", "background", "box", "scribble", "paint", "erase")

# Listeners of the page: not among the documented endpoints.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# All work with a model waits in one line.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


@dataclass(frozen=True)
class Drawing:
    """Choices that change the drawing only, never the result."""

    opacity: float = 0.45
    outline: bool = True
    numbers: bool = True
    background: Background = "image"
    overlay: bool = True


def html(value: str = "", **options: Any) -> gr.HTML:
    """Show HTML of our own making, styled by static/suite.css alone."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **options)


def build_channel(name: str) -> gr.HTML:
    """Return an unseen component through which static/suite.js sends a tab's actions.

    Its `input`, `select` and `submit` listeners receive them as `gr.EventData`.
    """
    return gr.HTML(
        "",
        visible="hidden",
        elem_id=f"{name}_channel",
        js_on_load=f"(window.studioChannels ??= {{}})[{name!r}] = trigger;",
    )


def data_of(event: gr.EventData) -> dict[str, Any]:
    """Return what came with an event. Raises PromptError if it is not what our script sends."""
    if not isinstance(event._data, dict):
        raise PromptError("The page sent something that cannot be read; reload it.")
    return dict(event._data)


def guarded(
    function: Callable[..., None],
    report: Callable[[Any], Any],
    doorkeeper: Doorkeeper,
    visitors: Visitors,
) -> Callable[..., Any]:
    """Make a function that changes a session a listener that never fails.

    What goes wrong becomes the session's notice.

    Args:
        report: called with the session afterwards; what the listener returns.
    """

    @wraps(function)
    def listener(session: Any, *args: Any) -> Any:
        with session.lock:
            session.notice = READY
        try:
            request = doorkeeper.check()
            visitors.enter(request.session_hash if request else None, session)
            function(session, *args)
        except Exception as error:
            with session.lock:
                session.notice = notice_of(error)
        return report(session)

    return listener


def take_then(
    parts: SimpleNamespace,
    in_use: gr.State,
    services: Services,
    *,
    refresh: Callable[..., Any],
    outputs: Sequence[gr.components.Component],
    status_of: Callable[[Any], str],
) -> Callable[..., None]:
    """Return how a tab's listeners are attached: `take(trigger, function, inputs)`.

    One listener lets the function change the session at once and as often as its event comes, so
    that quick clicks are not lost; the next one does the slow part, in the line for the model, and
    runs once more for whatever came in meanwhile.

    Args:
        in_use: the model that is in use.
        refresh: what most listeners do then, called with the session and the model.
        outputs: what it returns updates for.
        status_of: what is said at once.
    """

    def take(
        trigger: Any,
        function: Callable[..., None],
        inputs: tuple[Any, ...] = (),
        *,
        then: Callable[..., Any] = refresh,
        then_inputs: tuple[Any, ...] = (),
        report: Callable[[Any], Any] = status_of,
        report_to: Sequence[gr.components.Component] = (parts.status,),
    ) -> None:
        taken = trigger(
            guarded(function, report, services.doorkeeper, services.visitors),
            [parts.state, *inputs],
            list(report_to),
            queue=False,
            trigger_mode="multiple",
            **PRIVATE,
        )
        taken.then(
            then,
            [parts.state, in_use, *then_inputs],
            list(outputs),
            trigger_mode="always_last",
            **MODEL,
            **PRIVATE,
        )

    return take


class Upload(gr.File):
    """A file component that hands over paths; gr.File leaves an empty file behind for each."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> Any:
        if payload is None:
            return None
        files = payload.root if isinstance(payload, ListFiles) else [payload]
        paths = [str(file.path) for file in files]
        return paths if self.file_count == "multiple" else next(iter(paths), None)


def drawing_controls(parts: SimpleNamespace, tab: str) -> None:
    """Lay out the controls that change the drawing only, and name them in `parts`."""
    drawing = Drawing()
    with gr.Row(elem_id=f"{tab}_drawing"):
        parts.overlay = gr.Checkbox(
            drawing.overlay, label="Masks", container=False, elem_id=f"{tab}_overlay", min_width=80
        )
        parts.outline = gr.Checkbox(drawing.outline, label="Outline", container=False, min_width=80)
        parts.numbers = gr.Checkbox(drawing.numbers, label="Numbers", container=False, min_width=90)
        parts.fainter = gr.Button("−", size="sm", elem_id=f"{tab}_fainter", min_width=36, scale=0)
        parts.opacity = gr.Slider(
            0,
            1,
            value=drawing.opacity,
            step=0.05,
            label="Opacity",
            buttons=[],
            elem_id=f"{tab}_opacity",
            min_width=150,
            scale=2,
        )
        parts.stronger = gr.Button("+", size="sm", elem_id=f"{tab}_stronger", min_width=36, scale=0)
        parts.background = gr.Dropdown(
            [(name.capitalize(), name) for name in BACKGROUNDS],
            value=drawing.background,
            label="Background",
            elem_id=f"{tab}_background",
            min_width=130,
        )


def wire_drawing(
    parts: SimpleNamespace,
    redraw: Callable[..., tuple[Any, ...]],
    outputs: Sequence[gr.components.Component],
) -> None:
    """Draw again with other choices of `drawing_controls`; no model is asked.

    Args:
        redraw: called with the session and the choices by the names of `Drawing`.
        outputs: what it returns updates for.
    """
    names = tuple(field.name for field in fields(Drawing))
    controls = [getattr(parts, name) for name in names]

    def again(session: Any, *values: Any) -> tuple[Any, ...]:
        return redraw(session, **dict(zip(names, values, strict=True)))

    listener: dict[str, Any] = {
        "fn": again,
        "inputs": [parts.state, *controls],
        "outputs": list(outputs),
        "queue": False,
        "trigger_mode": "always_last",
        **PRIVATE,
    }
    for control in controls:
        control.input(**listener)
    for button, step in ((parts.fainter, -0.1), (parts.stronger, 0.1)):
        button.click(
            lambda opacity, step=step: round(min(max(opacity + step, 0), 1), 2),
            parts.opacity,
            parts.opacity,
            queue=False,
            trigger_mode="multiple",
            **PRIVATE,
        ).then(**listener)


def wire_downloads(
    parts: SimpleNamespace,
    write_files: Callable[[Any], list[str]],
    status_of: Callable[[Any], str],
) -> None:
    """Write a session's files when the visitor asks for them; the archive comes first."""

    def prepare(session: Any) -> tuple[Any, str]:
        return prepare_files(session, write_files, status_of)

    parts.prepare.click(
        prepare, parts.state, [parts.files, parts.status], concurrency_limit=4, **PRIVATE
    )


def prepare_files(
    session: Any, write_files: Callable[[Any], list[str]], status_of: Callable[[Any], str]
) -> tuple[Any, str]:
    """Return updates of the list of files and of the status line, which says what went wrong."""
    session.notice = READY
    try:
        paths = write_files(session)
    except Exception as error:
        session.notice = notice_of(error)
        return gr.update(value=None, visible=False), status_of(session)
    return gr.update(value=paths, visible=True), status_of(session)


def marking_picture(parts: SimpleNamespace, tab: str, invitation: str, **options: Any) -> None:
    """Lay out the clickable picture, which is also where one is dropped."""
    parts.canvas = Picture(
        type="filepath",
        image_mode=None,
        format="png",
        sources=["upload", "clipboard"],
        show_label=False,
        placeholder=invitation,
        interactive=True,
        elem_id=f"{tab}_canvas",
        **options,
    )


def marking_tools(parts: SimpleNamespace, tab: str, tools: Sequence[str] = TOOLS) -> None:
    """Lay out the tools that mark an object in it."""
    parts.tool = gr.Radio(
        [(name.capitalize(), name) for name in tools],
        value=tools[0],
        label="Tool",
        elem_id=f"{tab}_tool",
        elem_classes="segmented",
    )


def place_of(event: gr.EventData) -> tuple[float, float]:
    """Where a picture was clicked, in shown pixels. Raises PromptError if that cannot be read."""
    try:
        x, y = (float(value) for value in data_of(event)["index"])
    except (KeyError, TypeError, ValueError):
        raise PromptError("That place is not in the picture; click inside it.") from None
    return x, y
