"""Which colour a person would call a thing, from its pixels.

The eleven basic colour terms of English, by fixed borders in hue, saturation and value: rough, but
the same for what a model learns from and for what it is measured on.
"""

from __future__ import annotations

import torch
from torch import Tensor

COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
)
DOMINANT_SHARE = 0.5  # of an object's pixels, for it to be called by a colour
# Upper border of each hue in degrees; red comes again at the end of the circle.
_HUES = {15: "red", 42: "orange", 68: "yellow", 165: "green", 255: "blue", 292: "purple"}
_HUES |= {342: "pink", 361: "red"}


def colour_ids(images: Tensor) -> Tensor:
    """Index into `COLOURS` of every pixel of RGB uint8 (B, 3, H, W): int64 (B, H, W)."""
    rgb = images.float() / 255
    value, low = rgb.amax(dim=1), rgb.amin(dim=1)
    chroma = value - low
    saturation = chroma / value.clamp(min=1e-6)
    hue = _hue(rgb, value, chroma)
    index = {name: i for i, name in enumerate(COLOURS)}
    borders = torch.tensor([float(border) for border in _HUES], device=images.device)
    names = torch.tensor([index[name] for name in _HUES.values()], device=images.device)
    ids = names[torch.bucketize(hue, borders, right=True).clamp(max=len(_HUES) - 1)]

    def put(where: Tensor, name: str) -> None:
        ids.masked_fill_(where, index[name])

    put((ids == index["red"]) & (saturation < 0.55) & (value > 0.75), "pink")
    warm = (hue >= 8) & (hue < 50)
    put(warm & (value < 0.62) & (saturation > 0.25), "brown")
    put(saturation < 0.16, "grey")
    put((saturation < 0.16) & (value > 0.8), "white")
    put(value < 0.22, "black")
    return ids


def colour_shares(images: Tensor, instance_ids: Tensor, count: int) -> Tensor:
    """Share of each colour in the visible pixels of objects 1 to ``count``: (B, count, 11).

    Args:
        images: RGB uint8 (B, 3, H, W).
        instance_ids: (B, H, W), 0 background.

    Returns:
        Shares in [0, 1]; all zero for an object without pixels.
    """
    colours = len(COLOURS)
    keys = instance_ids.long() * colours + colour_ids(images)
    counts = torch.zeros(len(images), (count + 1) * colours, device=images.device)
    counts.scatter_add_(1, keys.flatten(1), torch.ones_like(keys.flatten(1), dtype=counts.dtype))
    counts = counts.unflatten(1, (count + 1, colours))[:, 1:]
    return counts / counts.sum(dim=2, keepdim=True).clamp(min=1)


def _hue(rgb: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Hue in [0, 360) degrees, (B, H, W); 0 for greys."""
    red, green, blue = rgb.unbind(dim=1)
    safe = chroma.clamp(min=1e-6)
    sector = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return torch.where(chroma > 0, 60 * sector, 0)
