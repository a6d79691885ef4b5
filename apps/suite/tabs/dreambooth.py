"""The DreamBooth tab: its layout. What its parts do is wired in apps.suite.dreambooth.wiring."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from apps.suite.dreambooth import examples
from apps.suite.dreambooth.help import API_HELP, HOW_IT_WORKS, INFO
from apps.suite.dreambooth.session import (
    METHODS,
    NO_MODEL,
    NO_PICTURES,
    DreamBoothSession,
    diffusion_models,
)
from apps.suite.dreambooth.show import preset_choices
from apps.suite.dreambooth.wiring import wire
from apps.suite.frame import Frame
from apps.suite.layout import (
    Upload,
    begin_tab,
    downloads_row,
    html,
    marking_picture,
    marking_tools,
)
from apps.suite.models import is_here
from apps.suite.notices import Notice, say_bytes, status_html
from apps.suite.personalize.markup import step_html
from apps.suite.segment.markup import prompts_html
from apps.suite.segment.scene import Scene
from apps.suite.services import Services
from core.dreambooth.subjects import MAX_PICTURES, MIN_PICTURES
from core.models.catalogue import Entry

TAB = "dreambooth"
INVITATION = "# The picture to mark\nappears here; one can be dropped here, too"
LOOK_SECONDS = 1.0  # between two looks at a training


def build(frame: Frame, services: Services) -> None:
    """Lay the tab out and wire it."""
    parts = begin_tab(TAB, DreamBoothSession, services)
    session = DreamBoothSession()
    parts.timer = gr.Timer(LOOK_SECONDS, active=False)
    with gr.Row(elem_id="dreambooth_main"):
        with gr.Column(scale=5, min_width=300, elem_id="dreambooth_side"):
            _lay_out_marking(parts)
        with gr.Column(scale=7, min_width=320, elem_id="dreambooth_stage"):
            _lay_out_pictures(parts)
    with gr.Column(visible=False, elem_id="dreambooth_step2") as parts.step2:
        _lay_out_settings(parts, session)
    with gr.Column(visible=False, elem_id="dreambooth_step3") as parts.step3:
        _lay_out_training(parts)
    with gr.Column(visible=False, elem_id="dreambooth_step4") as parts.step4:
        _lay_out_result(parts, session)
    with gr.Row(elem_id="dreambooth_line"):
        parts.status = html(
            status_html(Notice("hint", NO_PICTURES)), elem_id="dreambooth_status", scale=1
        )
        parts.cancel = gr.Button(
            "Cancel", size="sm", variant="stop", interactive=False, elem_id="dreambooth_cancel"
        )
    with gr.Column(elem_id="dreambooth_below"):
        with gr.Accordion("Points and boxes as numbers", open=False):
            parts.prompts = html(prompts_html(Scene(), None), elem_id="dreambooth_prompts")
        with gr.Accordion("How it works", open=False):
            gr.Markdown(HOW_IT_WORKS)
        with gr.Accordion("API", open=False):
            gr.Markdown(API_HELP)
    wire(parts, frame, services)


def _lay_out_marking(parts: SimpleNamespace) -> None:
    """The picture that is marked or corrected, and the means to do so."""
    html(
        step_html(1, "Show one thing", "Mark it in one picture; it is found in the others."),
        elem_id="dreambooth_step1",
    )
    marking_tools(parts, TAB)
    marking_picture(parts, TAB, INVITATION, buttons=[])
    with gr.Row(elem_id="dreambooth_actions", elem_classes="buttons"):
        parts.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="dreambooth_undo")
        parts.clear = gr.Button("Clear", size="sm", interactive=False, elem_id="dreambooth_clear")
        parts.start_over = gr.Button("Start over", size="sm", elem_id="dreambooth_start_over")
    parts.readings = html("", elem_id="dreambooth_readings")


def _lay_out_pictures(parts: SimpleNamespace) -> None:
    """Where pictures are dropped, what was found in them, and other ways to begin."""
    parts.drop = Upload(
        label=f"{MIN_PICTURES} to {MAX_PICTURES} pictures of one thing",
        file_count="multiple",
        file_types=["image"],
        height=96,
        elem_id="dreambooth_drop",
    )
    parts.cards = html("", elem_id="dreambooth_cards")
    html(examples.gallery_html(), elem_id="dreambooth_examples")
    parts.saved = html("", elem_id="dreambooth_saved")
    with gr.Row(elem_id="dreambooth_load", elem_classes="buttons"):
        parts.weights = gr.UploadButton(
            "Load weights from a ZIP", size="sm", file_types=[".zip"], elem_id="dreambooth_weights"
        )


def _lay_out_settings(parts: SimpleNamespace, session: DreamBoothSession) -> None:
    """What the thing is called, how it is learned, and how long that takes."""
    html(step_html(2, "Choose how to train", "A preset is enough."), elem_id="dreambooth_head2")
    if session.diffusion is None:
        html(status_html(Notice("warning", NO_MODEL)), elem_id="dreambooth_no_model")
    models = [(_title(entry), entry.id) for entry in diffusion_models()]
    parts.model = gr.Dropdown(
        models,
        value=session.diffusion,
        label="Text-to-image model",
        visible=len(models) > 1,
        elem_id="dreambooth_model",
    )
    parts.preset = gr.Radio(
        preset_choices(session),
        value=session.wishes.preset,
        show_label=False,
        container=False,
        elem_id="dreambooth_preset",
        elem_classes="segmented",
    )
    with gr.Row(elem_id="dreambooth_words"):
        parts.class_noun = gr.Textbox(
            label="What kind of thing is it?",
            info=INFO["class_noun"],
            placeholder="toy",
            max_lines=1,
            elem_id="dreambooth_class_noun",
        )
        parts.identifier = gr.Textbox(
            session.wishes.identifier,
            label="Its own word",
            info=INFO["identifier"],
            max_lines=1,
            elem_id="dreambooth_identifier",
        )
        parts.masked = gr.Checkbox(
            True,
            label="Leave the backgrounds out (masked loss)",
            info=INFO["masked"],
            elem_id="dreambooth_masked",
        )
    _lay_out_more(parts, session)
    parts.expected = html("", elem_id="dreambooth_expected")
    with gr.Row(elem_id="dreambooth_train_row", elem_classes="buttons"):
        parts.train = gr.Button(
            "Train", variant="primary", interactive=False, elem_id="dreambooth_train"
        )


def _lay_out_more(parts: SimpleNamespace, session: DreamBoothSession) -> None:
    """The settings that a preset fills in."""
    values = session.wishes.values
    with gr.Accordion("Parameters", open=False, elem_id="dreambooth_parameters"):
        with gr.Row():
            parts.method = gr.Radio(
                [(title, name) for name, title in METHODS.items()],
                value=session.wishes.method,
                label="Method",
                info=INFO["method"],
                elem_id="dreambooth_method",
            )
            for name, label in (
                ("steps", "Steps"),
                ("learning_rate", "Learning rate"),
                ("rank", "Rank"),
                ("batch_size", "Batch"),
                ("seed", "Seed"),
            ):
                setattr(parts, name, _number(name, label, values))
        with gr.Row():
            parts.prior = _switch("prior", "Prior preservation", values)
            parts.prior_pictures = _number("prior_pictures", "Pictures of the class", values)
            parts.prior_weight = _number("prior_weight", "Prior weight", values)
        with gr.Row():
            parts.background_weight = _number("background_weight", "Background weight", values)
            parts.dilate = _number("dilate", "Grow the mask", values)
            parts.train_text_encoder = _switch("train_text_encoder", "Text encoder, too", values)
        with gr.Row():
            parts.sample_steps = _number("sample_steps", "Samples every", values)
            parts.checkpoint_steps = _number("checkpoint_steps", "Checkpoint every", values)


def _lay_out_training(parts: SimpleNamespace) -> None:
    """How it goes, live."""
    html(
        step_html(3, "Watch it learn", "It goes on when this page is closed; its link finds it."),
        elem_id="dreambooth_head3",
    )
    parts.training = html('<div data-training=""></div>', elem_id="dreambooth_training")
    with gr.Row(elem_id="dreambooth_steer", elem_classes="buttons"):
        options: dict[str, Any] = {"size": "sm", "visible": False}
        parts.pause = gr.Button("Pause", elem_id="dreambooth_pause", **options)
        parts.go_on = gr.Button("Go on", elem_id="dreambooth_go_on", **options)
        parts.stop = gr.Button(
            "Stop and keep the checkpoint", variant="stop", elem_id="dreambooth_stop", **options
        )
        parts.another = gr.Button("Close", elem_id="dreambooth_another", **options)
    parts.samples = html("", elem_id="dreambooth_samples")


def _lay_out_result(parts: SimpleNamespace, session: DreamBoothSession) -> None:
    """Draw with what was learned, beside what the model drew before."""
    html(
        step_html(4, "Draw it", "Name it in a prompt, in a new place."), elem_id="dreambooth_head4"
    )
    parts.learned = html("", elem_id="dreambooth_learned")
    with gr.Row(elem_id="dreambooth_box"):
        parts.prompt = gr.Textbox(
            label="Prompt",
            show_label=False,
            container=False,
            placeholder="a photo of a sks toy on grass",
            lines=1,
            max_lines=4,
            elem_id="dreambooth_prompt",
            scale=5,
        )
        parts.run = gr.Button("Draw", size="sm", variant="primary", elem_id="dreambooth_run")
    parts.words = html("", elem_id="dreambooth_suggestions")
    with gr.Row(elem_id="dreambooth_how"):
        parts.seeds = gr.Textbox(
            "1-4", label="Seeds", info=INFO["seeds"], max_lines=1, elem_id="dreambooth_seeds"
        )
        config = session.wishes.config("embedded")
        parts.guidance = gr.Number(
            config.guidance_scale, label="Guidance", info=INFO["guidance"], step=0.5
        )
        parts.sampler = gr.Number(
            config.inference_steps, label="Steps", info=INFO["sampler"], precision=0
        )
        parts.both = gr.Checkbox(
            True, label="Before training, too", info="The same seeds by the untouched model."
        )
    parts.pairs = html("", elem_id="dreambooth_pairs")
    parts.gallery = gr.Gallery(
        label="Drawn with it so far",
        visible=False,
        columns=6,
        object_fit="contain",
        format="png",
        buttons=["download"],
        interactive=False,
        elem_id="dreambooth_gallery",
    )
    downloads_row(parts, TAB)


def _number(name: str, label: str, values: dict[str, Any]) -> gr.Number:
    """A field of a number; whole ones are sent as such."""
    whole = name not in ("learning_rate", "prior_weight", "background_weight")
    return gr.Number(
        values[name],
        label=label,
        info=INFO[name],
        precision=0 if whole else None,
        min_width=150,
        elem_id=f"dreambooth_{name}",
    )


def _switch(name: str, label: str, values: dict[str, Any]) -> gr.Checkbox:
    return gr.Checkbox(
        values[name], label=label, info=INFO[name], min_width=150, elem_id=f"dreambooth_{name}"
    )


def _title(entry: Entry) -> str:
    if entry.set == "embedded" or is_here(entry.id):
        return entry.title
    return f"{entry.title} · {say_bytes(entry.bytes)}, not downloaded"
