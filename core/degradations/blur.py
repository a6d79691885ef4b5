"""Blurs: lost resolution, motion, zoom and frosted glass. Pictures are RGB uint8 (H, W, 3).

`resampling_blur` and `frosted_glass_blur` are the augmentation script's own of RobustSAM (Chen et
al., CVPR 2024); `motion_blur` and `zoom_blur` are albumentations 1.3.1 `MotionBlur` and `ZoomBlur`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.arrays import Picture, Plane, Size, resize
from core.degradations.filtering import correlate
from core.degradations.geometry import Displacement


def resampling_blur(image: Picture, factor: float) -> Picture:
    """Scale down to (int(W / factor), int(H / factor)) and up again, both bilinear; published 4."""
    height, width = image.shape[:2]
    small = max(1, int(height / factor)), max(1, int(width / factor))
    return resize(resize(image, small, cv2.INTER_LINEAR), (height, width), cv2.INTER_LINEAR)


def motion_blur(image: Picture, kernel: Plane) -> Picture:
    """Average along a line: correlate with a kernel (k, k), k odd, of sum 1; edges reflected."""
    return correlate(image, kernel)


def line_kernel(size: int, start: tuple[int, int], end: tuple[int, int]) -> Plane:
    """Draw a line one pixel thick between two points (x, y) of a (size, size) kernel, of sum 1.

    As published, where both points are random. A line off the centre also shifts the picture, by
    up to half the kernel.
    """
    line = np.zeros((size, size), np.uint8)
    cv2.line(line, start, end, 1, thickness=1)
    return line.astype(np.float32) / line.sum(dtype=np.float32)


def centred_line_kernel(length_px: float, angle: float) -> Plane:
    """Draw a line of any length and direction through the kernel's centre, of sum 1.

    Lengths between whole pixels count, and the picture stays where it is.

    Args:
        length_px: at least 1; 1 does not blur.
        angle: radians, 0 horizontal.
    """
    reach = math.ceil(max(length_px - 1, 0) / 2)
    taps = np.linspace(-1, 1, 8 * reach + 1) * (length_px - 1) / 2
    x, y = reach + taps * math.cos(angle), reach + taps * math.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):  # each tap to its four pixels, bilinearly
        share = (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
        np.add.at(kernel, (top + dy, left + dx), share)
    kernel = kernel[:-1, :-1]
    return (kernel / kernel.sum()).astype(np.float32)


def zoom_blur(image: Picture, factors: Iterable[float]) -> Picture:
    """Average the picture with enlargements of its centre: I' = (I + Σ zoom_z(I)) / (n + 1).

    Args:
        factors: n zooms z of at least 1; published arange(1, U(1, 1.33), U(0.05, 0.07)).
    """
    total = image.astype(np.float32)
    count = 1
    for factor in factors:
        cv2.accumulate(_central_zoom(image, factor), total)
        count += 1
    return (total / np.float32(count)).astype(np.uint8)


def _central_zoom(image: Picture, factor: float) -> Picture:
    """Enlarge the middle part of a picture to its whole frame, bilinearly."""
    height, width = image.shape[:2]
    part = math.ceil(height / factor), math.ceil(width / factor)
    # At least the frame: the product can fall short of it by rounding alone.
    whole = max(height, int(part[0] * factor)), max(width, int(part[1] * factor))
    crop = _centre(image, part)
    return _centre(resize(crop, whole, cv2.INTER_LINEAR), (height, width))


def _centre(image: Picture, size: Size) -> Picture:
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def frosted_glass_blur(image: Picture, offsets: NDArray[np.integer]) -> Picture:
    """Copy every pixel from a random neighbour: I'(p) = I(clamp(p + offset)).

    Args:
        offsets: whole pixels (H, W, 2) as (x, y); published uniform in -3..3.
    """
    x, y = _sources(offsets)
    height, width = image.shape[:2]
    return image.reshape(height * width, 3)[y * width + x]


def glass_offsets(size: Size, reach_px: float, random: np.random.Generator) -> NDArray[np.int16]:
    """Draw whole offsets (H, W, 2), uniform in -reach..reach.

    A reach between whole numbers makes the farthest offsets rarer in proportion.
    """
    share = random.random((*size, 2), np.float32)  # of the width of rounding cells, 2 reach + 1
    return np.floor(share * np.float32(2 * reach_px + 1) - np.float32(reach_px)).astype(np.int16)


def glass_displacement(offsets: NDArray[np.integer]) -> Displacement:
    """Say from where `frosted_glass_blur` takes each pixel."""
    x, y = _sources(offsets)
    return Displacement(x.astype(np.float32), y.astype(np.float32))


def _sources(offsets: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Source coordinates x and y (H, W), clamped at the border."""
    height, width = offsets.shape[:2]
    x = np.arange(width, dtype=np.int32) + offsets[..., 0]
    y = np.arange(height, dtype=np.int32)[:, None] + offsets[..., 1]
    return np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
