"""The same cut of a picture and of its mask: resize, crop that keeps the subject, mirror.

Letters: S side of the training picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.dreambooth.randomness import random_below

TRIES = 10  # random crops before the crop is centred on the subject
KEPT_SHARE = 0.5  # of the subject that a crop has to hold


@dataclass(frozen=True)
class Crop:
    """Where a training picture comes from.

    Args:
        resized: (H, W) that the picture is resized to, its shorter side being S.
        top, left: of the S×S crop, px of the resized picture.
        side: S.
        flipped: mirrored left to right, after cropping.
    """

    resized: tuple[int, int]
    top: int
    left: int
    side: int
    flipped: bool = False


def choose_crop(
    mask: NDArray[np.bool_],
    side: int,
    generator: torch.Generator,
    *,
    random_crop: bool = True,
    flip: bool = False,
) -> Crop:
    """Choose a crop that holds at least half of the mask's area.

    Random ones are tried first, or the central one; else it is centred on the mask's centroid. Of
    a subject that is larger than any crop, half of what the centred one holds is enough.

    Args:
        mask: bool (H, W), not empty.
        side: S.
        random_crop: else the central crop is tried.
    """
    height, width = mask.shape
    scale = side / min(height, width)
    resized = (max(side, round(height * scale)), max(side, round(width * scale)))
    room = (resized[0] - side, resized[1] - side)
    flipped = flip and random_below(2, generator) == 1
    centred = _centred(mask, resized, side, flipped)
    needed = KEPT_SHARE * kept_share(mask, centred)
    for _ in range(TRIES if random_crop and any(room) else 1):
        top, left = (
            random_below(free + 1, generator) if random_crop else free // 2 for free in room
        )
        crop = Crop(resized, top, left, side, flipped)
        if kept_share(mask, crop) >= needed:
            return crop
    return centred


def kept_share(mask: NDArray[np.bool_], crop: Crop) -> float:
    """Share of a mask's area (H, W) that lies inside a crop."""
    rows, columns = _window(mask.shape, crop)
    return float(mask[rows, columns].sum() / max(mask.sum(), 1))


def cut(planes: Tensor, crop: Crop) -> Tensor:
    """Resize (C, H, W) bilinearly, averaging where it shrinks, and crop to (C, S, S)."""
    if tuple(planes.shape[1:]) != crop.resized:
        planes = F.interpolate(
            planes[None], crop.resized, mode="bilinear", align_corners=False, antialias=True
        )[0]
    part = planes[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    return part.flip(-1) if crop.flipped else part


def cut_picture(image: NDArray[np.uint8], crop: Crop) -> Tensor:
    """Cut an RGB uint8 picture (H, W, 3): float32 (3, S, S) in [-1, 1]."""
    planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    return cut(planes, crop).clamp(0, 255) / 127.5 - 1


def cut_mask(mask: NDArray[np.bool_], crop: Crop) -> Tensor:
    """Cut a mask (H, W): float32 (1, S, S) in [0, 1], soft at its edge."""
    return cut(torch.from_numpy(mask.astype(np.float32))[None], crop).clamp(0, 1)


def _window(size: tuple[int, ...], crop: Crop) -> tuple[slice, slice]:
    """A crop's rows and columns in the picture before resizing."""
    bounds = []
    for start, old, new in zip((crop.top, crop.left), size, crop.resized, strict=True):
        bounds.append(slice(round(start * old / new), round((start + crop.side) * old / new)))
    return bounds[0], bounds[1]


def _centred(mask: NDArray[np.bool_], resized: tuple[int, int], side: int, flipped: bool) -> Crop:
    """The crop around a mask's centroid; around the pixel next to that if it holds nothing."""
    pixels = np.argwhere(mask) + 0.5  # (n, 2)
    centroid = pixels.mean(axis=0)
    crop = _around(centroid, mask.shape, resized, side, flipped)
    if kept_share(mask, crop) > 0:
        return crop
    # The centroid of parts that lie far from each other is on none of them.
    nearest = pixels[((pixels - centroid) ** 2).sum(axis=1).argmin()]
    return _around(nearest, mask.shape, resized, side, flipped)


def _around(
    centre: NDArray[np.float64],
    size: tuple[int, ...],
    resized: tuple[int, int],
    side: int,
    flipped: bool,
) -> Crop:
    """The crop around a pixel of the picture before resizing, moved inside."""
    top, left = (
        min(max(round(float(place) * new / old - side / 2), 0), new - side)
        for place, old, new in zip(centre, size, resized, strict=True)
    )
    return Crop(resized, top, left, side, flipped)
