"""The embedded diffusion model: are its pictures of what the prompt says?

Prompts are of objects and backdrops that it was taught, from seeds that it was never trained with.
The judge of the object is the embedded CLIP, which ranks twenty names: the right one and nineteen
others of the model's world. CLIP was taught objects and not surfaces, so the judge of the backdrop
is a nearest mean: colours, contrast and edges of the picture's margin, compared with those of real
pictures of each backdrop in their own spread. Both judges are also shown real pictures of the world
and what the VAE makes of them, which is the most that the model can reach.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from core.clip.model import ClipModel
from core.clip.text import average_templates, encode_templates
from core.dreambooth.config import DreamBoothConfig
from core.dreambooth.model import DiffusionModel
from core.dreambooth.sampling import MAX_PICTURES, draw
from core.errors import ImageError
from core.evaluation.clip import TEMPLATES, encode_pictures

if TYPE_CHECKING:
    from core.stickers.atlas import Atlas
    from core.training.diffusion_pictures import Pictures, WorldGenerator

Results = tuple[dict[str, float], dict[str, Any]]

CLIP = "clip_embedded"
SEED = 20260
CANDIDATES = 20
MARGIN = 8  # a share of the picture's side, 1/8: what the object hardly reaches
TEACHING_ROUNDS = 24  # real pictures of each backdrop that the backdrop's judge is taught with
BATCH = 32


@dataclass(frozen=True)
class Plan:
    """What to draw: an object (row of ``world_objects``), a backdrop and a seed a picture."""

    items: tuple[int, ...]
    backdrops: tuple[int, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, count: int, objects: int, backdrops: int) -> Plan:
        """Go through all pairs in a seeded order, from the beginning again if there are too few."""
        pairs = [(item, backdrop) for item in range(objects) for backdrop in range(backdrops)]
        random.Random(SEED).shuffle(pairs)
        chosen = [pairs[i % len(pairs)] for i in range(count)]
        items, places = zip(*chosen, strict=True)
        return cls(items, places, tuple(SEED + i for i in range(count)))


def evaluate_diffusion(model: DiffusionModel, clip: ClipModel, atlas: Atlas, count: int) -> Results:
    """Draw ``count`` pictures and judge them.

    Returns:
        right_object_rate: share whose object's name CLIP ranks first of twenty;
        right_background_rate: share whose backdrop the nearest mean calls right;
        vae_psnr: dB of real pictures after the VAE;
        real_… and vae_…: the same rates of real pictures, and of those after the VAE.
        Details: both rates by object and by backdrop.
    """
    from core.training.diffusion_backdrops import BACKDROPS
    from core.training.diffusion_pictures import WorldGenerator, world_objects

    plan = Plan.of(count, len(world_objects()), len(BACKDROPS))
    world = WorldGenerator(atlas, seed=SEED, size=model.resolution)
    objects, backdrops = ObjectJudge(clip), BackdropJudge(world, atlas)
    real = real_pictures(world, atlas, plan)
    again = reconstruct(model, real.images)
    figures, details = {}, {}
    shown = {"": draw_pictures(model, plan), "real_": real.images, "vae_": again}
    for prefix, images in shown.items():
        by_object = objects.is_right(images, plan.items)
        by_backdrop = backdrops.is_right(images, plan.backdrops)
        figures[f"{prefix}right_object_rate"] = float(by_object.float().mean())
        figures[f"{prefix}right_background_rate"] = float(by_backdrop.float().mean())
        if not prefix:
            names = [world_objects()[item].name for item in plan.items]
            words = [BACKDROPS[backdrop].words for backdrop in plan.backdrops]
            details = {
                "by_object": rates(names, by_object),
                "by_background": rates(words, by_backdrop),
            }
    error = (again.float() - real.images.float()).square().mean(dim=(1, 2, 3)) / 255**2
    figures["vae_psnr"] = float((-10 * error.log10()).mean())
    return figures, details


def draw_pictures(model: DiffusionModel, plan: Plan) -> Tensor:
    """Draw a plan's prompts with the settings of the embedded preset: uint8 (N, 3, S, S)."""
    from core.training.diffusion_pictures import world_objects
    from core.training.diffusion_words import prompt

    settings = DreamBoothConfig.preset("good", "embedded")
    objects, pipeline, images = world_objects(), model.pipeline(), []
    prompts = [
        prompt(objects[item], backdrop, None)
        for item, backdrop in zip(plan.items, plan.backdrops, strict=True)
    ]
    for start in range(0, len(prompts), MAX_PICTURES):
        part = slice(start, start + MAX_PICTURES)
        images += draw(
            pipeline,
            prompts[part],
            plan.seeds[part],
            side=model.resolution,
            steps=settings.inference_steps,
            guidance=settings.guidance_scale,
            batch=BATCH,
        )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def real_pictures(world: WorldGenerator, atlas: Atlas, plan: Plan) -> Pictures:
    """Pictures of the world with a plan's objects and backdrops."""
    from core.training.diffusion_pictures import sprites_of, world_objects

    sprites = sprites_of(atlas, world_objects())[torch.tensor(plan.items)]
    return world.batch(sprites, torch.tensor(plan.backdrops))


