"""Parts that tabs share: the channel from the page's script, and how listeners are guarded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from apps.suite.limits import Doorkeeper
from apps.suite.notices import Notice, notice_of
from apps.suite.sessions import Visitors
from core.errors import PromptError
from core.overlays import BACKGROUNDS, Background

READY = Notice("ready", "")

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
