"""What the embedded diffusion model's pictures have behind their object: surfaces with a word each.

Drawn by rule, so that every word looks like one thing and no two words look alike. Lengths are in
pixels of a picture of 64 px; larger pictures show the same surface larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 192  # px of a sheet, from which pictures take their crops
SHEETS = 6  # of each surface, different tones and patterns

Random = torch.Generator


@dataclass(frozen=True)
class Backdrop:
    """A surface: the words that prompts call it by, and a sheet (3, SIDE, SIDE) in [0, 1] of it."""

    words: str
    draw: Callable[[Random], Tensor]


@cache
def make_sheets(seed: int = 0) -> Tensor:
    """All backdrops' sheets: float32 (backdrops, SHEETS, 3, SIDE, SIDE) in [0, 1].

    They are drawn once, so they must not be changed.
    """
    random = torch.Generator().manual_seed(seed)
    sheets = []
    for backdrop in BACKDROPS:
        for _ in range(SHEETS):
            light = 0.92 + 0.14 * torch.rand(1, generator=random)
            sheets.append((backdrop.draw(random) * light).clamp(0, 1))
    return torch.stack(sheets).unflatten(0, (len(BACKDROPS), SHEETS))


def _paint(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(3, 1, 1)


def _noise(random: Random, rows: int, columns: int | None = None) -> Tensor:
    """Smooth noise (1, SIDE, SIDE) of about [-1, 1] with so many bumps down and across."""
    cells = torch.rand(1, 1, rows, columns or rows, generator=random) * 2 - 1
    return F.interpolate(cells, (SIDE, SIDE), mode="bicubic", align_corners=False)[0]


def _axes() -> tuple[Tensor, Tensor]:
    """Pixel rows (SIDE, 1) and columns (1, SIDE)."""
    line = torch.arange(SIDE, dtype=torch.float32)
    return line[:, None], line[None]


def _tone_of_cells(random: Random, ids: Tensor) -> Tensor:
    """A random number in [-1, 1] for each cell of ids (SIDE, SIDE): (1, SIDE, SIDE)."""
    tones = torch.rand(int(ids.max()) + 1, generator=random) * 2 - 1
    return tones[ids.long()][None]


def _grass(random: Random) -> Tensor:
    blades = 0.13 * _noise(random, 40, 96) + 0.07 * _noise(random, 8)
    return _paint(0.32, 0.60, 0.20) * (1 + 1.4 * blades)


def _sand(random: Random) -> Tensor:
    rows, _ = _axes()
    ripples = torch.sin((rows + 5 * _noise(random, 6)) * (2 * math.pi / 11))
    return _paint(0.88, 0.76, 0.54) * (1 + 0.07 * ripples + 0.03 * _noise(random, 90))


def _snow(random: Random) -> Tensor:
    return _paint(0.95, 0.97, 1.0) - _paint(0.12, 0.08, 0.03) * (0.5 + _noise(random, 7))


def _water(random: Random) -> Tensor:
    waves = 0.30 * _noise(random, 44, 11) + 0.08 * _noise(random, 8)
    return _paint(0.16, 0.44, 0.78) * (1 + waves) + 0.06 * waves


def _wood(random: Random) -> Tensor:
    rows, _ = _axes()
    plank = (rows // 16).expand(SIDE, SIDE)
    gap = (rows % 16 < 1.5).float()
    grain = 0.10 * _noise(random, 80, 8) + 0.10 * _tone_of_cells(random, plank)
    return _paint(0.62, 0.40, 0.21) * (1 + grain) * (1 - 0.5 * gap)


def _bricks(random: Random) -> Tensor:
    rows, columns = _axes()
    row = rows // 10
    shifted = columns + 10 * (row % 2)
    mortar = ((rows % 10 < 1.6) | (shifted % 20 < 1.6)).float()
    ids = row * 11 + shifted // 20
    bricks = _paint(0.72, 0.30, 0.22) * (1 + 0.14 * _tone_of_cells(random, ids))
    return bricks * (1 - mortar) + _paint(0.84, 0.80, 0.74) * mortar


def _sky(random: Random) -> Tensor:
    cloud = (1.6 * _noise(random, 7, 5) + 0.4 * _noise(random, 16)).clamp(0, 1)
    return _paint(0.45, 0.72, 0.97) * (1 - cloud) + cloud


def _night(random: Random) -> Tensor:
    stars = (torch.rand(1, 1, SIDE, SIDE, generator=random) > 0.994).float()
    glow = F.max_pool2d(stars, 2, stride=1, padding=1)[0, :, :SIDE, :SIDE]
    night = _paint(0.06, 0.07, 0.24) * (1 + 0.4 * _noise(random, 5))
    return night * (1 - glow) + _paint(0.95, 0.95, 0.8) * glow


def _tiles(random: Random) -> Tensor:
    rows, columns = _axes()
    dark = ((rows // 12 + columns // 12) % 2)[None]
    tone = 1 + 0.05 * _noise(random, 12)
    return (_paint(0.93, 0.93, 0.90) * (1 - dark) + _paint(0.16, 0.45, 0.45) * dark) * tone


def _stones(random: Random) -> Tensor:
    rows, columns = _axes()
    points = torch.rand(170, 2, generator=random) * SIDE
    pixels = torch.stack(torch.broadcast_tensors(rows, columns), dim=-1).flatten(0, 1)
    near, ids = torch.cdist(pixels, points).topk(2, largest=False)
    near, ids = near.unflatten(0, (SIDE, SIDE)), ids[:, 0].unflatten(0, (SIDE, SIDE))
    joint = (near[..., 1] - near[..., 0] < 2.2).float()[None]
    stones = _paint(0.60, 0.59, 0.57) * (1 + 0.2 * _tone_of_cells(random, ids))
    return stones * (1 - joint) + _paint(0.25, 0.24, 0.23) * joint


def _wall(red: float, green: float, blue: float) -> Callable[[Random], Tensor]:
    def draw(random: Random) -> Tensor:
        return _paint(red, green, blue) * (1 + 0.04 * _noise(random, 4))

    return draw


BACKDROPS = (
    Backdrop("grass", _grass),
    Backdrop("sand", _sand),
    Backdrop("snow", _snow),
    Backdrop("water", _water),
    Backdrop("wood", _wood),
    Backdrop("a brick wall", _bricks),
    Backdrop("the sky", _sky),
    Backdrop("the night sky", _night),
    Backdrop("tiles", _tiles),
    Backdrop("stones", _stones),
    Backdrop("a yellow wall", _wall(0.97, 0.83, 0.25)),
    Backdrop("a pink wall", _wall(0.95, 0.62, 0.72)),
)
