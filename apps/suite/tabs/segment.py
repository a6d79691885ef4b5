"""The Segment tab: its layout. What its parts do is wired in apps.suite.segment.wiring."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from apps.suite import examples
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
from apps.suite.segment.help import API_HELP, HOW_IT_WORKS
from apps.suite.segment.markup import prompts_html
from apps.suite.segment.scene import Scene
from apps.suite.segment.session import NO_PICTURE, Options, SegmentSession
from apps.suite.segment.wiring import wire
from apps.suite.services import Services
from core.models.presets import EverythingConfig

PANELS = [("Masks", "masks"), ("Before / after", "compare"), ("Edges", "edges")]
WAYS = [("SAM's masks", "masks"), ("CaR", "car")]
INVITATION = "# Drop a picture here\nor click to choose one, or paste it"


def build(frame: Frame, services: Services) -> None:
    """Lay the tab out and wire it."""
    parts = begin_tab("segment", SegmentSession, services)
    with gr.Row(elem_id="segment_main"):
        with gr.Column(scale=5, min_width=300, elem_id="segment_side"):
            _lay_out_tools(parts)
        with gr.Column(scale=7, min_width=320, elem_id="segment_stage"):
            _lay_out_stage(parts)
    with gr.Column(elem_id="segment_below"):
        _lay_out_parameters(parts, services.settings.model_set)
        with gr.Accordion("Points and boxes as numbers", open=False):
            parts.prompts = html(prompts_html(Scene(), None), elem_id="segment_prompts")
        with gr.Accordion("How it works", open=False) as parts.how:
            gr.Markdown(HOW_IT_WORKS)
            parts.maps = gr.Image(
                label="Logits of the mask at the decoder's resolution",
                format="png",
                interactive=False,
                buttons=["download"],
                elem_id="segment_maps",
                height=300,
            )
        with gr.Accordion("API", open=False):
            gr.Markdown(API_HELP)
    wire(parts, frame, services)


def _lay_out_tools(parts: SimpleNamespace) -> None:
    """Tools, actions, what was found, examples."""
    marking_tools(parts, "segment")
    with gr.Row(elem_id="segment_actions", elem_classes="buttons"):
        parts.undo = gr.Button("Undo", size="sm", interactive=False, elem_id="segment_undo")
        parts.clear = gr.Button("Clear", size="sm", interactive=False, elem_id="segment_clear")
        parts.new_object = gr.Button(
            "New object", size="sm", interactive=False, elem_id="segment_new"
        )
        parts.run = gr.Button("Run", size="sm", variant="primary", elem_id="segment_run")
    with gr.Row(elem_id="segment_whole", elem_classes="buttons"):
        parts.find_everything = gr.Button("Everything", size="sm", elem_id="segment_everything")
        parts.find_edges = gr.Button("Edges", size="sm", elem_id="segment_edges_button")
        parts.find_proposals = gr.Button("Proposals", size="sm", elem_id="segment_proposals")
        parts.cancel = gr.Button(
            "Cancel", size="sm", variant="stop", interactive=False, elem_id="segment_cancel"
        )
    with gr.Row(elem_id="segment_words_row"):
        parts.words = gr.Textbox(
            label="Words",
            placeholder="dog, red ball",
            max_lines=1,
            submit_btn="Find",
            info="With commas between them; right ones and wrong ones.",
            elem_id="segment_words",
            scale=3,
        )
        parts.way = gr.Radio(
            WAYS,
            value="masks",
            label="by",
            info="What SAM cuts out, or CaR's maps.",
            elem_id="segment_way",
            elem_classes="segmented",
            scale=2,
        )
    parts.readings = html("", elem_id="segment_readings")
    parts.objects = html("", elem_id="segment_objects")
    downloads_row(parts, "segment")
    html(examples.gallery_html(), elem_id="segment_examples")


def _lay_out_stage(parts: SimpleNamespace) -> None:
    """The picture, the status line under it, and how results are drawn."""
    panel_choice(parts, "segment", PANELS)
    marking_picture(parts, "segment", INVITATION, buttons=["download"])
    comparison_slider(parts, "segment")
    parts.edges = gr.Image(
        format="png",
        show_label=False,
        buttons=["download"],
        interactive=False,
        visible=False,
        elem_id="segment_edges",
        alt_text="Edges that the masks of the whole picture agree on, dark on white.",
    )
    parts.status = html(status_html(Notice("hint", NO_PICTURE)), elem_id="segment_status")
    drawing_controls(parts, "segment")


def _lay_out_parameters(parts: SimpleNamespace, model_set: str) -> None:
    """What the model is asked, each with a line of help; defaults are the published ones."""
    options = Options()
    paper, embedded = EverythingConfig(), EverythingConfig.embedded()
    own = EverythingConfig.of_set(model_set)
    with gr.Accordion("Parameters", open=False, elem_id="segment_parameters"):
        with gr.Row():
            answer_fields(
                parts,
                "segment",
                options.multimask,
                options.mask_threshold,
                "Of an ambiguous prompt; automatic: for one point or box, as SAM is trained.",
            )
            parts.scribble_points = gr.Slider(
                1,
                20,
                value=options.scribble_points,
                step=1,
                label="Points per scribble",
                info="Spread evenly along its middle.",
            )
            parts.feed_back = gr.Checkbox(
                options.feed_back,
                label="Feed the last logits back",
                info="The next point corrects the present mask instead of starting anew.",
            )
        gr.Markdown("**Everything** · a grid of points, filtered by quality", padding=False)
        with gr.Row():
            parts.points_per_side = gr.Slider(
                4,
                64,
                value=own.points_per_side,
                step=1,
                label="Points per side",
                info=f"Of the grid. Paper: {paper.points_per_side}; embedded model: "
                f"{embedded.points_per_side}.",
                elem_id="segment_points_per_side",
            )
            parts.pred_iou_thresh = gr.Slider(
                0,
                1,
                value=own.pred_iou_thresh,
                step=0.01,
                label="Least predicted IoU",
                info="Masks that the model rates lower go. Paper: "
                f"{paper.pred_iou_thresh}; embedded: {embedded.pred_iou_thresh}.",
            )
            parts.stability_score_thresh = gr.Slider(
                0,
                1,
                value=own.stability_score_thresh,
                step=0.01,
                label="Least stability",
                info="IoU of the mask at a lower and a higher threshold. Paper: "
                f"{paper.stability_score_thresh}; embedded: {embedded.stability_score_thresh}.",
            )
            parts.box_nms_thresh = gr.Slider(
                0.1,
                1,
                value=own.box_nms_thresh,
                step=0.05,
                label="Duplicate boxes above IoU",
                info=f"Non-maximum suppression. Paper: {paper.box_nms_thresh}.",
            )
        with gr.Row():
            parts.crop_n_layers = gr.Slider(
                0,
                2,
                value=own.crop_n_layers,
                step=1,
                label="Crop layers",
                info="Again on zoomed crops, for small things; slower. Paper: 0.",
            )
            parts.min_mask_region_area = gr.Number(
                own.min_mask_region_area,
                precision=0,
                minimum=0,
                label="Smallest region",
                info="Holes and islands under so many px go. Paper: 0.",
            )
        with gr.Row(elem_id="segment_defaults"):
            parts.suited = gr.Button("Defaults of this model", size="sm", elem_id="segment_suited")
            parts.paper = gr.Button("Paper defaults", size="sm", elem_id="segment_paper")
