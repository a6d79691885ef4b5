"""Pictures of the Text query tab: the label map, what was compared, one word on its way."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.components import Drawing
from apps.suite.segment.drawing import MOST_NUMBERED
from apps.suite.segment.patch import Patch, stack
from apps.suite.text.session import Found, TextSession
from core.images import fit_within
from core.overlays import draw, draw_heatmap

Image = NDArray[np.uint8]

CARD_SIDE = 220  # px
MAP_SIDE, PHOTO_SIDE = 250, 420  # px; the numbers on a map's bar are to be read as it is shown
MOST_CARDS = 24  # marked pictures of one step


@dataclass(frozen=True, eq=False)
class Card:
    """One word of one step: what the classifier was shown, and the map; small RGB pictures."""

    row: int
    marked: Image
    heat: Image


def draw_masks(view: View, masks: dict[int, Patch], drawing: Drawing) -> Image:
    """Draw masks by number over the shown picture, RGB(A) uint8 (h, w, 3 or 4)."""
    if not drawing.overlay:
        return view.image
    return _draw(
        view.image, list(masks), stack(list(masks.values()), view.image.shape[:2]), drawing
    )


def draw_result(session: TextSession) -> Image:
    """The label map over the shown picture."""
    view = session.need_picture().view
    return draw_masks(view, final_masks(session.found), session.drawing)


def draw_whole(image: Image, found: Found, drawing: Drawing) -> Image:
    """The label map over the original picture, for files."""
    masks = stack([word.mask for word in found.words], image.shape[:2])
    return _draw(image, [word.number for word in found.words], masks, drawing)


def draw_pair(session: TextSession) -> tuple[Image, Image]:
    """What is before and after the chosen stage, each RGB uint8 (h, w, 3)."""
    view, found = session.need_picture().view, session.found
    before = found.before.get(session.pair, {}) if found else {}
    after = final_masks(found)
    if found and session.pair == "crf" and "sam" in found.before:
        after = found.before["sam"]
    first, second = (draw_masks(view, masks, session.drawing) for masks in (before, after))
    return _opaque(view.image if session.pair == "picture" else first), _opaque(second)


def final_masks(found: Found | None) -> dict[int, Patch]:
    """The shown mask of each word that was found, by number."""
    return {word.number: word.shown for word in found.words} if found else {}


def draw_step(found: Found, index: int) -> list[Card]:
    """Draw the live words of a step, at most MOST_CARDS of them."""
    from core.car.visual_prompts import VisualPrompter

    config, step = found.result.config, found.step(index)
    prompter = VisualPrompter(found.result.image, config.visual_prompts)
    return [
        Card(
            row,
            fit_within(step.mark(row, prompter, config.mask_threshold), CARD_SIDE),
            draw_map(step.maps[row], found.result.image.shape[:2], CARD_SIDE),
        )
        for row in range(min(len(step.live), MOST_CARDS))
    ]


def draw_word(found: Found, index: int, row: int) -> list[Image]:
    """One word's way in a step: gradCAM, refined map, proposal above η on the picture, marked."""
    from core.car.visual_prompts import VisualPrompter

    config, image, step = found.result.config, found.result.image, found.step(index)
    size = image.shape[:2]
    small = enlarge(fit_within(image, PHOTO_SIDE), PHOTO_SIDE)
    proposal = cv2.resize(step.maps[row], small.shape[1::-1]) > config.mask_threshold
    number = step.live[row] + 1
    prompter = VisualPrompter(image, config.visual_prompts)
    return [
        draw_map(step.cams[row], size, MAP_SIDE),
        draw_map(step.maps[row], size, MAP_SIDE),
        draw(small, proposal[None], ids=[number], opacity=0.5, numbers=False),
        enlarge(step.mark(row, prompter, config.mask_threshold), PHOTO_SIDE),
    ]


def draw_map(values: NDArray[np.floating], size: Sequence[int], side: int) -> Image:
    """Paint a map (h, w) in the shape of a picture of a size (H, W), with its colour bar."""
    scale = side / max(size)
    wide = max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
    return draw_heatmap(np.clip(cv2.resize(np.asarray(values, np.float32), wide), 0, 1))


def enlarge(image: Image, side: int) -> Image:
    """Bring the longer side to at least ``side`` pixels."""
    scale = side / max(image.shape[:2])
    if scale <= 1:
        return image
    wide = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, wide, interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg_address(image: Image) -> str:
    """Encode RGB uint8 (h, w, 3) as an address that needs no request."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _draw(image: Image, ids: list[int], masks: NDArray[np.bool_], drawing: Drawing) -> Image:
    return draw(
        image,
        masks,
        ids=ids,
        opacity=drawing.opacity,
        outline=drawing.outline,
        numbers=drawing.numbers and len(ids) <= MOST_NUMBERED,
        background=drawing.background if ids else "image",
    )


def _opaque(picture: Image) -> Image:
    return np.ascontiguousarray(picture[:, :, :3])
