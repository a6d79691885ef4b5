"""The Personalize tab: its layout. What its parts do is wired in apps.suite.personalize.wiring."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from apps.suite.frame import Frame
from apps.suite.layout import (
    Upload,
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
from apps.suite.personalize import examples
from apps.suite.personalize.help import API_HELP, HOW_IT_WORKS
from apps.suite.personalize.inputs import RANGES
from apps.suite.personalize.markup import how_html, step_html
from apps.suite.personalize.session import (
    NO_REFERENCE,
    VARIANTS,
    Choices,
    PersonalizeSession,
    threshold_of,
)
from apps.suite.personalize.wiring import wire
from apps.suite.segment.markup import prompts_html
from apps.suite.segment.scene import Scene
from apps.suite.services import Services

STAGES = [("Result", "result"), ("PerSAM | PerSAM-F", "compare"), ("Similarity", "similarity")]
CORRECTIONS = [("Add", "foreground"), ("Remove", "background")]
INVITATION = "# Drop a picture of your object here\nor click to choose one, or paste it"


def build(frame: Frame, services: Services) -> None:
    """Lay the tab out and wire it."""
    parts = begin_tab("personalize", PersonalizeSession, services)
    with gr.Row(elem_id="personalize_main"):
        with gr.Column(scale=5, min_width=300, elem_id="personalize_side"):
            _lay_out_reference(parts)
        with gr.Column(scale=7, min_width=320, elem_id="personalize_stage"):
            _lay_out_search(parts, services)
            with gr.Column(visible=False, elem_id="personalize_results") as parts.results:
                _lay_out_results(parts)
    with gr.Column(elem_id="personalize_below"):
        with gr.Accordion("How it got there", open=False) as parts.how_box:
            parts.how = html(how_html(PersonalizeSession()), elem_id="personalize_how_html")
        _lay_out_parameters(parts, threshold_of(frame.in_use.value))
        with gr.Accordion("Points and boxes as numbers", open=False):
            parts.prompts = html(prompts_html(Scene(), None), elem_id="personalize_prompts")
        with gr.Accordion("How it works", open=False):
            gr.Markdown(HOW_IT_WORKS)
        with gr.Accordion("API", open=False):
            gr.Markdown(API_HELP)
    wire(parts, frame, services)


def _lay_out_reference(parts: SimpleNamespace) -> None:
    """The reference picture, and the means to mark the object in it."""
    html(
        step_html(1, "Mark your object", "Click it, paint it, or upload its mask."),
        elem_id="personalize_step1",
    )
    marking_tools(parts, "personalize")
    marking_picture(parts, "personalize", INVITATION, buttons=[])
    with gr.Row(elem_id="personalize_actions", elem_classes="buttons"):
        parts.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="personalize_undo")
        parts.clear = gr.Button("Clear", size="sm", interactive=False, elem_id="personalize_clear")
        parts.new_object = gr.Button(
            "New object", size="sm", interactive=False, elem_id="personalize_new"
        )
    parts.readings = html("", elem_id="personalize_readings")
    parts.objects = html("", elem_id="personalize_objects")
    with gr.Row(elem_id="personalize_more", elem_classes="buttons"):
        parts.another = gr.Button(
            "Another reference", size="sm", interactive=False, elem_id="personalize_another"
        )
        parts.mask = gr.UploadButton(
            "Upload a mask", size="sm", file_types=["image"], elem_id="personalize_mask"
        )
        parts.profile = gr.UploadButton(
            "Load a profile",
            size="sm",
            file_types=[".safetensors"],
            elem_id="personalize_profile",
        )
    parts.weights = html("", elem_id="personalize_weights")
    html(examples.gallery_html(), elem_id="personalize_examples")


def _lay_out_search(parts: SimpleNamespace, services: Services) -> None:
    """The pictures or the clip to search, and the method."""
    most = services.settings.max_test_images
    html(
        step_html(2, "Find it anywhere", f"In up to {most} pictures, or in a clip."),
        elem_id="personalize_step2",
    )
    parts.tests = Upload(
        label="Pictures or a clip",
        file_count="multiple",
        file_types=["image", "video"],
        height=96,
        elem_id="personalize_tests",
    )
    with gr.Row(elem_id="personalize_run_row"):
        parts.variant = gr.Radio(
            [(title, key) for key, title in VARIANTS.items()],
            value="persam",
            show_label=False,
            container=False,
            elem_id="personalize_variant",
            elem_classes="segmented",
        )
        parts.frame = gr.Slider(
            1,
            2,
            value=1,
            step=1,
            label="Frame",
            visible=False,
            buttons=[],
            elem_id="personalize_frame",
        )
        parts.mark_frame = gr.Button(
            "Mark it in this frame", size="sm", visible=False, elem_id="personalize_mark_frame"
        )
        parts.run = gr.Button("Find", size="sm", variant="primary", elem_id="personalize_run")
        parts.cancel = gr.Button(
            "Cancel", size="sm", variant="stop", interactive=False, elem_id="personalize_cancel"
        )
    parts.status = html(status_html(Notice("hint", NO_REFERENCE)), elem_id="personalize_status")


def _lay_out_results(parts: SimpleNamespace) -> None:
    """All results small, one of them large, and how they are drawn."""
    parts.gallery = gr.Gallery(
        show_label=False,
        visible=False,
        columns=6,
        rows=1,
        object_fit="cover",
        allow_preview=False,
        buttons=[],
        elem_id="personalize_gallery",
    )
    panel_choice(parts, "personalize", STAGES, visible=False)
    frame: dict[str, Any] = {
        "show_label": False,
        "interactive": False,
        "visible": False,
        "buttons": ["download"],
    }
    parts.result = gr.Image(format="png", elem_id="personalize_result", **frame)
    comparison_slider(parts, "personalize")
    parts.similarity = gr.Image(
        format="png",
        elem_id="personalize_similarity",
        alt_text="How similar each place is to the object: bright is similar.",
        **frame,
    )
    parts.clip = gr.Video(elem_id="personalize_clip", autoplay=True, loop=True, **frame)
    with gr.Row(elem_id="personalize_step_row", visible=False) as parts.step_row:
        parts.previous = gr.Button("← Previous", size="sm", elem_id="personalize_previous")
        parts.next = gr.Button("Next →", size="sm", elem_id="personalize_next")
        parts.correct = gr.Radio(
            CORRECTIONS,
            value="foreground",
            label="Correct by clicks",
            elem_id="personalize_correct",
            elem_classes="segmented",
        )
        parts.take_back = gr.Button(
            "Take back", size="sm", interactive=False, elem_id="personalize_take_back"
        )
    parts.answers = html("", elem_id="personalize_answers")
    drawing_controls(parts, "personalize")
    downloads_row(parts, "personalize")
    # static/suite.js opens the other tab, which fetches pictures and masks by itself.
    with gr.Row(elem_classes="buttons"):
        gr.Button("Use for DreamBooth", size="sm", elem_id="personalize_dreambooth")


def _lay_out_parameters(parts: SimpleNamespace, threshold: float) -> None:
    """The method's switches and numbers; defaults are the published ones."""
    default = Choices()
    with gr.Accordion("Parameters", open=False, elem_id="personalize_parameters"):
        gr.Markdown(
            "These are for pictures. A clip is followed by the published video settings; of what "
            "is here only the presence threshold counts there.",
            padding=False,
        )
        gr.Markdown("**PerSAM** · PerSAM-F goes without these, as published", padding=False)
        with gr.Row():
            parts.guided_attention = _switch(
                "Target-guided attention", "The similarity map draws the first pass (section 3.3)."
            )
            parts.semantic_prompt = _switch(
                "Target-semantic prompting", "The object's features join the prompt (3.4)."
            )
            parts.negative_point = _switch(
                "Negative point", "The least similar place is background."
            )
            parts.guidance_weight = _slider(
                "guidance_weight", "α", "Weight of the guidance. Paper: 1.", default, 0.1
            )
        gr.Markdown("**Both**", padding=False)
        with gr.Row():
            parts.refinement_1 = _switch("Refinement 1", "A second pass with the first's logits.")
            parts.refinement_2 = _switch("Refinement 2", "A third pass with the mask's box.")
            parts.points = _slider(
                "points", "Positive points", "A grid cell apart. Paper: 1.", default, 1
            )
            parts.max_instances = _slider(
                "max_instances", "Instances", "Look for so many of the same object.", default, 1
            )
            parts.presence_threshold = gr.Slider(
                0,
                1,
                value=threshold,
                step=0.01,
                label="Presence threshold",
                info="Below it: not in this picture. 0: always a mask, as published.",
                elem_id="personalize_presence_threshold",
            )
        gr.Markdown("**PerSAM-F** · learns two weights", padding=False)
        with gr.Row():
            parts.steps = _slider("steps", "Steps", "Paper: 1000.", default, 1)
            parts.learning_rate = gr.Number(
                default.learning_rate, label="Learning rate", info="Paper: 0.001."
            )
        parts.truth = Upload(
            label="Ground truth masks, with the pictures' file names: measures the IoU",
            file_count="multiple",
            file_types=["image"],
            height=96,
            elem_id="personalize_truth",
        )
        with gr.Row(elem_id="personalize_defaults"):
            parts.suited = gr.Button(
                "Defaults of this model", size="sm", elem_id="personalize_suited"
            )
            parts.paper = gr.Button("Paper defaults", size="sm", elem_id="personalize_paper")


def _switch(label: str, info: str) -> gr.Checkbox:
    return gr.Checkbox(True, label=label, info=info)


def _slider(name: str, label: str, info: str, default: Choices, step: float) -> gr.Slider:
    low, high = RANGES[name]
    return gr.Slider(
        low,
        high,
        value=getattr(default, name),
        step=step,
        label=label,
        info=info,
        elem_id=f"personalize_{name}",
    )
