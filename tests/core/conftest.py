"""A small sticker world that needs no packages: coloured discs and bars over noise."""

from __future__ import annotations

import pytest
import torch

from core.stickers.atlas import PHOTO_SIDE, SPRITE_SIDE, Atlas, SpriteInfo


@pytest.fixture(scope="session")
def small_atlas() -> Atlas:
    """Twelve sprites (even: discs, odd: bars), each in two parts, and six photographs."""
    random = torch.Generator().manual_seed(7)
    y, x = torch.meshgrid(torch.arange(SPRITE_SIDE), torch.arange(SPRITE_SIDE), indexing="ij")
    disc = ((y - 63.5) ** 2 + (x - 63.5) ** 2 < 60**2).float()
    bar = ((y - 63.5).abs() < 25).float()
    shapes = torch.stack([disc, bar]).repeat(6, 1, 1)
    colours = torch.rand(12, 3, 1, 1, generator=random) * 200 + 55
    sprites = torch.cat([colours * shapes[:, None], 255 * shapes[:, None]], dim=1)
    parts = torch.where(shapes > 0, 1 + (x > 63).float(), 0.0)
    styles = ("fluent_3d", "twemoji", "noto")
    infos = tuple(
        SpriteInfo(styles[i % 3], f"{0x1F340 + i:x}", f"thing {i}", "test" if i > 7 else "train")
        for i in range(12)
    )
    photos = torch.randint(256, (6, 3, PHOTO_SIDE, PHOTO_SIDE), generator=random)
    regions = torch.arange(PHOTO_SIDE).div(80, rounding_mode="floor").expand(6, PHOTO_SIDE, -1)
    return Atlas(
        sprites=sprites.to(torch.uint8),
        parts=parts.to(torch.uint8),
        infos=infos,
        photos=photos.to(torch.uint8),
        regions=regions.to(torch.uint8),
        photo_is_test=torch.tensor([False] * 4 + [True] * 2),
    )
