"""The endpoints of SAM: points and boxes, everything, proposals, edges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from apps.suite import models
from apps.suite.api.common import expose, load_picture, new_folder, picture, rows
from apps.suite.canvas import grey_png
from apps.suite.limits import Doorkeeper
from core.errors import PromptError
from core.exports import record, slug, write_all
from core.models.catalogue import catalogue
from core.models.presets import EverythingConfig, ProposalConfig
from core.prompts import Boxes, Points, TextQueries

if TYPE_CHECKING:
    from core.images import LoadedImage
    from core.results import Segmentation

Answer = tuple[str, dict[str, Any], str]  # overlay PNG, record, ZIP


def add_sam(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add SAM's endpoints, with their parameters, to the row that is being built."""
    image = picture("image")
    model = gr.Textbox("embedded", label="model")
    sides = gr.Number(None, precision=0, label="points_per_side")
    outputs = [
        gr.Image(format="png", label="overlay", interactive=False),
        gr.JSON(label="record"),
        gr.File(label="archive"),
    ]
    segment_inputs = [
        image,
        rows("points", "[x, y, 1 foreground or 0 background]"),
        rows("boxes", "[x0, y0, x1, y1]"),
        gr.Checkbox(True, label="multimask"),
        model,
    ]
    everything_inputs = [
        image,
        sides,
        gr.Number(None, label="pred_iou_thresh"),
        gr.Number(None, label="stability_score_thresh"),
        gr.Number(0, precision=0, label="min_area_px"),
        model,
    ]
    most = gr.Number(1000, precision=0, label="max_proposals")
    thin = gr.Checkbox(True, label="thin")
    expose(button, segment_sam, segment_inputs, outputs, doorkeeper)
    expose(button, segment_everything, everything_inputs, outputs, doorkeeper)
    words = [image, gr.Textbox("", label="words"), gr.Number(None, label="threshold"), model]
    expose(button, segment_words, words, outputs, doorkeeper)
    expose(button, propose_objects, [image, sides, most, model], outputs, doorkeeper)
    expose(button, segment_edges, [image, thin, model], outputs[:2], doorkeeper)


def segment_sam(
    image: str,
    points: list[list[float]],
    boxes: list[list[float]],
    multimask: bool = True,
    model: str = "embedded",
) -> Answer:
    """Segment what points and boxes show in a picture with SAM.

    Points together with at most one box describe one object; several boxes give one object each.
    Coordinates are pixels of the upright picture, origin at the top left.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        points: list of [x, y, label], label 1 for foreground and 0 for background.
        boxes: list of [x0, y0, x1, y1].
        multimask: predict three readings and return the one of the highest predicted IoU.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The picture with the masks drawn over it (PNG), a record with scores and COCO run lengths,
        and a ZIP of all files.
    """
    from core.engine import get_engine
    from core.sam.pipeline import segment

    loaded = load_picture(image)
    result = segment(
        get_engine(),
        models.resolve(model),
        loaded.image,
        points=Points.parse(points, loaded.size),
        boxes=Boxes.parse(boxes, loaded.size),
        multimask=multimask,
    )
    return _answer(loaded, result.segmentation)


def segment_everything(
    image: str,
    points_per_side: int | None = None,
    pred_iou_thresh: float | None = None,
    stability_score_thresh: float | None = None,
    min_area_px: int = 0,
    model: str = "embedded",
) -> Answer:
    """Segment everything that a grid of points finds in a picture, the largest mask first.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        points_per_side: of the grid. If not given, this and the thresholds are those that suit
            the model: list_models says them.
        pred_iou_thresh: masks of lower predicted IoU are dropped.
        stability_score_thresh: masks of lower stability are dropped.
        min_area_px: holes are filled and islands dropped below this size.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The picture with the masks drawn over it (PNG), a record with scores and COCO run lengths,
        and a ZIP of all files.
    """
    from core.engine import get_engine
    from core.sam.pipeline import segment_all

    loaded, model_id = load_picture(image), models.resolve(model)
    preset = EverythingConfig.of_set(catalogue()[model_id].set)
    wanted: dict[str, Any] = {
        "points_per_side": points_per_side,
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        "min_mask_region_area": min_area_px,
    }
    config = replace(preset, **{key: value for key, value in wanted.items() if value is not None})
    return _answer(loaded, segment_all(get_engine(), model_id, loaded.image, config))


