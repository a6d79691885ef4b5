"""Latents of a pool of pictures, sorted by what may be said of them.

A step of the U-Net then costs the U-Net only. Texts are read once for several pictures: a batch
is of some prompts with a few pictures each.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.stickers.atlas import Atlas
from core.stickers.colours import COLOURS
from core.training.diffusion_backdrops import BACKDROPS
from core.training.diffusion_pictures import WorldGenerator, sprites_of, world_objects
from core.training.diffusion_vae import encode
from core.training.diffusion_words import prompt

AS_DRAWN, TURNED = 32, 12  # pictures of each object on each backdrop: in its own hues, in any
COLOUR_SHARE = 0.2  # of prompts that name the object's colour
PLAIN_SHARE = 0.1  # of prompts that name no backdrop
EMPTY_SHARE = 0.1  # of prompts, for classifier-free guidance
POOL_FILE = "pool.safetensors"


class Key(NamedTuple):
    """What is said of a picture: object, backdrop and colour; None: nothing."""

    item: int
    backdrop: int | None
    colour: int | None


@dataclass(frozen=True)
class Pool:
    """Pictures as latents.

    Attributes:
        means, deviations: float16 (N, C, h, w), not scaled.
        items, backdrops, colours: int64 (N,): row of ``world_objects``, of ``BACKDROPS``, and of
            ``COLOURS``, -1 for no dominant colour.
        turned: bool (N,), whether the object is in other hues than its own.
    """

    means: Tensor
    deviations: Tensor
    items: Tensor
    backdrops: Tensor
    colours: Tensor
    turned: Tensor

    @property
    def scale(self) -> float:
        """Factor that gives the latents unit deviation."""
        return float(1 / self.means.float().std())


def make_pool(
    vae: Any, atlas: Atlas, seed: int, *, as_drawn: int = AS_DRAWN, turned: int = TURNED
) -> Pool:
    """Draw and encode ``as_drawn`` + ``turned`` pictures of each object on each backdrop."""
    sprites = sprites_of(atlas, world_objects())
    items = torch.arange(len(sprites)).repeat_interleave(len(BACKDROPS))
    backdrops = torch.arange(len(BACKDROPS)).repeat(len(sprites))
    generators = (
        (WorldGenerator(atlas, seed=seed), False, as_drawn),
        (WorldGenerator(atlas, seed=seed + 1, turned_share=1.0), True, turned),
    )
    parts = []
    for world, is_turned, rounds in generators:
        for _ in range(rounds):
            pictures = world.batch(sprites[items], backdrops)
            flag = torch.full_like(items, is_turned, dtype=torch.bool)
            latents = encode(vae, pictures.images)
            parts.append((*latents, items, backdrops, pictures.colours, flag))
    return Pool(*(torch.cat(part).contiguous() for part in zip(*parts, strict=True)))


def kept_pool(path: Path, vae: Any, atlas: Atlas, seed: int) -> Pool:
    """The pool in a file, which is made the first time."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        save_file({**make_pool(vae, atlas, seed).__dict__}, partial)
        partial.rename(path)
    return Pool(**load_file(path))


class PoolBatches:
    """Draws prompts and pictures of a pool, in a seeded order."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool, self.objects = pool, world_objects()
        self.draw = random.Random(seed)
        self.random = torch.Generator().manual_seed(seed)
        self.drawn: dict[Key, list[int]] = defaultdict(list)
        self.coloured: dict[Key, list[int]] = defaultdict(list)
        self.plain: dict[Key, list[int]] = defaultdict(list)
        rows = zip(pool.items, pool.backdrops, pool.colours, pool.turned, strict=True)
        for index, row in enumerate(rows):
            item, backdrop, colour, turned = (int(value) for value in row)
            if colour >= 0:
                self.coloured[Key(item, backdrop, colour)].append(index)
            if not turned:
                self.drawn[Key(item, backdrop, None)].append(index)
                self.plain[Key(item, None, None)].append(index)
        self.keys = {id(kind): list(kind) for kind in (self.drawn, self.coloured, self.plain)}

    def batch(self, prompts: int, each: int) -> tuple[Tensor, list[str]]:
        """Draw ``each`` pictures of each of so many prompts.

        Returns:
            Scaled latents (prompts · each, C, h, w), those of a prompt side by side, and the
            prompts.
        """
        indices: list[int] = []
        texts = []
        for _ in range(prompts):
            key, among = self._choose()
            indices += self.draw.choices(among, k=each)
            texts.append("" if self.draw.random() < EMPTY_SHARE else self._say(key))
        means, deviations = self.pool.means[indices], self.pool.deviations[indices]
        noise = torch.randn(means.shape, generator=self.random)
        return (means.float() + deviations.float() * noise) * self.pool.scale, texts

    def _choose(self) -> tuple[Key, list[int]]:
        chance = self.draw.random()
        kind = self.drawn
        if chance < COLOUR_SHARE and self.coloured:
            kind = self.coloured
        elif chance < COLOUR_SHARE + PLAIN_SHARE:
            kind = self.plain
        key = self.draw.choice(self.keys[id(kind)])
        return key, kind[key]

    def _say(self, key: Key) -> str:
        colour = None if key.colour is None else COLOURS[key.colour]
        return prompt(self.objects[key.item], key.backdrop, colour, self.draw)
