"""Pictures of the Personalize tab: results, thumbnails, similarity maps, the passes as cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.components import Drawing
from apps.suite.personalize.session import PersonalizeSession, Query
from apps.suite.segment.drawing import MOST_NUMBERED
from core.images import fit_within
from core.overlays import draw, draw_boxes, draw_heatmap, draw_points

if TYPE_CHECKING:
    from core.persam.cascade import Stage
    from core.persam.instances import Found
    from core.persam.pipeline import PersamResult, Trace

Image = NDArray[np.uint8]

THUMBNAIL_SIDE = 360  # px
CARD_SIDE = 240  # px
CLIP_THUMBNAILS = 12  # frames of a clip shown as pictures
JPEG_QUALITY = 88


def draw_result(
    view: View, result: PersamResult | None, drawing: Drawing, *, clicks: bool = True
) -> Image:
    """Draw what was found over the shown picture, RGB(A) uint8 (h, w, 3 or 4).

    Args:
        clicks: also the points of instances that were corrected.
    """
    if result is None or not drawing.overlay:
        return view.image
    found = result.segmentation
    canvas = draw(
        view.image,
        np.stack([view.mask(mask) for mask in found.masks])
        if len(found)
        else np.zeros((0, *view.image.shape[:2]), bool),
        ids=list(found.numbers),
        opacity=drawing.opacity,
        outline=drawing.outline,
        numbers=drawing.numbers and len(found) <= MOST_NUMBERED,
        background=drawing.background if len(found) else "image",
    )
    for trace in result.traces if clicks else ():
        for answer in trace.found:
            if answer.stages[-1].name == "correction":
                points = answer.points
                canvas = draw_points(canvas, view.to_shown(points.coords), points.labels)
    return canvas


def draw_similarity(view: View, trace: Trace, found: Found) -> Image:
    """Paint how similar each place is to the object, with the points taken from it.

    Returns:
        RGB uint8 (h + bar, w, 3).
    """
    height, width = view.image.shape[:2]
    full = trace.similarity.full().numpy()
    values = np.asarray(cv2.resize(full, (width, height)), np.float32)
    painted = draw_heatmap(values)
    marked = draw_points(painted[:height], view.to_shown(found.points.coords), found.points.labels)
    return np.ascontiguousarray(np.vstack([marked, painted[height:]]))


def draw_card(
    view: View, mask: NDArray[np.bool_], number: int, box: NDArray[np.float32] | None = None
) -> Image:
    """Draw one mask (H, W), and its pass's box (4,) in original pixels, over a small picture."""
    small = fit_within(view.image, CARD_SIDE)
    height, width = small.shape[:2]
    grey = view.mask(mask).astype(np.uint8) * np.uint8(255)
    shown = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) > 127
    card = draw(small, shown[None], ids=[number], opacity=0.5, numbers=False)
    if box is None:
        return card
    corners = view.to_shown(np.asarray(box).reshape(-1, 2), corners=True)
    return draw_boxes(card, (corners * width / view.image.shape[1]).reshape(1, 4))


def draw_readings(view: View, stage: Stage, number: int) -> list[Image]:
    """Draw each reading of a pass small."""
    return [draw_card(view, mask, number) for mask in stage.masks()]


def write_gallery(session: PersonalizeSession) -> list[tuple[str, str]]:
    """Write a thumbnail of every picture, or of some frames; (path, caption) of each."""
    if session.clip is not None:
        return _clip_thumbnails(session)
    return [
        (_thumbnail(session, query, index), caption_of(session, query, index))
        for index, query in enumerate(session.queries)
    ]


def caption_of(session: PersonalizeSession, query: Query, index: int) -> str:
    """'1 · 0.71', '2 · not here', '3 · 4 found', or the file's name before there is a result."""
    result = query.result(session.variant)
    if result is None:
        return f"{index + 1} · {query.loaded.stem[:24]}"
    found = len(result.segmentation)
    if not found:
        return f"{index + 1} · not here"
    if found > 1:
        return f"{index + 1} · {found} found"
    (number,) = result.segmentation.numbers
    return f"{index + 1} · {result.find(number)[1].presence.score:.2f}"


def write_followed(session: PersonalizeSession) -> None:
    """Encode the clip with what was followed in it, as it is drawn now."""
    from core.persam.clips import write_clip

    clip, followed = session.clip, session.followed
    if clip is None or followed is None or not followed.frames:
        return
    path = session.new_view(".mp4")
    frames = (draw_frame(session, k) for k in range(len(followed.frames)))
    session.followed_file = str(write_clip(path, frames, clip.frame_rate))


def draw_frame(session: PersonalizeSession, index: int) -> Image:
    """Draw what was followed over one frame of the clip, RGB uint8 (H, W, 3)."""
    clip, followed = session.clip, session.followed
    assert clip is not None
    frame = clip.frames[index]
    if followed is None or index >= len(followed.frames):
        return frame
    labels = followed.frames[index].labels
    numbers = [k for k in followed.numbers if (labels == k).any()]
    if not numbers:
        return frame
    masks = np.stack([labels == k for k in numbers])
    drawing = session.drawing
    background = "black" if drawing.background == "transparent" else drawing.background
    return draw(
        frame,
        masks,
        ids=numbers,
        opacity=drawing.opacity,
        outline=drawing.outline,
        numbers=drawing.numbers,
        background=background,
    )[:, :, :3]


def _thumbnail(session: PersonalizeSession, query: Query, index: int) -> str:
    """The file of a picture's thumbnail, written anew only if it changed."""
    result = query.result(session.variant)
    content = (query, result, session.drawing)
    known, path = session.thumbnails.get(index, (None, ""))
    if known != content:
        drawn = draw_result(query.view, result, session.drawing, clicks=False)
        small = fit_within(np.ascontiguousarray(drawn[:, :, :3]), THUMBNAIL_SIDE)
        path = _save(session, small)
        session.thumbnails[index] = (content, path)
    return path


def _clip_thumbnails(session: PersonalizeSession) -> list[tuple[str, str]]:
    assert session.clip is not None
    count = len(session.clip.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, CLIP_THUMBNAILS)).round().astype(int))
    return [
        (
            _save(session, fit_within(draw_frame(session, int(k)), THUMBNAIL_SIDE)),
            f"Frame {int(k) + 1}",
        )
        for k in chosen
    ]


def _save(session: PersonalizeSession, picture: Image) -> str:
    path = session.new_thumbnail(".jpg")
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return str(path)
