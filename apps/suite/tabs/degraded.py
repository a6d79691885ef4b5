"""The Degraded tab: its layout. What its parts do is wired in apps.suite.degraded.wiring."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from apps.suite.degraded import examples
from apps.suite.degraded.help import API_HELP, HOW_IT_WORKS
from apps.suite.degraded.session import CLEAR, NO_PICTURE, Choice, DegradedSession
from apps.suite.degraded.wiring import wire
from apps.suite.frame import Frame
from apps.suite.layout import (
    answer_fields,
    begin_tab,
    comparison_slider,
    downloads_row,
    drawing_controls,
    html,
    marking_picture,
    marking_tools,
    panel_choice,
)
from apps.suite.notices import Notice, status_html
from apps.suite.segment.markup import prompts_html
from apps.suite.segment.scene import Scene
from apps.suite.segment.session import Options
from apps.suite.services import Services
from core.degradations import COMBINATIONS, KINDS

PANELS = [
    ("Picture", "picture"),
    ("SAM | RobustSAM", "slider"),
    ("Four", "four"),
    ("All kinds", "all"),
    ("Restored", "restored"),
]
TOOLS = ("foreground", "background", "box", "scribble")
INVITATION = "# Drop a picture here\nor click to choose one, or paste it"


def build(frame: Frame, services: Services) -> None:
    """Lay the tab out and wire it."""
    parts = begin_tab("degraded", DegradedSession, services)
    with gr.Row(elem_id="degraded_main"):
        with gr.Column(scale=5, min_width=300, elem_id="degraded_side"):
            _lay_out_tools(parts)
        with gr.Column(scale=7, min_width=320, elem_id="degraded_stage"):
            _lay_out_stage(parts)
    with gr.Column(elem_id="degraded_below"):
        _lay_out_parameters(parts)
        with gr.Accordion("Points and boxes as numbers", open=False):
            parts.prompts = html(prompts_html(Scene(), None), elem_id="degraded_prompts")
        with gr.Accordion("How it works", open=False):
            gr.Markdown(HOW_IT_WORKS)
        with gr.Accordion("API", open=False):
            gr.Markdown(API_HELP)
    wire(parts, frame, services)


def _lay_out_tools(parts: SimpleNamespace) -> None:
    """Tools, the degradation, both answers, examples."""
    marking_tools(parts, "degraded", TOOLS)
    with gr.Row(elem_id="degraded_actions", elem_classes="buttons"):
        parts.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="degraded_undo")
        parts.clear = gr.Button("Clear", size="sm", interactive=False, elem_id="degraded_clear")
        parts.run = gr.Button("Run", size="sm", variant="primary", elem_id="degraded_run")
    _lay_out_degradation(parts)
    parts.guesses = html("", elem_id="degraded_guesses")
    parts.answers = html("", elem_id="degraded_answers")
    with gr.Row(elem_id="degraded_sweeps", elem_classes="buttons"):
        parts.find_all = gr.Button(
            "All kinds", size="sm", interactive=False, elem_id="degraded_find_all"
        )
        parts.find_series = gr.Button(
            "All severities", size="sm", interactive=False, elem_id="degraded_find_series"
        )
        parts.restore = gr.Button(
            "Restore", size="sm", interactive=False, elem_id="degraded_restore"
        )
        parts.cancel = gr.Button(
            "Cancel", size="sm", variant="stop", interactive=False, elem_id="degraded_cancel"
        )
    parts.series = html("", elem_id="degraded_series")
    downloads_row(parts, "degraded")
    html(examples.gallery_html(), elem_id="degraded_examples")


def _lay_out_degradation(parts: SimpleNamespace) -> None:
    """What is done to the picture: kind, severity, seed."""
    choice = Choice()
    with gr.Row(elem_id="degraded_choice"):
        parts.name = gr.Dropdown(
            _kinds(),
            value=choice.name,
            label="Degrade it",
            elem_id="degraded_name",
            min_width=150,
            scale=3,
        )
        parts.severity = gr.Slider(
            1,
            5,
            value=choice.severity,
            step=1,
            label="Severity",
            buttons=[],
            interactive=False,
            elem_id="degraded_severity",
            min_width=120,
            scale=2,
        )
        parts.seed = gr.Number(
            choice.seed,
            precision=0,
            minimum=0,
            label="Seed",
            elem_id="degraded_seed",
            min_width=70,
            scale=1,
        )
        parts.new_seed = gr.Button(
            "New seed", size="sm", elem_id="degraded_new_seed", min_width=80, scale=0
        )


def _kinds() -> list[tuple[str, str]]:
    """Titles with their family in front, combinations last."""
    single = [
        (f"{kind.family.capitalize()} · {kind.title}", name)
        for name, kind in KINDS.items()
        if name != CLEAR
    ]
    combined = [(f"Combination · {name.capitalize()}", name) for name in COMBINATIONS]
    return [("No: it is bad already", CLEAR), *single, *combined]


def _lay_out_stage(parts: SimpleNamespace) -> None:
    """The picture in five ways, the status line under it, and how results are drawn."""
    panel_choice(parts, "degraded", PANELS)
    marking_picture(parts, "degraded", INVITATION, buttons=["download"])
    comparison_slider(parts, "degraded")
    parts.four = html("", elem_id="degraded_four", visible=False)
    parts.sheet = html("", elem_id="degraded_sheet", visible=False)
    parts.restored = html("", elem_id="degraded_restored", visible=False)
    parts.status = html(status_html(Notice("hint", NO_PICTURE)), elem_id="degraded_status")
    drawing_controls(parts, "degraded")


def _lay_out_parameters(parts: SimpleNamespace) -> None:
    options = Options()
    with gr.Accordion("Parameters", open=False, elem_id="degraded_parameters"):
        with gr.Row():
            answer_fields(
                parts,
                "degraded",
                options.multimask,
                options.mask_threshold,
                "Of an ambiguous prompt. The published RobustSAM has one reading only.",
            )
            parts.paper = gr.Button("Paper defaults", size="sm", elem_id="degraded_paper")
        parts.truth = gr.UploadButton(
            "Upload the true mask: measures both answers",
            size="sm",
            file_types=["image"],
            elem_id="degraded_truth",
        )
