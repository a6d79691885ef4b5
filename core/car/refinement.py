"""Attention-based refinement of the maps (class-aware affinity of CLIP-ES).

M_aff = B · A^t · vec(M) with t = 2 (CaR, section 3.2): the affinity A comes from the image tower's
attention and is the same for all words and steps; only the box mask B is a word's own.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SINKHORN_ROUNDS = 3


def make_affinity(attention: Tensor) -> Tensor:
    """Make averaged attention (n, n) doubly stochastic and symmetric."""
    affinity = attention.float()
    for _ in range(SINKHORN_ROUNDS):
        affinity = affinity / affinity.sum(dim=0, keepdim=True)
        affinity = affinity / affinity.sum(dim=1, keepdim=True)
    return (affinity + affinity.T) / 2


def refine_maps(affinity: Tensor, maps: Tensor, boxes: Tensor) -> Tensor:
    """Spread what the maps have inside their boxes along the affinity, twice.

    Two products with (n, N) instead of the square of the affinity, which costs n³.

    Args:
        affinity: (n, n). maps: (N, h, w). boxes: (N, h, w), 0 or 1.

    Returns:
        (N, h, w), not normalised.
    """
    columns = (maps * boxes).flatten(1).T  # (n, N)
    return (affinity @ (affinity @ columns)).T.reshape(maps.shape)


def box_masks(maps: Tensor, threshold: float, *, short_boxes: bool = False) -> Tensor:
    """Boxes around the parts of each map above λ times its maximum, filled.

    Args:
        maps: (N, h, w) in [0, 1].
        threshold: λ; lowered in steps of 0.1 where nothing is above it.
        short_boxes: keep the last row and column of the grid out, as published.

    Returns:
        float32 (N, h, w), 0 or 1; all 0 for an empty map.
    """
    masks = [_box_mask(one, threshold, short_boxes) for one in maps.cpu().numpy()]
    return torch.from_numpy(np.stack(masks)).to(maps)


def _box_mask(one: NDArray[np.float32], threshold: float, short: bool) -> NDArray[np.float32]:
    height, width = one.shape
    levels = (one * 255).astype(np.uint8)
    mask = np.zeros(one.shape, np.float32)
    # A box lies within that of the part around it, so components serve as well as contours.
    _, _, stats, _ = cv2.connectedComponentsWithStats(_above(levels, threshold), connectivity=8)
    for x, y, box_width, box_height, _ in stats[1:]:
        x1 = min(x + box_width, width - 1) if short else x + box_width
        y1 = min(y + box_height, height - 1) if short else y + box_height
        mask[y:y1, x:x1] = 1
    return mask


def _above(levels: NDArray[np.uint8], threshold: float) -> NDArray[np.uint8]:
    highest = int(levels.max())
    binary = (levels > int(threshold * highest)).astype(np.uint8)
    while threshold > 0 and not binary.any():
        threshold -= 0.1
        binary = (levels > int(threshold * highest)).astype(np.uint8)
    return binary


def resize_map(one: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge a map (h, w) bilinearly to (H, W)."""
    return cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
