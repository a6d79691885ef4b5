"""Sprites and background photographs as uint8 tensors, ready to be composed into scenes.

The atlas is built once from the installed packages and kept in the data folder. Objects are
split by code point (or clip-art file), photographs by file; one art style is held out whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.stickers import sources
from core.stickers.objects import split_of

Split = Literal["train", "test"]

SPRITE_SIDE = 128
PHOTO_SIDE = 320
CROPS_PER_PHOTO = 14
MAX_PARTS = 3
ATLAS_FILE = "atlas.pt"


@dataclass(frozen=True)
class SpriteInfo:
    """What is known of a sprite: its art style, object, name and split."""

    style: str
    object_id: str
    name: str
    split: Split


@dataclass(frozen=True)
class Atlas:
    """All sprites and photographs.

    Attributes:
        sprites: uint8 (N, 4, 128, 128), RGB premultiplied by alpha, then alpha.
        parts: uint8 (N, 128, 128), colour regions of the sprite: 0 none, else 1 to 3.
        infos: N descriptions.
        photos: uint8 (M, 3, 320, 320) crops at several scales.
        regions: uint8 (M, 320, 320), classical segmentation of each crop: 0 none, else 1 to 255.
        photo_is_test: bool (M,).
    """

    sprites: Tensor
    parts: Tensor
    infos: tuple[SpriteInfo, ...]
    photos: Tensor
    regions: Tensor
    photo_is_test: Tensor

    def select(self, keep: Callable[[SpriteInfo], bool]) -> Tensor:
        """Return the indices (n,) of the sprites for which ``keep`` holds."""
        return torch.tensor([i for i, info in enumerate(self.infos) if keep(info)])

    def training_sprites(self) -> Tensor:
        return self.select(lambda s: s.split == "train" and s.style != sources.HELD_OUT_STYLE)

    def test_sprites(self, *, held_out_style: bool = False) -> Tensor:
        """Indices of held-out emoji objects, in the seen styles or in the held-out one."""
        return self.select(
            lambda s: (
                s.split == "test"
                and s.style != "clip_art"
                and (s.style == sources.HELD_OUT_STYLE) == held_out_style
            )
        )

    def to(self, device: torch.device | str) -> Atlas:
        moved = {k: getattr(self, k).to(device) for k in ("sprites", "parts", "photos", "regions")}
        return Atlas(**moved, infos=self.infos, photo_is_test=self.photo_is_test)


def load_atlas(folder: Path, *, log: Callable[[str], None] = print) -> Atlas:
    """Load the atlas from ``folder``; install the sources and build it the first time."""
    path = folder / ATLAS_FILE
    if not path.exists():
        log("Installing sprite and background packages")
        sources.install(folder)
        log("Building the atlas (a few minutes, once)")
        atlas = build_atlas(folder)
        torch.save(
            {**atlas.__dict__, "infos": json.dumps([asdict(i) for i in atlas.infos])},
            path.with_suffix(".partial"),
        )
        path.with_suffix(".partial").rename(path)
    stored = torch.load(path, weights_only=True, mmap=True)
    infos = tuple(SpriteInfo(**row) for row in json.loads(stored.pop("infos")))
    return Atlas(**stored, infos=infos)


def build_atlas(folder: Path) -> Atlas:
    """Read, filter, crop and segment everything that ``sources`` installed."""
    sprites, parts, infos = [], [], []
    for style in (*sources.EMOJI_STYLES, "clip_art"):
        for sprite in sources.iter_sprites(folder, style):
            pixels = _fit_sprite(sprite.image)
            if pixels is None:
                continue
            sprites.append(pixels)
            parts.append(_colour_parts(pixels))
            split: Split = split_of(sprite.object_id)
            infos.append(SpriteInfo(style, sprite.object_id, sprite.name, split))
    photos, regions, is_test = zip(*_iter_crops(folder), strict=True)
    rgba = torch.from_numpy(np.stack(sprites)).permute(0, 3, 1, 2).float()
    rgba[:, :3] *= rgba[:, 3:] / 255  # premultiplied: interpolation leaves no dark fringe
    return Atlas(
        sprites=rgba.round().to(torch.uint8),
        parts=torch.from_numpy(np.stack(parts)),
        infos=tuple(infos),
        photos=torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous(),
        regions=torch.from_numpy(np.stack(regions)),
        photo_is_test=torch.tensor(is_test),
    )


def _fit_sprite(image: Image.Image) -> NDArray[np.uint8] | None:
    """Crop to the drawing and centre it in a square; None for what is not one clear object."""
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 16:
        return None
    image = image.crop(box)
    image.thumbnail((SPRITE_SIDE * 4, SPRITE_SIDE * 4))
    scale = (SPRITE_SIDE - 4) / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SPRITE_SIDE, SPRITE_SIDE))
    square.paste(image, ((SPRITE_SIDE - size[0]) // 2, (SPRITE_SIDE - size[1]) // 2))
    pixels = np.array(square)
    opaque = pixels[..., 3] > 128
    if opaque.sum() < 0.06 * SPRITE_SIDE**2 or opaque.sum() > 0.97 * size[0] * size[1]:
        return None  # a hairline drawing, or a picture with its own rectangular background
    colours = pixels[opaque][:, :3].astype(float)
    if colours.max(axis=1).mean() < 40:
        return None  # a silhouette
    return pixels


def _colour_parts(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label up to three large colour regions of a sprite, (128, 128); outlines are none."""
    from scipy.ndimage import binary_erosion
    from skimage.segmentation import felzenszwalb

    segments = felzenszwalb(pixels[..., :3], scale=250, sigma=0.6, min_size=60)
    opaque = pixels[..., 3] > 128
    labels = np.zeros(opaque.shape, np.uint8)
    ids, counts = np.unique(segments[opaque], return_counts=True)
    for part, i in enumerate(np.argsort(-counts)[:MAX_PARTS], start=1):
        mask = (segments == ids[i]) & opaque
        compact = binary_erosion(mask, iterations=3).sum() > 0.3 * mask.sum()
        if compact and 0.06 < counts[i] / opaque.sum() < 0.8:
            labels[mask] = part
    return labels


def _iter_crops(folder: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], bool]]:
    """Yield (crop, regions, is_test) for square crops of every photograph, several scales."""
    rng = np.random.default_rng(0)
    for name, photo in sources.iter_photographs(folder):
        is_test = split_of(Path(name).stem) == "test"
        for _ in range(CROPS_PER_PHOTO):
            side = round(min(photo.size) * rng.uniform(0.3, 1.0))
            left = int(rng.integers(photo.width - side + 1))
            top = int(rng.integers(photo.height - side + 1))
            crop = photo.resize(
                (PHOTO_SIDE, PHOTO_SIDE),
                Image.Resampling.BOX if side > 2 * PHOTO_SIDE else Image.Resampling.LANCZOS,
                box=(left, top, left + side, top + side),
            )
            pixels = np.array(crop)
            yield pixels, _photo_regions(pixels, scale=rng.choice([150, 400, 1000])), is_test


def _photo_regions(pixels: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Felzenszwalb regions between 0.6 % and 45 % of the picture, as pseudo-masks."""
    from skimage.segmentation import felzenszwalb

    segments = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=200)
    ids, counts = np.unique(segments, return_counts=True)
    keep = ids[(counts > 0.006 * segments.size) & (counts < 0.45 * segments.size)][:255]
    lookup = np.zeros(segments.max() + 1, np.uint8)
    lookup[keep] = np.arange(1, len(keep) + 1)
    return lookup[segments]
