"""What the embedded PixelLM learns by, besides the published losses.

The published ones reach the pixel decoder through the language model only, which knows nothing at
first: in half an hour masks came to an IoU of 0.2. A decoder whose prompts are the mean features
of things makes good masks after four minutes, and its prompts are what the language model then
aims at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from core.training.clip_losses import FREE
from core.training.losses import AFFINITY_SCALE

OWN = 0.5  # share of a cell that makes it a thing's
PICKING_SCALE = 10.0  # of cosines between prompts and things


def guides(grids: Sequence[Tensor], own: Tensor) -> Tensor:
    """Prompts that mean things by what is there: their mean features, (K, L, C).

    With them the decoder learns to make masks before any word is known, and the language model
    has something to aim at.

    Args:
        grids: (K, C, h_l, w_l) of each scale.
        own: (K, S, S), 1 on the thing.
    """
    prompts = []
    for grid in grids:
        share = F.adaptive_avg_pool2d(own, grid.shape[-1])
        share = share / share.sum(dim=(1, 2), keepdim=True).clamp(min=1e-6)
        prompts.append(torch.einsum("kchw,khw->kc", grid.float(), share))
    return torch.stack(prompts, dim=1)


def guidance_loss(prompts: Tensor, wanted: Tensor) -> Tensor:
    """Distance of prompts (K, L, C) from those that would do, in units of their deviation."""
    scale = wanted.std().clamp(min=1e-3)
    return F.smooth_l1_loss(prompts.float() / scale, wanted / scale)


def pointing_loss(vectors: Tensor, features: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Ask a target's vector to be like the features of its object, and unlike all others.

    The cheapest decoder there is. The two-way transformers find objects by such products, too, and
    take long to learn it from masks alone. Target, other objects and background weigh the same.

    Args:
        vectors: (K, C), of scale 0.
        features: (K, C, g, g), of scale 0.
        own, others: (K, S, S), 1 on the target and on other objects.
    """
    similarity = torch.einsum(
        "kc,kchw->khw", F.normalize(vectors.float(), dim=1), F.normalize(features.float(), dim=1)
    )
    shares = [F.adaptive_avg_pool2d(one, features.shape[-1]) for one in (own, others)]
    inside, elsewhere = (share > OWN for share in shares)
    background = shares[0] + shares[1] < FREE
    logits = AFFINITY_SCALE * (similarity - 0.5)
    losses = F.binary_cross_entropy_with_logits(logits, inside.float(), reduction="none")
    groups = (inside, elsewhere, background)
    return torch.stack([losses[one].sum() / one.sum().clamp(min=1) for one in groups]).sum()


def thing_features(grid: Tensor, cover: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean features of all things of each picture, and last of where there is none.

    Args:
        grid: (B, C, g, g).
        cover: share of each cell that each thing covers, (B, g·g, n).
        classes: (B, n), -1 where there is no thing.

    Returns:
        (B, n + 1, C), and which of them there are, bool (B, n + 1).
    """
    free = (cover.sum(dim=2, keepdim=True) < FREE).to(cover)
    share = torch.cat([cover, free], dim=2)
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1e-6)
    features = torch.einsum("bcn,bnk->bkc", grid.flatten(2).float(), share)
    return features, F.pad(classes >= 0, (0, 1), value=True)


def picking_loss(
    prompts: Tensor, features: Tensor, there: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """Ask which of a picture's things a prompt is most like: cross-entropy, share of right ones.

    Args:
        prompts: (K, C), of scale 0.
        features: (K, n, C), of all things of its picture.
        there: bool (K, n), those that there are.
        right: int64 (K,), the one that is meant.
    """
    similarity = torch.einsum(
        "kc,knc->kn", F.normalize(prompts.float(), dim=1), F.normalize(features, dim=2)
    )
    logits = (PICKING_SCALE * similarity).masked_fill(~there, -1e4)
    return F.cross_entropy(logits, right), (logits.argmax(dim=1) == right).float().mean()
