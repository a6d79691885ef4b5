"""Pictures of the chat tab: the masks of an answer, and the maps of both scales behind a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apps.suite.chat.session import ChatSession, Told
from apps.suite.components import Drawing
from apps.suite.segment.patch import Patch, stack
from apps.suite.text.drawing import draw_map, draw_masks
from core.overlays import draw

if TYPE_CHECKING:
    from core.pixellm.results import Target

Image = NDArray[np.uint8]

MAP_SIDE = 190  # px


def draw_shown(session: ChatSession) -> Image:
    """The masks that are looked at over the shown picture, RGB(A) uint8 (h, w, 3 or 4)."""
    return draw_masks(session.need_picture().view, session.shown, session.drawing)


def draw_whole(image: Image, turns: Sequence[Told], drawing: Drawing) -> Image:
    """The masks of all turns over the original picture, for files."""
    patches: dict[int, Patch] = {
        one.number: one.mask for told in turns for one in told.said.masks if one.mask is not None
    }
    return draw(
        image,
        stack(list(patches.values()), image.shape[:2]),
        ids=list(patches),
        opacity=drawing.opacity,
        outline=drawing.outline,
        numbers=drawing.numbers,
        background=drawing.background if patches else "image",
    )


def draw_scales(target: Target, size: tuple[int, int]) -> list[Image]:
    """Draw the probabilities of each scale's mask, for a picture of a size (H, W).

    The maps are of the padded square, whose longer side is the picture's.
    """
    pictures = []
    for logits in target.scale_logits:
        height, width = (max(1, round(len(logits) * side / max(size))) for side in size)
        values = np.asarray(logits[:height, :width], np.float32)
        pictures.append(draw_map(1 / (1 + np.exp(-values)), size, MAP_SIDE))
    return pictures
