"""The loss of a step: what the network should have said, and where it counts.

Errors are squared and in float32. Inside the subject's mask they count, outside they are
discarded (or count little); the class's pictures have no mask and always count in full. Letters:
B pictures, C latent channels, h×w latent cells, H×W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from core.dreambooth.config import DreamBoothConfig, MaskLoss


@dataclass(frozen=True, eq=False)
class Losses:
    """The loss of one step, and its parts as they are reported.

    Args:
        total: to be minimised: instance + prior_weight * prior.
        instance: of the subject's pictures, masked and weighted.
        prior: of the class's pictures; None without prior preservation.
        unmasked: of the subject's pictures without mask and weights, for information.
    """

    total: Tensor
    instance: Tensor
    prior: Tensor | None
    unmasked: Tensor


def target_of(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network should predict, (B, C, h, w): the noise, or the velocity.

    Raises:
        ValueError: the scheduler asks for another kind of prediction.
    """
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"prediction_type is {kind!r}; it must be epsilon or v_prediction")


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """Average a mask (B, 1, H, W) over each latent cell's pixels: (B, 1, h, w) in [0, 1].

    It stays soft. Taking one pixel of each block would lose thin parts.
    """
    return F.avg_pool2d(mask, factor)


def weight_map(mask: Tensor, *, dilate: int = 0, background_weight: float = 0.0) -> Tensor:
    """Grow a latent mask (B, 1, h, w) by whole cells and lift its background: m' = w0 + (1-w0) m.

    A cell's latent also depends on the pixels around it, which is what growing is for.
    """
    if dilate:
        mask = F.max_pool2d(mask, 2 * dilate + 1, stride=1, padding=dilate)
    return background_weight + (1 - background_weight) * mask


def masked_errors(
    prediction: Tensor, target: Tensor, mask: Tensor, form: MaskLoss, min_area: float
) -> Tensor:
    """Mean squared error of each picture where its mask counts, (B,).

    Args:
        prediction, target: (B, C, h, w).
        mask: (B, 1, h, w) in [0, 1].
        form: "area" divides by the mask's own area, so that a small subject is learned as fast
            as a large one beside the prior's loss; "plain" by the whole picture's; "none" leaves
            the mask out.
        min_area: "area" divides by at least this share of the picture, or a few cells would
            outweigh everything.
    """
    errors = (prediction.float() - target.float()) ** 2  # (B, C, h, w)
    if form == "none":
        return errors.mean(dim=(1, 2, 3))
    inside = (mask * errors).sum(dim=(1, 2, 3))
    cells = float(mask.shape[-2] * mask.shape[-1])
    if form == "plain":
        return inside / (errors.shape[1] * cells)
    area = mask.sum(dim=(1, 2, 3)).clamp(min=min_area * cells)
    return inside / (errors.shape[1] * area)


def min_snr_weights(scheduler: Any, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights (B,) that cap a step's signal-to-noise ratio at gamma.

    Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv 2303.09556.
    """
    alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].double()
    # A schedule that ends in pure noise has a ratio of 0 there.
    snr = (alphas / (1 - alphas)).clamp(min=1e-8)
    divisor = snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr
    return (snr.clamp(max=gamma) / divisor).float()


def step_losses(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    timesteps: Tensor,
    scheduler: Any,
    config: DreamBoothConfig,
) -> Losses:
    """Losses of one forward pass over B pictures of the subject and, behind them, of the class.

    Args:
        prediction, target: (B, C, h, w), or (2B, C, h, w) with prior preservation.
        mask: (B, 1, h, w), of the subject's pictures only.
        timesteps: (B,) or (2B,).
    """
    count = len(mask)
    own, other = (prediction[:count], target[:count]), (prediction[count:], target[count:])
    errors = masked_errors(*own, mask, config.mask_loss, config.min_area)  # (B,)
    if config.snr_gamma is not None:
        # Of the subject's own timesteps: diffusers' script takes those of all 2B.
        errors = errors * min_snr_weights(scheduler, timesteps[:count], config.snr_gamma)
    instance = errors.mean()
    with torch.no_grad():
        unmasked = F.mse_loss(own[0].float(), own[1].float())
    if not len(other[0]):
        return Losses(instance, instance.detach(), None, unmasked)
    prior = F.mse_loss(other[0].float(), other[1].float())
    total = instance + config.prior_weight * prior
    return Losses(total, instance.detach(), prior.detach(), unmasked)
