"""Scenes as another hand would have drawn them: bent outlines, other contrast, fewer tones.

An art style that is in no training picture differs from those that are by its outlines and its
shading. Bending and shading the known ones at random is the nearest there is to more of them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from core.stickers import effects
from core.stickers.scenes import Scenes

BEND = 0.09  # at most, of the picture's side
STRETCH = 0.18  # of the sides' ratio and of the shear
KNOTS = 5  # of the smooth displacement, along each side


def redraw(scenes: Scenes, share: float, random: torch.Generator) -> Scenes:
    """Redraw a ``share`` of the scenes; objects keep their numbers and their visible shares."""
    count, size = len(scenes.images), scenes.images.shape[-1]
    chosen = (torch.rand(count, generator=random) < share).nonzero().flatten()
    if not len(chosen):
        return scenes
    images, ids = scenes.images.clone(), scenes.instance_ids.clone()
    grid = _bent_grid(len(chosen), size, random).to(images.device)
    rgb = F.grid_sample(
        images[chosen].float() / 255, grid, padding_mode="reflection", align_corners=False
    )
    moved = F.grid_sample(
        ids[chosen, None].float(),
        grid,
        mode="nearest",
        padding_mode="reflection",
        align_corners=False,
    )
    images[chosen] = (_shade(rgb, random) * 255).round().clamp(0, 255).to(torch.uint8)
    ids[chosen] = moved[:, 0].to(ids.dtype)
    return replace(scenes, images=images, instance_ids=ids)


def _bent_grid(count: int, size: int, random: torch.Generator) -> Tensor:
    """Where each pixel is taken from, (count, S, S, 2) in [-1, 1]."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random) * 2 - 1

    linear = torch.eye(2) + STRETCH * uniform(count, 2, 2)
    affine = torch.cat([linear, torch.zeros(count, 2, 1)], dim=2)
    grid = F.affine_grid(affine, [count, 1, size, size], align_corners=False)
    strength = 2 * BEND * torch.rand(count, 1, 1, 1, generator=random)
    bend = F.interpolate(
        strength * uniform(count, 2, KNOTS, KNOTS),
        (size, size),
        mode="bicubic",
        align_corners=True,
    )
    return grid + bend.permute(0, 2, 3, 1)


def _shade(rgb: Tensor, random: torch.Generator) -> Tensor:
    """Other detail, tones and saturation of (B, 3, S, S) in [0, 1]."""

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(rgb), 1, 1, 1, generator=random)
        return (drawn * (high - low) + low).to(rgb.device)

    smooth = effects.gaussian_blur(rgb, rgb.shape[-1] / 48)
    rgb = rgb + uniform(-0.6, 0.8) * (rgb - smooth)
    grey = rgb.mean(dim=1, keepdim=True)
    rgb = (grey + uniform(0.5, 1.3) * (rgb - grey)).clamp(0, 1)
    rgb = rgb ** uniform(-0.5, 0.5).exp()
    levels = uniform(4, 12)
    stepped = (rgb * levels).round() / levels
    return torch.where(uniform(0, 1) < 0.25, stepped, rgb)
