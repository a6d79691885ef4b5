"""Parts that tabs share: the picture, its tools, how results are drawn, downloads, the channel."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from apps.suite.canvas import Picture
from apps.suite.components import TOOLS, Drawing
from apps.suite.services import Services
from apps.suite.sessions import Session
from core.overlays import BACKGROUNDS


def begin_tab(tab: str, session: type[Session], services: Services) -> SimpleNamespace:
    """Return a tab's parts with their first two: its visitors' sessions, and its channel."""
    state = gr.State(
        session(),
        time_to_live=services.settings.session_seconds,
        delete_callback=session.close,
    )
    return SimpleNamespace(state=state, channel=build_channel(tab))


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


def panel_choice(
    parts: SimpleNamespace, tab: str, panels: Sequence[tuple[str, str]], *, visible: bool = True
) -> None:
    """Lay out the choice of what the large frame shows: (label, name) each, at first the first."""
    parts.panel = gr.Radio(
        list(panels),
        value=panels[0][1],
        show_label=False,
        container=False,
        visible=visible,
        elem_id=f"{tab}_panel",
        elem_classes="segmented",
    )


def comparison_slider(parts: SimpleNamespace, tab: str) -> None:
    """Lay out two pictures under one slider, hidden at first."""
    parts.compare = gr.ImageSlider(
        format="png",
        show_label=False,
        buttons=["download"],
        interactive=False,
        visible=False,
        elem_id=f"{tab}_compare",
    )


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


def answer_fields(
    parts: SimpleNamespace, tab: str, multimask: str, mask_threshold: float, info: str
) -> None:
    """Lay out what a model is asked beside its prompts: how many readings, which threshold.

    Args:
        info: a line of help on the readings.
    """
    parts.multimask = gr.Radio(
        [("Automatic", "auto"), ("Always", "on"), ("Never", "off")],
        value=multimask,
        label="Three readings",
        info=info,
    )
    parts.mask_threshold = gr.Number(
        mask_threshold,
        label="Mask threshold",
        info="Logits above it are mask. Paper: 0.",
        elem_id=f"{tab}_mask_threshold",
    )


def downloads_row(parts: SimpleNamespace, tab: str) -> None:
    """Lay out the button that makes the files, and the list of them."""
    with gr.Row(elem_id=f"{tab}_downloads", elem_classes="buttons"):
        parts.prepare = gr.Button(
            "Prepare downloads", size="sm", interactive=False, elem_id=f"{tab}_prepare"
        )
    parts.files = gr.File(
        label="Downloads",
        file_count="multiple",
        interactive=False,
        visible=False,
        elem_id=f"{tab}_files",
    )


class Upload(gr.File):
    """A file component that hands over paths; gr.File leaves an empty file behind for each."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> Any:
        if payload is None:
            return None
        files = payload.root if isinstance(payload, ListFiles) else [payload]
        paths = [str(file.path) for file in files]
        return paths if self.file_count == "multiple" else next(iter(paths), None)