@torch.no_grad()
def reconstruct(model: DiffusionModel, images: Tensor) -> Tensor:
    """uint8 (N, 3, S, S) through the VAE and back."""
    parts = []
    for some in images.split(BATCH):
        mean, _ = model.encode_pixels(some.float() / 127.5 - 1)
        again = model.vae.decode(mean / model.vae.config.scaling_factor).sample
        parts.append(((again.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


class ObjectJudge:
    """Ranks the right name among ``CANDIDATES`` of the world by the embedded CLIP."""

    def __init__(self, clip: ClipModel) -> None:
        from core.training.diffusion_pictures import world_objects

        self.clip = clip
        names = [item.name for item in world_objects()]
        self.features = average_templates(encode_templates(clip, names, TEMPLATES)).cpu()

    def is_right(self, images: Tensor, items: Sequence[int]) -> Tensor:
        """Whether the name of each picture's object comes first, bool (N,)."""
        draw = random.Random(SEED)
        logits = torch.cat([encode_pictures(self.clip, some) for some in images.split(BATCH)])
        logits = logits @ self.features.T
        right = []
        for row, item in zip(logits, items, strict=True):
            others = [other for other in range(len(self.features)) if other != item]
            others = draw.sample(others, min(CANDIDATES - 1, len(others)))
            right.append(bool(row[item] > row[others].max()))
        return torch.tensor(right)


class BackdropJudge:
    """Nearest mean of the margin's colours, contrast and edges, in each backdrop's own spread."""

    def __init__(self, world: WorldGenerator, atlas: Atlas) -> None:
        from core.training.diffusion_backdrops import BACKDROPS
        from core.training.diffusion_pictures import sprites_of, world_objects

        count = TEACHING_ROUNDS * len(BACKDROPS)
        backdrops = torch.arange(len(BACKDROPS)).repeat(TEACHING_ROUNDS)
        sprites = world.choose(sprites_of(atlas, world_objects()), count)
        seen = margin_features(world.batch(sprites, backdrops).images)
        groups = torch.stack([seen[backdrops == k] for k in range(len(BACKDROPS))])
        self.means = groups.mean(dim=1)
        # What a drawn picture is off by is more than a real one: the spread of all is its floor.
        self.spread = groups.std(dim=1) + 0.25 * self.means.std(dim=0)

    def is_right(self, images: Tensor, backdrops: Sequence[int]) -> Tensor:
        """Whether the backdrop is the one that the margin looks like most, bool (N,)."""
        off = (margin_features(images)[:, None] - self.means) / self.spread
        return off.square().mean(dim=2).argmin(dim=1) == torch.tensor(backdrops)


def margin_features(images: Tensor) -> Tensor:
    """Mean and deviation of each colour, and steps across and down, of the margin: (N, 8).

    Args:
        images: uint8 (N, 3, S, S).
    """
    pixels = images.float() / 255
    side = pixels.shape[-1]
    width = side // MARGIN
    rows = torch.arange(side)
    outer = (rows < width) | (rows >= side - width)
    margin = outer[:, None] | outer[None]
    colours = pixels[:, :, margin]
    across = pixels.diff(dim=-1).abs().mean(dim=1)[:, margin[:, 1:]].mean(dim=1)
    down = pixels.diff(dim=-2).abs().mean(dim=1)[:, margin[1:]].mean(dim=1)
    return torch.cat([colours.mean(dim=2), colours.std(dim=2), across[:, None], down[:, None]], 1)


def rates(names: Sequence[str], right: Tensor) -> dict[str, float]:
    """Share of right ones for each name, the lowest first."""
    found: dict[str, list[bool]] = {}
    for name, one in zip(names, right.tolist(), strict=True):
        found.setdefault(name, []).append(one)
    shares = {name: sum(ones) / len(ones) for name, ones in found.items()}
    return dict(sorted(shares.items(), key=lambda pair: pair[1]))


def run_diffusion(model: DiffusionModel, args: argparse.Namespace) -> Results:
    """The model's own world; ``--limit`` counts pictures. Expect some minutes on one core."""
    from core.clip.build import with_tokenizer
    from core.engine import get_engine
    from core.stickers.atlas import load_atlas

    if args.data:
        raise ImageError("The diffusion model is evaluated on its own world: leave --data out.")
    engine = get_engine()
    with engine.model(CLIP) as module:
        clip = with_tokenizer(engine.entry(CLIP), module)
        return evaluate_diffusion(model, clip, load_atlas(args.stickers), args.limit)
