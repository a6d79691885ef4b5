"""How a picture is shown and clicked: the copy for the browser, and the way back from clicks.

Large pictures are shown scaled down, small ones enlarged by a whole factor (a 60×40 px picture
would be a 60×40 px spot on the page). Results always have the original size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import gradio as gr
import numpy as np
from gradio.data_classes import ImageData
from numpy.typing import NDArray

from core.errors import ImageError
from core.images import fit_within
from core.settings import settings

SMALLEST_SIDE = 640  # px, of the longer side as shown


class Picture(gr.Image):
    """An image component that hands over the uploaded file untouched.

    gr.Image opens the file before the listener runs, so that a file that is no picture ends in
    an error without a sentence; here `core.images.load` sees it first.
    """

    is_template = True

    def preprocess(self, payload: ImageData | None) -> str | None:
        if payload is None:
            return None
        if payload.path is None:
            raise gr.Error("The picture has to be uploaded as a file.", print_exception=False)
        return str(payload.path)


@dataclass(frozen=True, eq=False)
class View:
    """A picture as the browser shows it.

    Args:
        image: RGB uint8 (h, w, 3), what is shown.
        size: (H, W) of the original.
    """

    image: NDArray[np.uint8]
    size: tuple[int, int]

    @classmethod
    def of(cls, image: NDArray[np.uint8], working_side: int | None = None) -> View:
        """Make the shown copy of a picture, RGB uint8 (H, W, 3)."""
        shown = fit_within(image, working_side or settings.working_side)
        long_side = max(shown.shape[:2])
        if long_side < SMALLEST_SIDE:
            factor = math.ceil(SMALLEST_SIDE / long_side)
            shown = np.repeat(np.repeat(shown, factor, axis=0), factor, axis=1)
        return cls(np.ascontiguousarray(shown), (image.shape[0], image.shape[1]))

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Shown pixels per original pixel, in x and y."""
        height, width = self.image.shape[:2]
        return width / self.size[1], height / self.size[0]

    def to_original(self, x: float, y: float) -> tuple[float, float]:
        """Return the original pixel coordinates of the middle of a shown pixel.

        Raises:
            ImageError: not a finite place.
        """
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ImageError("That place is not in the picture; click inside it.")
        scale_x, scale_y = self.scale_xy
        original_x = min(max((x + 0.5) / scale_x - 0.5, 0.0), self.size[1] - 1.0)
        original_y = min(max((y + 0.5) / scale_y - 0.5, 0.0), self.size[0] - 1.0)
        return round(original_x, 2), round(original_y, 2)

    def to_shown(self, coords: Sequence[Any] | NDArray[Any], corners: bool = False) -> NDArray:
        """Scale original coordinates (N, 2), pixel middles or corners (box edges), to shown ones.

        Returns:
            float (N, 2) as x, y.
        """
        places = np.asarray(coords, dtype=np.float64).reshape(-1, 2)
        scale = np.array(self.scale_xy)
        return places * scale if corners else (places + 0.5) * scale - 0.5

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Resize a mask (H, W) to the shown size."""
        height, width = self.image.shape[:2]
        if mask.shape == (height, width):
            return mask
        shrinks = height < mask.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST_EXACT
        grey = mask.astype(np.uint8) * np.uint8(255)
        return cv2.resize(grey, (width, height), interpolation=method) > 127


def grey_png(values: NDArray[np.floating]) -> bytes:
    """Encode a map (H, W) in [0, 1] as 8-bit single-channel PNG."""
    return cv2.imencode(".png", np.rint(255 * values).astype(np.uint8))[1].tobytes()
