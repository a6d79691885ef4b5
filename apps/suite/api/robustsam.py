"""The endpoint of RobustSAM: a picture as it is or degraded here, both models' answers."""

from __future__ import annotations

from typing import Any

import gradio as gr

from apps.suite import models
from apps.suite.api.common import expose, load_picture, new_folder, picture, rows
from apps.suite.limits import Doorkeeper
from core.degradations import degrade
from core.prompts import Boxes, Points

Answer = tuple[list[str], dict[str, Any], str, str]  # overlays, record, picture, ZIP


def add_robustsam(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add the endpoint, with its parameters, to the row that is being built."""
    inputs = [
        picture("image"),
        rows("points", "[x, y, 1 foreground or 0 background]"),
        rows("boxes", "[x0, y0, x1, y1]"),
        gr.Textbox("none", label="degradation"),
        gr.Number(3, precision=0, label="strength"),
        gr.Number(0, precision=0, label="seed"),
        gr.Checkbox(True, label="compare"),
        gr.Textbox("embedded", label="model"),
    ]
    outputs = [
        gr.Gallery(label="overlays"),
        gr.JSON(label="record"),
        gr.File(label="picture"),
        gr.File(label="archive"),
    ]
    expose(button, segment_robustsam, inputs, outputs, doorkeeper)


def segment_robustsam(
    image: str,
    points: list[list[float]],
    boxes: list[list[float]],
    degradation: str = "none",
    strength: int = 3,
    seed: int = 0,
    compare: bool = True,
    model: str = "embedded",
) -> Answer:
    """Segment what points and boxes show in a bad picture with RobustSAM, and with SAM beside it.

    Coordinates are pixels of the upright picture, origin at the top left.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        points: list of [x, y, label], label 1 for foreground and 0 for background.
        boxes: list of [x0, y0, x1, y1].
        degradation: what is done to the picture first: "none" or one of the fifteen kinds, such
            as "rain" or "motion_blur"; an unknown one answers with the list.
        strength: 1 (mild) to 5 (harsh).
        seed: 0 or more; the same one degrades in the same way.
        compare: also give SAM's answer, and for a picture that is degraded here each answer's
            IoU with SAM's mask of the clear picture.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The picture with RobustSAM's masks, and with SAM's, drawn over it (PNGs); a record of both
        answers; the picture that was segmented (PNG); and a ZIP of all files.
    """
    from core.engine import get_engine
    from core.robustsam import pipeline
    from core.robustsam.exports import comparison_record, write_comparison

    loaded, model_id = load_picture(image), models.resolve(model, "robustsam")
    name = "clear" if degradation == "none" else degradation
    degraded = degrade(loaded.image, name, severity=int(strength), seed=int(seed))
    asked: dict[str, Any] = {
        "points": Points.parse(points, loaded.size),
        "boxes": Boxes.parse(boxes, loaded.size),
    }
    engine, ious = get_engine(), None
    if compare:
        found = pipeline.compare(engine, model_id, degraded.image, **asked)
        if name != "clear":
            truth = pipeline.clear_mask(engine, model_id, loaded.image, **asked)
            ious = found.ious(degraded.displace_mask(truth))
    else:
        robust = pipeline.segment_robust(engine, model_id, degraded.image, **asked)
        found = pipeline.Comparison(None, robust, None)
    told = comparison_record(found, degraded.parameters, ious, loaded.notices)
    files = write_comparison(degraded.image, found, told, loaded.stem, new_folder())
    overlays = [str(path) for path in reversed(files.overlays)]
    return overlays, told, str(files.picture), str(files.archive)
