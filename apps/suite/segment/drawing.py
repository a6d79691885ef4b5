"""Pictures of the Segment tab: what the browser shows, thumbnails, and the result for files."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.components import Drawing
from apps.suite.segment.patch import stack
from apps.suite.segment.scene import Instance, Scene
from apps.suite.segment.session import Picture, SegmentSession
from core.exports import picture_png
from core.images import fit_within
from core.models.catalogue import catalogue
from core.overlays import draw, draw_boxes, draw_points, palette
from core.results import Segmentation

MOST_NUMBERED = 40  # with more objects the numbers would hide the picture
THUMBNAIL_SIDE = 168  # px, drawn at up to twice the density of a page


def save_png(session: SegmentSession, picture: NDArray[np.uint8]) -> str:
    """Write RGB(A) uint8 (h, w, 3 or 4) losslessly into the visitor's folder."""
    path = session.new_view(".png")
    path.write_bytes(picture_png(picture))
    return str(path)


def draw_scene(picture: Picture, scene: Scene, drawing: Drawing) -> NDArray[np.uint8]:
    """Draw the shown picture with objects and prompts, RGB(A) uint8 (h, w, 3 or 4)."""
    view = picture.view
    canvas = draw_instances(view, scene.instances, drawing) if drawing.overlay else view.image
    return draw_prompts(canvas, view, scene)


def draw_instances(
    view: View, instances: tuple[Instance, ...], drawing: Drawing
) -> NDArray[np.uint8]:
    """Draw the visible objects over the shown picture, RGB(A) uint8 (h, w, 3 or 4)."""
    visible = [instance for instance in instances if instance.visible]
    if not visible:
        return view.image
    return draw(
        view.image,
        stack([instance.shown for instance in visible], view.image.shape[:2]),
        ids=[instance.number for instance in visible],
        opacity=drawing.opacity,
        outline=drawing.outline,
        numbers=drawing.numbers and len(visible) <= MOST_NUMBERED,
        background=drawing.background,
    )


def draw_prompts(canvas: NDArray[np.uint8], view: View, scene: Scene) -> NDArray[np.uint8]:
    """Mark the points, the boxes and the first corner of a box."""
    prompts = scene.prompts
    if prompts.boxes:
        corners = view.to_shown(np.array(prompts.boxes).reshape(-1, 2)).reshape(-1, 4)
        numbers = range(scene.next_number, scene.next_number + len(prompts.boxes))
        canvas = draw_boxes(canvas, corners, [palette(number) for number in numbers])
    if scene.corner is not None:
        x, y = view.to_shown([scene.corner])[0]
        half = max(canvas.shape[:2]) / 90
        mark = [[x - half, y - half, x + half, y + half]]
        canvas = draw_boxes(canvas, mark, [palette(scene.next_number)])
    if prompts.points:
        rows = np.array(prompts.points)
        canvas = draw_points(canvas, view.to_shown(rows[:, :2]), rows[:, 2])
    return canvas


def draw_candidates(picture: Picture, scene: Scene) -> list[str]:
    """Draw each candidate of the answer small, as data addresses of PNGs."""
    if scene.answer is None:
        return []
    small = fit_within(picture.view.image, THUMBNAIL_SIDE)
    height, width = small.shape[:2]
    thumbnails = []
    for shown in scene.answer.shown:
        grey = shown.full().astype(np.uint8) * np.uint8(255)
        mask = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) > 127
        thumbnail = draw(small, mask[None], ids=[scene.next_number], opacity=0.55, numbers=False)
        thumbnails.append(data_address(thumbnail))
    return thumbnails


def data_address(picture: NDArray[np.uint8]) -> str:
    """Encode a small RGB(A) picture as an address that needs no request."""
    return "data:image/png;base64," + base64.b64encode(picture_png(picture)).decode()


def build_result(session: SegmentSession, scene: Scene) -> Segmentation:
    """Collect the visible objects as the result that files and records are made of."""
    picture = session.need_picture()
    visible = [instance for instance in scene.instances if instance.visible]
    entry = catalogue()[session.found_model or session.model]
    kind = score_kind_of(visible)
    return Segmentation(
        method=session.method,
        model=entry.id,
        model_set=entry.set,
        size=picture.size,
        masks=stack([instance.mask for instance in visible], picture.size),
        labels=tuple(instance.label for instance in visible),
        scores=np.array(
            [one.score if one.score_kind == kind else math.nan for one in visible], np.float32
        ),
        score_kind=kind,
        warnings=picture.loaded.notices,
        parameters=_parameters(session, visible),
        seconds=session.seconds,
        ids=tuple(instance.number for instance in visible),
    )


def score_kind_of(instances: Sequence[Instance]) -> str:
    """The kind of score that a record of these objects has: where they differ, SAM's own."""
    kinds = {instance.score_kind for instance in instances}
    return kinds.pop() if len(kinds) == 1 else "predicted_iou"


def _parameters(session: SegmentSession, visible: list[Instance]) -> dict[str, object]:
    prompted = [
        {
            "id": instance.number,
            "points": [list(point) for point in instance.prompts.points],
            "boxes": [list(box) for box in instance.prompts.boxes],
        }
        for instance in visible
        if instance.prompts
    ]
    words = [
        {"id": one.number, "word": one.label, "clip_similarity": round(one.score, 4)}
        for one in visible
        if one.score_kind == "clip_similarity"
    ]
    return {
        **session.found_parameters,
        **({"words": words} if words else {}),
        "mask_threshold": session.options.mask_threshold,
        "multimask": session.options.multimask,
        "objects": prompted,
    }


def say_score(score: float) -> str:
    """0.93, or "–" where there is none."""
    return "–" if math.isnan(score) else f"{score:.2f}"
