"""The Text query tab: its layout. What its parts do is wired in apps.suite.text.wiring."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import gradio as gr

from apps.suite.frame import Frame
from apps.suite.layout import (
    begin_tab,
    comparison_slider,
    downloads_row,
    drawing_controls,
    html,
    marking_picture,
    panel_choice,
)
from apps.suite.notices import Notice, status_html
from apps.suite.services import Services
from apps.suite.text import examples
from apps.suite.text.help import API_HELP, BACKGROUND, HOW_IT_WORKS, INFO
from apps.suite.text.markup import background_html, field_html, words_html
from apps.suite.text.session import MODES, NO_PICTURE, PAIRS, Asked, TextSession
from apps.suite.text.wiring import list_choices, preset_choices, wire
from core.car.choices import OWN
from core.car.config import VisualPrompt

TAB = "text"
PANELS = [
    ("Result", "result"),
    ("Step by step", "steps"),
    ("Maps", "maps"),
    ("Before | after", "compare"),
]
INVITATION = "# Drop a picture here\nor click to choose one, or paste it"


def build(frame: Frame, services: Services) -> None:
    """Lay the tab out and wire it."""
    parts = begin_tab(TAB, TextSession, services)
    session = TextSession()
    with gr.Row(elem_id="text_main"):
        with gr.Column(scale=5, min_width=300, elem_id="text_side"):
            _lay_out_words(parts, session)
        with gr.Column(scale=7, min_width=320, elem_id="text_stage"):
            _lay_out_stage(parts)
    with gr.Column(elem_id="text_below"):
        _lay_out_parameters(parts, session)
        with gr.Accordion("How it works", open=False):
            gr.Markdown(HOW_IT_WORKS)
        with gr.Accordion("API", open=False):
            gr.Markdown(API_HELP)
    wire(parts, frame, services)


def _lay_out_words(parts: SimpleNamespace, session: TextSession) -> None:
    """The words, what is done with them, what was found, examples."""
    with gr.Column(elem_id="text_box", elem_classes="word-box"):
        parts.words = html(words_html(session), elem_id="text_words")
        html(field_html("words", "Type a word, then Enter"), elem_id="text_field")
    with gr.Row(elem_id="text_choice"):
        parts.word_list = gr.Dropdown(
            list_choices(session.model_set),
            value="",
            label="Ready lists",
            elem_id="text_list",
            min_width=130,
        )
        parts.preset = gr.Dropdown(
            preset_choices(session.model_set),
            value=OWN,
            label="Settings as for",
            elem_id="text_preset",
            min_width=130,
        )
    parts.mode = gr.Radio(
        [(title, name) for name, title in MODES.items()],
        value=session.mode,
        show_label=False,
        container=False,
        elem_id="text_mode",
        elem_classes="segmented",
    )
    with gr.Row(elem_id="text_actions", elem_classes="buttons"):
        parts.run = gr.Button("Find", size="sm", variant="primary", elem_id="text_run")
        parts.cancel = gr.Button(
            "Cancel", size="sm", variant="stop", interactive=False, elem_id="text_cancel"
        )
    parts.answers = html("", elem_id="text_answers")
    downloads_row(parts, TAB)
    html(examples.gallery_html(), elem_id="text_examples")


def _lay_out_stage(parts: SimpleNamespace) -> None:
    """The picture in four ways, the status line under it, and how results are drawn."""
    panel_choice(parts, TAB, PANELS)
    marking_picture(parts, TAB, INVITATION, buttons=["download"])
    comparison_slider(parts, TAB)
    parts.steps = html("", elem_id="text_steps", visible=False)
    parts.maps = html("", elem_id="text_maps", visible=False)
    parts.pair = gr.Radio(
        [(PAIRS["picture"], "picture")],
        value="picture",
        show_label=False,
        container=False,
        visible=False,
        elem_id="text_pair",
        elem_classes="segmented",
    )
    parts.status = html(status_html(Notice("hint", NO_PICTURE)), elem_id="text_status")
    drawing_controls(parts, TAB)


def _lay_out_parameters(parts: SimpleNamespace, session: TextSession) -> None:
    asked = Asked.of(OWN, session.model_set)
    with gr.Accordion("Parameters", open=False, elem_id="text_parameters"):
        with gr.Row():
            parts.eta = _share(asked.eta, "Mask threshold η", "eta")
            parts.theta = _share(asked.theta, "Confidence threshold θ", "theta")
            parts.box = _share(asked.box, "Box threshold λ", "box")
            parts.presence = _share(asked.presence, "Presence threshold", "presence")
        parts.prompts = gr.CheckboxGroup(
            [(name.capitalize(), name) for name in get_args(VisualPrompt)],
            value=asked.prompts,
            label="Visual prompts",
            info=INFO["prompts"],
            elem_id="text_prompts",
        )
        with gr.Row():
            parts.presence_on = _switch(asked.presence_on, "Presence check", "presence_on")
            parts.recurrence = _switch(asked.recurrence, "Recurrence", "recurrence")
            parts.refine = _switch(asked.refine, "Refinement", "refine")
            parts.crf = _switch(asked.crf, "CRF", "crf")
        with gr.Row():
            parts.sam = _switch(asked.sam, "Snap to SAM's masks", "sam")
            parts.iom = _share(asked.iom, "φ IoM", "iom")
            parts.iou = _share(asked.iou, "φ IoU", "iou")
    with gr.Accordion("Background words", open=False, elem_id="text_surroundings"):
        gr.Markdown(BACKGROUND)
        with gr.Column(elem_classes="word-box"):
            parts.background_words = html(background_html(session), elem_id="text_background_words")
            html(field_html("background", "Type a background word, then Enter"))


def _share(value: float, label: str, name: str) -> gr.Slider:
    return gr.Slider(
        0,
        1,
        value=value,
        step=0.01,
        label=label,
        info=INFO[name],
        buttons=[],
        elem_id=f"text_{name}",
        min_width=180,
    )


def _switch(value: bool, label: str, name: str) -> gr.Checkbox:
    return gr.Checkbox(value, label=label, info=INFO[name], elem_id=f"text_{name}", min_width=180)
