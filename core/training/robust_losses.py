"""RobustSAM's four losses (paper, section 3.3), as its released training computes them.

Dice and focal of the mask from the degraded picture; mean squared distances of its fused mask
features and of its output tokens from those of the clear picture. The weights are not in the
paper; they are those of the released code: 100 features, 2 tokens, 1 dice, 20 focal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FEATURE_WEIGHT, TOKEN_WEIGHT, DICE_WEIGHT, FOCAL_WEIGHT = 100.0, 2.0, 1.0, 20.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
SMOOTH = 1e-6


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = FOCAL_ALPHA) -> Tensor:
    """Focal loss over the last two axes, (..., H, W) -> (...).

    Alpha is a constant factor here, the same for both classes.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = 1 - torch.exp(-cross_entropy)
    return (alpha * miss**FOCAL_GAMMA * cross_entropy).mean(dim=(-2, -1))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - Dice of probabilities over the last two axes, (..., H, W) -> (...); 1 if no target."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * targets).sum(dim=(-2, -1)) + SMOOTH
    total = probability.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1)) + SMOOTH
    return 1 - overlap / total


def segmentation_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice and focal with their weights, (..., H, W) -> (...)."""
    targets = targets.expand_as(logits)
    dice, focal = dice_loss(logits, targets), focal_loss(logits, targets)
    return DICE_WEIGHT * dice + FOCAL_WEIGHT * focal


def consistency_loss(
    features: Tensor, clear_features: Tensor, tokens: Tensor, clear_tokens: Tensor
) -> Tensor:
    """Distance from the clear picture's fused features and output tokens, with their weights."""
    by_feature = F.mse_loss(features, clear_features)
    return FEATURE_WEIGHT * by_feature + TOKEN_WEIGHT * F.mse_loss(tokens, clear_tokens)
