"""Snap CaR's masks to SAM's (CaR, section 3.4): their outlines are sharper.

SAM's masks come from its everything mode, with no prompt. Letters: n words, M masks of SAM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.car.config import SamMatching

ROWS = 64  # of SAM's masks turned into float32 at once


@dataclass(frozen=True, eq=False)
class Matches:
    """Which of SAM's masks belong to each word.

    Args:
        iom: float32 (n, M), intersection over the smaller mask; not-a-number for an empty word.
        matched: bool (n, M).
        unions: bool (n, H, W), all matched masks of a word together.
        ious: float32 (n,), of the union and the word's mask; not-a-number for an empty word.
    """

    iom: NDArray[np.float32]
    matched: NDArray[np.bool_]
    unions: NDArray[np.bool_]
    ious: NDArray[np.float32]


def match_masks(
    masks: NDArray[np.bool_], sam_masks: NDArray[np.bool_], config: SamMatching
) -> Matches:
    """Match words to SAM's masks; a word that matches none gets the one of highest IoM.

    Args:
        masks: (n, H, W); sam_masks: (M, H, W), M at least 1.
    """
    areas = masks.sum(axis=(1, 2)).astype(np.float32)  # (n,)
    sam_areas = sam_masks.sum(axis=(1, 2)).astype(np.float32)  # (M,)
    intersection = _intersections(masks, sam_masks)  # (n, M)
    inside = intersection / np.maximum(sam_areas, 1)
    cover = intersection / np.maximum(areas, 1)[:, None]
    inside = np.where(cover < config.min_cover, 0, inside)
    iom = np.maximum(inside, cover).astype(np.float32)
    matched = iom > config.iom_threshold
    alone = ~matched.any(axis=1)
    matched[alone, iom[alone].argmax(axis=1)] = True
    matched[areas == 0] = False
    iom[areas == 0] = np.nan

    unions = np.zeros_like(masks)
    for row, union in zip(matched, unions, strict=True):
        np.any(sam_masks[row], axis=0, out=union)
    both = (unions & masks).sum(axis=(1, 2))
    either = (unions | masks).sum(axis=(1, 2))
    ious = np.where(areas > 0, both / np.maximum(either, 1), np.nan).astype(np.float32)
    return Matches(iom, matched, unions, ious)


def snap_masks(
    masks: NDArray[np.bool_], sam_masks: NDArray[np.bool_], config: SamMatching
) -> NDArray[np.bool_]:
    """Replace masks (n, H, W) by the unions of SAM's masks that match them; they may overlap."""
    if not len(masks) or not len(sam_masks):
        return masks
    matches = match_masks(masks, sam_masks, config)
    if config.always_replace:
        return matches.unions
    replaced = np.nan_to_num(matches.ious) > config.iou_threshold
    return np.where(replaced[:, None, None], matches.unions, masks)


def _intersections(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Shared pixels of every mask in a (n, H, W) with every one in b (M, H, W)."""
    flat = a.reshape(len(a), -1).astype(np.float32)
    parts = [
        flat
        @ b[start : start + ROWS].reshape(len(b[start : start + ROWS]), -1).T.astype(np.float32)
        for start in range(0, len(b), ROWS)
    ]
    return np.concatenate(parts, axis=1)
