"""The published losses on masks and words (paper, section 3).

L = L_txt + λ_ref · L_ref + λ_dice · L_dice. The released training step has weights 1, 2 and 0.5
and plain binary cross-entropy in L_ref's place.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEXT_WEIGHT = 1.0
MASK_WEIGHT = 2.0  # λ_ref
DICE_WEIGHT = 0.5  # λ_dice
DICE_SCALE = 1000.0  # sums are divided by it before the smoothing term is added
DICE_SMOOTHING = 1e-6
OVERLAP_WEIGHT = 2.0  # α; the paper's own value could not be established
IGNORED = -100  # label of tokens that do not count: question, picture, padding


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the next token over answer tokens, a scalar; 0 if there is none.

    Args:
        logits: (B, T, V).
        labels: (B, T) ids of the same positions, ``IGNORED`` where no loss is due; shifted here.
    """
    predicted, wanted = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    total = F.cross_entropy(predicted.float(), wanted, ignore_index=IGNORED, reduction="sum")
    return total / (wanted != IGNORED).sum().clamp(min=1)


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, mean over each mask's pixels, (K, H, W) -> (K,)."""
    losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return losses.flatten(1).mean(dim=1)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - 2·Σpt / (Σp + Σt), (K, H, W) -> (K,)."""
    probability = logits.sigmoid().flatten(1)
    truth = targets.to(probability.dtype).flatten(1)
    overlap = 2 * (probability * truth / DICE_SCALE).sum(dim=1)
    total = (probability / DICE_SCALE).sum(dim=1) + (truth / DICE_SCALE).sum(dim=1)
    return 1 - (overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


def overlap_weights(
    logits: Tensor, questions: Tensor | None = None, alpha: float = OVERLAP_WEIGHT
) -> Tensor:
    """The map A of the target-refinement loss: α where two or more masks of a question overlap.

    Args:
        logits: (K, H, W); above 0 is mask.
        questions: int (K,), which question each target answers; None: all the same.

    Returns:
        (K, H, W), 1 elsewhere.
    """
    masks = (logits.detach() > 0).to(logits.dtype)
    if questions is None:
        questions = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    same = (questions[:, None] == questions[None, :]).to(masks.dtype)  # (K, K)
    claims = torch.einsum("kj,jhw->khw", same, masks)  # masks of the question at each pixel
    return torch.where(claims >= 2, alpha, 1.0)


def target_refinement_loss(
    logits: Tensor,
    targets: Tensor,
    questions: Tensor | None = None,
    alpha: float = OVERLAP_WEIGHT,
) -> Tensor:
    """Cross-entropy weighted where targets get in each other's way, (K, H, W) -> scalar.

    Mean over targets and pixels. α = 1 gives plain cross-entropy.
    """
    if not len(logits):
        return logits.sum()
    weights = overlap_weights(logits, questions, alpha)
    losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return (weights * losses).mean()


def total_loss(
    text: Tensor,
    logits: Tensor,
    targets: Tensor,
    questions: Tensor | None = None,
    alpha: float = OVERLAP_WEIGHT,
) -> Tensor:
    """Everything that is trained for: words, masks of (K, H, W) logits, and dice; a scalar."""
    dice = dice_loss(logits, targets).mean() if len(logits) else logits.sum()
    refinement = target_refinement_loss(logits, targets, questions, alpha)
    return TEXT_WEIGHT * text + MASK_WEIGHT * refinement + DICE_WEIGHT * dice
