"""Degradations that move pixels, and the displacement that lets a mask move along.

The elastic transform is albumentations 1.3.1 `ElasticTransform`, as the augmentation script of
RobustSAM (Chen et al., CVPR 2024) uses it. Pictures are RGB uint8 (H, W, 3), coordinates pixels,
x then y.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.arrays import Picture, Plane, Size, resize
from core.errors import ImageError
from core.masks import Mask

_COARSE_SIGMA = 2.5  # grid steps; a Gaussian of this width survives cubic interpolation


class Displacement(NamedTuple):
    """Where each pixel of a moved picture comes from.

    Args:
        map_x, map_y: float32 (H, W), source coordinates inside the frame.
    """

    map_x: Plane
    map_y: Plane

    def move_mask(self, mask: Mask) -> Mask:
        """Move a mask (H, W) as the picture was moved; a pixel more than half covered counts.

        Raises:
            ImageError: the mask has another size than the picture.
        """
        if mask.shape != self.map_x.shape:
            raise ImageError(
                f"A mask of shape {mask.shape} does not fit a picture of {self.map_x.shape}; "
                "give a bool array (H, W) of the picture's size."
            )
        source = np.ascontiguousarray(mask, np.float32)
        moved = cv2.remap(
            source, self.map_x, self.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return moved > 0.5


def elastic_transform(image: Picture, matrix: NDArray[np.float64], dx: Plane, dy: Plane) -> Picture:
    """Warp by an affine map, then by a smooth field; bilinear, edges reflected.

    I1 = I warped by the matrix, I2(x, y) = I1(x + dx, y + dy). The published code leaves the mask
    where it was; `elastic_displacement` moves it along.

    Args:
        matrix: (2, 3), from source to target coordinates.
        dx, dy: pixels (H, W).
    """
    height, width = image.shape[:2]
    warped = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    map_x, map_y = _grid(dx, dy)
    moved = cv2.remap(warped, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def elastic_displacement(matrix: NDArray[np.float64], dx: Plane, dy: Plane) -> Displacement:
    """Say from where `elastic_transform` takes each pixel, both warps in one."""
    height, width = dx.shape
    map_x, map_y = _grid(dx, dy)
    x, y = _reflect(map_x, width), _reflect(map_y, height)
    (a, b, c), (d, e, f) = cv2.invertAffineTransform(matrix).astype(np.float32)
    return Displacement(_reflect(a * x + b * y + c, width), _reflect(d * x + e * y + f, height))


def affine_matrix(size: Size, offsets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the (2, 3) map that moves three points around the centre by offsets (3, 2).

    With c = (H // 2, W // 2) and s = min(H, W) // 3 the points are c + s, (c0 + s, c1 - s), c - s.
    The centre is not swapped to (x, y), as in the published code. In pictures so small that the
    points would change places, offsets are cut to a third of s.
    """
    centre, reach = np.array([size[0] // 2, size[1] // 2], np.float32), min(size) // 3
    if reach == 0:
        return np.eye(2, 3)
    corners = np.array([[reach, reach], [reach, -reach], [-reach, -reach]], np.float32)
    points = centre + corners
    moved = points + np.clip(offsets, -reach / 3, reach / 3).astype(np.float32)
    return np.asarray(cv2.getAffineTransform(points, moved), np.float64)


def smooth(noise: Plane, sigma: float) -> Plane:
    """Blur a noise field (H, W) by a Gaussian cut off at 4 sigma, edges mirrored.

    SciPy's `gaussian_filter` to 1e-6, at a fraction of its time.
    """
    side = 2 * int(4 * sigma + 0.5) + 1
    blurred = cv2.GaussianBlur(noise, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


def smooth_noise(size: Size, sigma: float, random: np.random.Generator) -> Plane:
    """Draw U(-1, 1) noise (H, W) blurred by `sigma` pixels.

    A wide blur is worked out on a coarse grid: averaging n x n pixels of white noise leaves 1/n
    of its deviation, which cancels against the n times narrower blur.
    """
    step = max(1, int(sigma / _COARSE_SIGMA))
    coarse = -(-size[0] // step), -(-size[1] // step)
    noise = random.random(coarse, np.float32) * 2 - 1
    return resize(smooth(noise, sigma / step) / step, size, cv2.INTER_CUBIC).astype(np.float32)


def _grid(dx: Plane, dy: Plane) -> tuple[Plane, Plane]:
    height, width = dx.shape
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    return x + dx, y + dy


def _reflect(coordinates: Plane, length: int) -> Plane:
    """Mirror coordinates at the first and last of `length` pixels; clamp those farther out."""
    last = np.float32(length - 1)
    return np.clip(last - np.abs(last - np.abs(coordinates)), 0, last)
