"""What every degradation shares: the type of a picture, its check, and the way back to bytes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError

Picture = NDArray[np.uint8]  # RGB (H, W, 3), values in [0, 255]
Plane = NDArray[np.float32]  # (H, W)
Size = tuple[int, int]  # (H, W) in pixels


def check_image(image: Any) -> Picture:
    """Return the picture itself, contiguous.

    Raises:
        ImageError: not an RGB uint8 array (H, W, 3) of at least one pixel.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"A {type(image).__name__} cannot be degraded; give an RGB uint8 array (H, W, 3)."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(
            f"An array of type {image.dtype} and shape {image.shape} cannot be degraded; "
            "give an RGB uint8 array (H, W, 3) of at least one pixel."
        )
    return np.ascontiguousarray(image)


def to_picture(values: NDArray[Any]) -> Picture:
    """Clip to [0, 255] and cut off the decimals, as both augmentation libraries do."""
    return np.clip(values, 0, 255).astype(np.uint8)


def look_up(image: NDArray[np.uint8], table: NDArray[Any]) -> NDArray[np.uint8]:
    """Replace every value by its entry of a table (256,), which is clipped and cut off first."""
    return np.asarray(cv2.LUT(image, to_picture(table)), np.uint8)


def resize(array: NDArray[Any], size: Size, interpolation: int) -> NDArray[Any]:
    """Scale an array (h, w) or (h, w, C) to (H, W); uint8 stays uint8."""
    if array.shape[:2] == size:
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interpolation)
