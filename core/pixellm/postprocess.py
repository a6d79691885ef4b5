"""From fused mask logits to masks at the picture's size, and a score for each.

Reference: spec of the published code's ``postprocess_masks``: up to the square input, the padding
cut off, then to the original size; all bilinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.masks import remove_small_regions
from core.pixellm.preprocessing import Geometry


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """How logits become masks.

    Args:
        threshold: logits above it are mask.
        min_area: regions of fewer pixels are dropped (the largest stays), holes of fewer filled.
        exclusive: where several targets of an answer claim a pixel, the highest logit has it.
    """

    threshold: float = 0.0
    min_area: int = 0
    exclusive: bool = False

    def __post_init__(self) -> None:
        if not np.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold}; it must be a number")
        if self.min_area < 0:
            raise ValueError(f"min_area is {self.min_area}; it must not be negative")


def upscale(logits: Tensor, geometry: Geometry) -> Tensor:
    """Bring fused logits (K, h, w) of the square input to the picture's, (K, H, W)."""
    square = (geometry.image_size, geometry.image_size)
    height, width = geometry.input_size
    large = F.interpolate(logits[None].float(), square, mode="bilinear", align_corners=False)
    large = large[..., :height, :width]
    return F.interpolate(large, geometry.original_size, mode="bilinear", align_corners=False)[0]


def to_masks(logits: Tensor, options: MaskOptions | None = None) -> NDArray[np.bool_]:
    """Threshold logits (K, H, W) to masks, bool (K, H, W)."""
    options = options or MaskOptions()
    masks = (logits > options.threshold).cpu().numpy()
    if not options.min_area or not len(masks):
        return masks
    return np.stack([_clean(mask, options.min_area) for mask in masks])


def make_exclusive(masks: NDArray[np.bool_], logits: Tensor, geometry: Geometry) -> None:
    """Leave each pixel that several masks (K, H, W) claim to the one of the highest logit.

    Args:
        masks: changed in place.
        logits: fused logits (K, h, w); one at a time is enlarged, which bounds the memory.
    """
    best = np.full(masks.shape[1:], -np.inf, np.float32)
    owner = np.full(masks.shape[1:], -1, np.int32)
    for index, mask in enumerate(masks):
        values = upscale(logits[index : index + 1], geometry)[0].cpu().numpy()
        wins = mask & (values > best)
        best[wins], owner[wins] = values[wins], index
    masks &= owner == np.arange(len(masks))[:, None, None]


def mask_scores(logits: Tensor) -> Tensor:
    """Mean probability where it is above one half, (K, H, W) -> (K,); 0 for an empty mask."""
    inside = logits > 0
    total = (logits.sigmoid() * inside).flatten(1).sum(dim=1)
    return total / (inside.flatten(1).sum(dim=1) + 1e-6)


def _clean(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    return remove_small_regions(remove_small_regions(mask, min_area, "islands"), min_area, "holes")
