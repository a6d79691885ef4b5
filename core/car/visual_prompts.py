"""Show a mask to the classifier by drawing on the picture (CaR, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from core.car.config import VisualPrompt
from core.masks import mask_to_box

RED = (255, 0, 0)
THICKNESS = 1
BLUR_KERNEL = (15, 15)  # OpenCV derives a standard deviation of 2.6 px from it


class VisualPrompter:
    """Draws masks on one picture; what does not hang on the mask is done once.

    Args:
        image: RGB uint8 (H, W, 3).
        prompts: any number of kinds. They are applied in a fixed order, whatever theirs is:
            blur, gray, black (outside of the mask), then circle, rectangle, contour.
    """

    def __init__(self, image: NDArray[np.uint8], prompts: Sequence[VisualPrompt]) -> None:
        self.image = image
        self.prompts = frozenset(prompts)
        self.outside = self._draw_outside()

    def draw(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Draw a mask (H, W), which may be empty; RGB uint8 (H, W, 3), a new array."""
        picture = np.where(mask[:, :, None], self.image, self.outside)
        if not mask.any():
            return picture
        if "circle" in self.prompts:
            centre, (width, height) = _centroid_and_size(mask)
            cv2.ellipse(picture, centre, (width // 2, height // 2), 0, 0, 360, RED, THICKNESS)
        if "rectangle" in self.prompts:
            (x, y), (width, height) = _centroid_and_size(mask)
            x0, y0 = x - width // 2, y - height // 2
            cv2.rectangle(picture, (x0, y0), (x0 + width, y0 + height), RED, THICKNESS)
        if "contour" in self.prompts:
            # Outer contours only: holes count as filled.
            contours, _ = cv2.findContours(
                mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
            )
            cv2.drawContours(picture, contours, -1, RED, THICKNESS)
        return picture

    def _draw_outside(self) -> NDArray[np.uint8]:
        outside = self.image
        if "blur" in self.prompts:
            outside = cv2.GaussianBlur(outside, BLUR_KERNEL, 0).astype(np.uint8, copy=False)
        if "gray" in self.prompts:
            # Weights of BGR on RGB, as published: gray = 0.114 R + 0.587 G + 0.299 B.
            gray = cv2.cvtColor(outside, cv2.COLOR_BGR2GRAY)
            outside = np.repeat(gray[:, :, None], 3, axis=2).astype(np.uint8, copy=False)
        if "black" in self.prompts:
            outside = np.zeros_like(outside)
        return outside


def _centroid_and_size(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], tuple[int, int]]:
    ys, xs = np.nonzero(mask)
    x0, y0, x1, y1 = (int(value) for value in mask_to_box(mask))
    return (int(xs.mean()), int(ys.mean())), (x1 - x0, y1 - y0)
