"""What the embedded CLIP learns by: words for patches, for whole pictures, and for phrases.

Image-text contrast alone learns next to nothing in the hours of a small machine. Masks are free
in the sticker world, so each patch is told whose it is; that also is what CaR's maps are made of.
Logits are cosines times the learned scale; everything is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

OWN = 0.6  # share of a patch that makes it an object's
FREE = 0.05  # share of objects up to which a patch is background
BACKGROUND_WEIGHT = 0.3
MAP_CUT, MAP_SHARPNESS = 0.4, 6.0  # a map above this share of its peak is the object


def patch_loss(
    logits: Tensor, coverage: Tensor, classes: Tensor, names: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each patch with the name of its object, or with any background word.

    Args:
        logits: (B, n, C + G): C names, then G background words.
        coverage: (B, n, K), share of each patch that each object covers.
        classes: (B, K), the objects' names, -1 for none that is known.
        names: C.

    Returns:
        The loss, and the share of object patches whose best name is right.
    """
    log_p = logits.log_softmax(dim=-1)
    best, owner = coverage.max(dim=2)
    target = classes.gather(1, owner)
    owned = (best > OWN) & (target >= 0)
    free = coverage.sum(dim=2) < FREE
    background = -log_p[..., names:].logsumexp(dim=-1)[free]
    objects = -log_p[owned].gather(1, target[owned][:, None])[:, 0]
    right = (logits[..., :names].argmax(dim=-1) == target)[owned]
    loss = _mean(objects) + BACKGROUND_WEIGHT * _mean(background)
    return loss, _mean(right.float())


def picture_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of pictures (B, C) with all names that are present (bool (B, C)), equally."""
    some = present.any(dim=1)
    target = present[some].float()
    target = target / target.sum(dim=1, keepdim=True)
    return _mean(-(target * logits[some].log_softmax(dim=1)).sum(dim=1))


def phrase_loss(
    patches: Tensor, phrases: Tensor, backgrounds: Tensor, scale: Tensor, coverage: Tensor
) -> Tensor:
    """Tell the patches that a phrase means from all others, as one query against backgrounds.

    Args:
        patches: (P, n, D), unit vectors of the pictures that the phrases speak of.
        phrases: (P, D), one phrase each.
        backgrounds: (G, D).
        scale: of the cosines.
        coverage: (P, n), share of each patch that the meant objects cover.
    """
    own = scale * (patches @ phrases[:, :, None])[..., 0]
    other = (scale * patches @ backgrounds.T).logsumexp(dim=-1)
    target, clear = coverage > OWN, (coverage > OWN) | (coverage < FREE)
    each = F.binary_cross_entropy_with_logits(own - other, target.float(), reduction="none")
    # As much for the meant as for all others together.
    return _mean(each[target]) + _mean(each[clear & ~target])


def map_loss(maps: Tensor, coverage: Tensor) -> Tensor:
    """Cut maps at a share of their peak, as CaR does, and compare with the object.

    Args:
        maps: (P, n), of any scale.
        coverage: (P, n), share of each patch that the object covers.
    """
    peak = maps.amax(dim=1, keepdim=True)
    spread = maps.detach().std(dim=1, keepdim=True)
    logits = MAP_SHARPNESS * (maps / torch.maximum(peak, spread + 1e-12) - MAP_CUT)
    target, clear = coverage > OWN, (coverage > OWN) | (coverage < FREE)
    each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
    return _mean(each[target]) + _mean(each[clear & ~target])


def caption_loss(pictures: Tensor, captions: Tensor, wrong: Tensor, scale: Tensor) -> Tensor:
    """Image-text contrast within the batch (CLIP, figure 3), with wrong captions beside.

    Args:
        pictures, captions: unit vectors (B, D).
        wrong: (W, D), captions that fit no picture of the batch, but nearly do.
    """
    logits = scale * pictures @ torch.cat([captions, wrong]).T
    own = torch.arange(len(pictures), device=pictures.device)
    by_text = logits[:, : len(pictures)].T
    return (F.cross_entropy(logits, own) + F.cross_entropy(by_text, own)) / 2


def word_loss(names: Tensor, others: Tensor, scale: Tensor) -> Tensor:
    """Tell that two spellings (C, D) each mean the same object, and which others do not.

    The pictures need not teach that a synonym or a template changes nothing.
    """
    own = torch.arange(len(names), device=names.device)
    return F.cross_entropy(scale * names @ others.T, own)


def _mean(values: Tensor) -> Tensor:
    """The mean, 0 of nothing."""
    return values.mean() if len(values) else values.sum()
