"""Losses of promptable segmentation: SAM's own, and the auxiliary ones of the embedded encoder.

SAM's paper (appendix A) names focal and dice loss at 20:1 and a mean-square loss of the
predicted IoU; the constants are those of its authors' later training code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
FOCAL_WEIGHT = 20.0
AFFINITY_SCALE = 8.0


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean sigmoid focal loss over the last two axes, (..., H, W) -> (...)."""
    targets = targets.expand_as(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = torch.exp(-cross_entropy)  # probability given to the truth
    weight = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return (weight * (1 - miss) ** FOCAL_GAMMA * cross_entropy).mean(dim=(-2, -1))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft dice loss over the last two axes, (..., H, W) -> (...).

    The intersection is (p + t - |p - t|) / 2, a soft L1 form.
    """
    probability = logits.sigmoid()
    total = (probability + targets).sum(dim=(-2, -1))
    overlap = total - (probability - targets).abs().sum(dim=(-2, -1))
    return 1 - (overlap + 1) / (total + 1)


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """SAM's mask loss, focal and dice at 20:1, (..., H, W) -> (...)."""
    return FOCAL_WEIGHT * focal_loss(logits, targets) + dice_loss(logits, targets)


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of the thresholded logits with the truth, (..., H, W) -> (...), union at least 1."""
    predicted, truth = logits > 0, targets > 0.5
    intersection = (predicted & truth).sum(dim=(-2, -1))
    return intersection / (predicted | truth).sum(dim=(-2, -1)).clamp(min=1)


def cell_affinity_loss(image_embedding: Tensor, cell_ids: Tensor) -> Tensor:
    """Ask cosine similarity of embedding cells to say "same object".

    Binary cross-entropy over all pairs in which one cell lies on an object, pairs of the same
    object and pairs of different ones weighted equally. It halves the time to a given quality,
    and prompts that search by similarity (PerSAM) rely on what it teaches.

    Args:
        image_embedding: (B, C, g, g).
        cell_ids: int (B, g, g), 0 background, else the object that covers the cell.
    """
    features = F.normalize(image_embedding.float().flatten(2), dim=1)  # (B, C, N)
    similarity = torch.einsum("bcn,bcm->bnm", features, features)
    ids = cell_ids.flatten(1)
    on_object = ids > 0
    same = (ids[:, :, None] == ids[:, None, :]) & on_object[:, None, :]
    either = on_object[:, :, None] | on_object[:, None, :]
    return _affinity_loss(similarity, same, either)


def pixel_affinity_loss(pixel_embedding: Tensor, ids: Tensor, queries: Tensor) -> Tensor:
    """Ask cosine similarity of pixel embeddings to say "same object", for some query pixels.

    The cheapest promptable model there is: one dot product per pixel. It teaches the encoder
    every outline of a picture at once, where the decoder learns from a few prompts.

    Args:
        pixel_embedding: (B, D, H, W).
        ids: int (B, H, W).
        queries: int (B, Q) flat positions.
    """
    flat, flat_ids = F.normalize(pixel_embedding.float().flatten(2), dim=1), ids.flatten(1)
    query = flat.gather(2, queries[:, None].expand(-1, flat.shape[1], -1))  # (B, D, Q)
    similarity = torch.einsum("bdq,bdn->bqn", query, flat)
    same = flat_ids.gather(1, queries)[:, :, None] == flat_ids[:, None, :]  # (B, Q, N)
    return _affinity_loss(similarity, same, torch.ones_like(same))


def _affinity_loss(similarity: Tensor, same: Tensor, counted: Tensor) -> Tensor:
    """Balanced cross-entropy of "same" against cosine similarity, decided at 0.5."""
    logits = AFFINITY_SCALE * (similarity - 0.5)
    losses = F.binary_cross_entropy_with_logits(logits, same.float(), reduction="none")
    different = counted & ~same
    positive = (losses * same).sum() / same.sum().clamp(min=1)
    negative = (losses * different).sum() / different.sum().clamp(min=1)
    return (positive + negative) / 2
