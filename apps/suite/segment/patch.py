"""A mask kept as the part of it that is not empty: many of them fit in a visitor's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.masks import area, mask_to_box


@dataclass(frozen=True, eq=False)
class Patch:
    """A mask bool (H, W), cut to its box.

    Args:
        size: (H, W) of the whole.
        x, y: of the crop's top left pixel.
        crop: bool (h, w).
        area: pixels of the mask.
    """

    size: tuple[int, int]
    x: int
    y: int
    crop: NDArray[np.bool_]
    area: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Patch:
        """Cut out a copy, so that the whole mask can go."""
        x0, y0, x1, y1 = (int(value) for value in mask_to_box(mask))
        crop = mask[y0:y1, x0:x1].copy()
        return cls((mask.shape[0], mask.shape[1]), x0, y0, crop, area(crop))

    def full(self) -> NDArray[np.bool_]:
        """The mask at its whole size, bool (H, W)."""
        mask = np.zeros(self.size, bool)
        height, width = self.crop.shape
        mask[self.y : self.y + height, self.x : self.x + width] = self.crop
        return mask

    @property
    def share(self) -> float:
        """Of the picture, in [0, 1]."""
        return self.area / (self.size[0] * self.size[1])


def stack(patches: Sequence[Patch], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks bool (N, H, W) at their whole size; (0, H, W) of none."""
    masks = np.zeros((len(patches), *size), bool)
    for mask, patch in zip(masks, patches, strict=True):
        height, width = patch.crop.shape
        mask[patch.y : patch.y + height, patch.x : patch.x + width] = patch.crop
    return masks


def union(patches: Sequence[Patch]) -> Patch:
    """All of several masks of one size."""
    return Patch.of(np.logical_or.reduce([patch.full() for patch in patches]))