def segment_words(
    image: str, words: str, threshold: float | None = None, model: str = "embedded"
) -> Answer:
    """Cut everything out with SAM, and keep the masks whose crops show one of some words (CLIP).

    segment_text looks for words without SAM, and finds what SAM does not cut out by itself.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        words: what to look for, with commas between them, or a JSON list of texts.
        threshold: least probability of a word, among it and the background words, for a mask to
            be kept; what suits the model if not given.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The picture with the masks drawn over it (PNG), a record with scores, COCO run lengths and
        the words without a mask, and a ZIP of all files.
    """
    from core.car.ranking import RankingConfig, search_masks
    from core.engine import get_engine

    loaded, model_id = load_picture(image), models.resolve(model)
    config = RankingConfig.of_set(catalogue()[model_id].set)
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise PromptError(f"threshold is {threshold:g}; it must be 0 to 1.")
        config = replace(config, threshold=threshold)
    queries = TextQueries.parse(words)
    return _answer(loaded, search_masks(get_engine(), model_id, loaded.image, queries, config))


def propose_objects(
    image: str,
    points_per_side: int | None = None,
    max_proposals: int = 1000,
    model: str = "embedded",
) -> Answer:
    """Propose objects in a picture, the best mean of predicted IoU and stability first.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        points_per_side: of the grid; what suits the model if not given.
        max_proposals: masks returned at most.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The picture with the masks drawn over it (PNG), a record with scores and COCO run lengths,
        and a ZIP of all files.
    """
    from core.engine import get_engine
    from core.sam.pipeline import find_proposals

    loaded, model_id = load_picture(image), models.resolve(model)
    preset = ProposalConfig.of_set(catalogue()[model_id].set)
    if max_proposals < 1:
        raise PromptError(f"max_proposals is {max_proposals}; it must be at least 1.")
    config = replace(
        preset,
        points_per_side=points_per_side or preset.points_per_side,
        max_proposals=min(max_proposals, preset.max_proposals),
    )
    return _answer(loaded, find_proposals(get_engine(), model_id, loaded.image, config))


def segment_edges(
    image: str, thin: bool = True, model: str = "embedded"
) -> tuple[str, dict[str, Any]]:
    """Detect the edges of a picture with SAM, which was never trained for it.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        thin: keep ridges only, for lines of one pixel.
        model: "embedded", "full", or an id from list_models.

    Returns:
        Edge strength as 8-bit grey PNG of the picture's size, and how it was made.
    """
    from core.engine import get_engine
    from core.sam.pipeline import find_edges

    loaded = load_picture(image)
    found = find_edges(get_engine(), models.resolve(model), loaded.image, thin=thin)
    path = new_folder() / f"{slug(loaded.stem) or 'image'}_sam_edges.png"
    path.write_bytes(grey_png(found.edges))
    height, width = loaded.size
    return str(path), {
        "method": "sam_edges",
        "model": found.model,
        "model_set": found.model_set,
        "image": {"width": width, "height": height},
        "parameters": {"thin": thin},
        "seconds": found.seconds,
        "warnings": list(loaded.notices),
    }


def _answer(loaded: LoadedImage, result: Segmentation) -> Answer:
    files = write_all(loaded.image, result, loaded.stem, new_folder())
    told = record(result)
    told["warnings"] = [*loaded.notices, *told["warnings"]]
    return str(files.overlay), told, str(files.archive)
