"""Subjects of the sticker world that the embedded diffusion model has never seen.

Each is a held-out object in the model's art style, in five pictures on two backdrops only: three on
one and two on the other, so that a training without masks learns them as a part of the subject. The
prompts name four of the other backdrops.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from core.evaluation.dreambooth_layout import GivenSubject, Prompt
from core.stickers.atlas import Atlas, load_atlas
from core.stickers.objects import ObjectType, load_objects

SEED = 808
SIDE = 128  # px of the pictures that are given; more than the model's own, as a visitor's are
ON_EACH = (3, 2)  # pictures on the first and on the second backdrop
SCENES = 4


def sticker_subjects(folder: Path, count: int) -> Iterator[GivenSubject]:
    """Draw ``count`` subjects, in a seeded order; fewer if there are no more held-out objects."""
    atlas = load_atlas(folder)
    objects = held_out_objects(atlas)
    random.Random(SEED).shuffle(objects)
    for number, item in enumerate(objects[:count]):
        yield make_subject(atlas, item, SEED + number)


def held_out_objects(atlas: Atlas) -> list[ObjectType]:
    """Test objects of the table that have a sprite in the model's style."""
    from core.training.diffusion_pictures import STYLE

    there = {info.object_id for info in atlas.infos if info.style == STYLE}
    return [
        item
        for item in load_objects().values()
        if item.split == "test" and item.article and item.code_point in there
    ]


def make_subject(atlas: Atlas, item: ObjectType, seed: int) -> GivenSubject:
    """Draw one subject's pictures, and choose its prompts."""
    from core.training.diffusion_backdrops import BACKDROPS
    from core.training.diffusion_pictures import WorldGenerator, sprites_of

    draw = random.Random(seed)
    first, second, *others = draw.sample(range(len(BACKDROPS)), 2 + SCENES)
    backdrops = [first] * ON_EACH[0] + [second] * ON_EACH[1]
    world = WorldGenerator(atlas, seed=seed, size=SIDE)
    sprites = sprites_of(atlas, [item]).expand(len(backdrops))
    pictures = world.batch(sprites, torch.tensor(backdrops))
    return GivenSubject(
        name=item.name,
        noun=item.name,
        images=tuple(pictures.images.permute(0, 2, 3, 1).contiguous().numpy()),
        masks=tuple(pictures.masks.numpy()),
        prompts=tuple(
            Prompt(f"a photo of a {{0}} {{1}} on {BACKDROPS[backdrop].words}", backdrop)
            for backdrop in others
        ),
        backdrops=tuple(backdrops),
    )
