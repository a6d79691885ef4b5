"""Upscale only the part of a mask where something is.

Most masks cover a small part of a picture. Bilinear upscaling is linear and separable, so the
logits of any region are rows @ low_res @ columns^T with two thin matrices; and it never exceeds
the values it interpolates, so a region outside of which all logits lie below a limit is known
beforehand. Equal to ``Geometry.upscale`` up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.sam.geometry import Geometry

# Interpolating a pixel takes a CPU as long as about this many multiply-adds of a matrix product:
# 1.5 ns against 45 a ns on one core with AVX-512.
INTERPOLATION_COST = 64


@dataclass(frozen=True)
class Region:
    """Where a mask lies in the picture (rows y, columns x) and in the low-res logits (v, u)."""

    y: slice
    x: slice
    v: slice
    u: slice


class RegionUpscaler:
    """Upscale low-res logits (side, side) of one picture, region by region."""

    def __init__(self, geometry: Geometry, side: int, device: torch.device) -> None:
        self.size = geometry.original_size
        self._geometry = geometry
        axes = zip(geometry.input_size, geometry.original_size, strict=True)
        self._rows, self._columns = (
            _interpolation_matrix(side, geometry.image_size, crop, out).to(device)
            for crop, out in axes
        )  # (H, side), (W, side)
        self._row_span, self._column_span = _spans(self._rows), _spans(self._columns)

    def regions(self, low_res_logits: Tensor, above: float, margin: int = 0) -> list[Region | None]:
        """Bound where the upscaled logits (n, side, side) can exceed ``above``.

        Args:
            margin: px of the picture added on each side, within its frame.

        Returns:
            n regions, None where nothing exceeds the limit.
        """
        inside = low_res_logits > above
        rows, columns = inside.any(dim=2).cpu().numpy(), inside.any(dim=1).cpu().numpy()
        regions: list[Region | None] = []
        for in_row, in_column in zip(rows, columns, strict=True):
            y = _affected(in_row, self._row_span, margin)
            x = _affected(in_column, self._column_span, margin)
            if y is None or x is None:
                regions.append(None)
                continue
            v, u = _support(y, self._row_span), _support(x, self._column_span)
            regions.append(Region(y, x, v, u))
        return regions

    def upscale(self, low_res_logits: Tensor, region: Region) -> Tensor:
        """Logits (h, w) of a region from one mask's low-res logits (side, side)."""
        if self._is_dear(region):
            full = self._geometry.upscale(low_res_logits[None, None])
            return full[0, 0, region.y, region.x]
        rows = self._rows[region.y, region.v]
        columns = self._columns[region.x, region.u]
        return rows @ low_res_logits[region.v, region.u] @ columns.T

    def mask(self, low_res_logits: Tensor, threshold: float = 0.0) -> NDArray[np.bool_]:
        """Mask (H, W) of low-res logits (side, side), where they exceed the threshold."""
        return self.masks(low_res_logits[None], threshold)[0]

    def masks(self, low_res_logits: Tensor, threshold: float = 0.0) -> NDArray[np.bool_]:
        """Masks (n, H, W) of low-res logits (n, side, side)."""
        # Zeros take no memory before they are written to.
        masks = np.zeros((len(low_res_logits), *self.size), bool)
        regions = self.regions(low_res_logits, threshold)
        for mask, low_res, region in zip(masks, low_res_logits, regions, strict=True):
            if region is not None:
                logits = self.upscale(low_res, region).cpu().numpy()
                np.greater(logits, threshold, out=mask[region.y, region.x])
        return masks

    def _is_dear(self, region: Region) -> bool:
        """Whether the matrix products take longer than interpolating the whole picture."""
        height, width = _length(region.y), _length(region.x)
        products = height * _length(region.u) * (_length(region.v) + width)
        pixels = self.size[0] * self.size[1] + self._geometry.image_size**2
        return products > INTERPOLATION_COST * pixels


@lru_cache(maxsize=8)
def upscaler_for(geometry: Geometry, side: int, device: torch.device) -> RegionUpscaler:
    """The upscaler of a picture, kept from its last prompts if there were any."""
    return RegionUpscaler(geometry, side, device)


def _interpolation_matrix(side: int, image_size: int, crop: int, out: int) -> Tensor:
    """The matrix (out, side) of one axis of ``Geometry.upscale``."""
    matrix = torch.eye(side)[None, None]
    matrix = F.interpolate(matrix, (image_size, side), mode="bilinear", align_corners=False)
    matrix = matrix[:, :, :crop]
    return F.interpolate(matrix, (out, side), mode="bilinear", align_corners=False)[0, 0]


def _spans(matrix: Tensor) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last low-res index that each output index depends on; both never decrease."""
    used = matrix.cpu().numpy() != 0
    return used.argmax(axis=1), used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)


def _affected(
    inside: NDArray[np.bool_], span: tuple[NDArray[np.intp], NDArray[np.intp]], margin: int
) -> slice | None:
    """Output indices that depend on a low-res index which is inside, widened by the margin."""
    where = np.flatnonzero(inside)
    if not len(where):
        return None
    first, last = span
    start = int(np.searchsorted(last, where[0]))
    stop = int(np.searchsorted(first, where[-1], side="right"))
    if start >= stop:  # in the padding below or right of the picture
        return None
    return slice(max(0, start - margin), min(len(first), stop + margin))


def _support(out: slice, span: tuple[NDArray[np.intp], NDArray[np.intp]]) -> slice:
    return slice(int(span[0][out.start]), int(span[1][out.stop - 1]) + 1)


def _length(part: slice) -> int:
    return part.stop - part.start
