"""Sticker scenes to talk about: what is where, how large, in which colour, behind what.

Everything is measured on the visible pixels, so that what is said of a scene can be seen in it.
An object that is mostly hidden or tiny is ``vague``: nobody asks for it, and nothing is asked that
it might be an answer to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from core.stickers.atlas import Atlas
from core.stickers.colours import COLOURS, DOMINANT_SHARE, colour_shares
from core.stickers.objects import ObjectType
from core.stickers.scenes import SceneConfig
from core.training.clip_scenes import LabelledSceneGenerator, LabelledScenes, known_objects
from core.training.pixellm_words import SITUATIONS

objects = cache(known_objects)

MIN_AREA = 0.012  # of the picture, for an object to be a target
MAYBE_SHARE = 0.25  # of a colour, from which some would call a thing by it
CONTACT = 0.08  # of the picture's side: length of a common border that shows who hides whom
REACH = 2  # px, how near masks are that touch


@dataclass(frozen=True)
class Thing:
    """One object that can be seen well.

    Args:
        number: of its pixels in the instance ids.
        row: in ``known_objects``.
        colour: its one colour, None where there is none.
        maybe: all colours that it might be called by.
        area: share of the picture.
        x, y: centre of its visible pixels, 0 to 1.
        hidden_by: numbers of those in front of it that touch it.
    """

    number: int
    row: int
    colour: str | None = None
    maybe: frozenset[str] = frozenset()
    area: float = 0.1
    x: float = 0.5
    y: float = 0.5
    hidden_by: frozenset[int] = frozenset()

    @property
    def item(self) -> ObjectType:
        return objects()[self.row]


@dataclass(frozen=True)
class Scene:
    """What is in one picture: things from left to right, and objects that are hardly seen."""

    things: tuple[Thing, ...]
    vague: tuple[ObjectType, ...] = ()


@dataclass(frozen=True)
class ChatScenes:
    """A batch of pictures with what is in them.

    Args:
        images: uint8 (B, 3, S, S).
        instance_ids: (B, S, S).
        classes: int64 (B, K), rows of the things, -1 for none.
        scenes: B of them.
    """

    images: Tensor
    instance_ids: Tensor
    classes: Tensor
    scenes: tuple[Scene, ...]

    def masks(self, scene: int, numbers: Sequence[int]) -> Tensor:
        """Masks bool (K, S, S) of things of one scene."""
        ids = self.instance_ids[scene]
        return ids[None] == torch.tensor(numbers, device=ids.device).view(-1, 1, 1)


class ChatSceneGenerator:
    """Draws scenes in which there is something to ask, in a seeded order."""

    def __init__(
        self,
        atlas: Atlas,
        sprites: Tensor,
        config: SceneConfig,
        *,
        seed: int,
        test_photos: bool = False,
        recoloured_share: float = 0.2,
    ) -> None:
        self.generator = LabelledSceneGenerator(
            atlas,
            sprites,
            config,
            seed=seed,
            recoloured_share=recoloured_share,
            test_photos=test_photos,
        )
        self.config = config
        self.draw = random.Random(seed + 1)

    def batch(self, count: int) -> ChatScenes:
        """Draw ``count`` scenes."""
        rows = [self._cast() for _ in range(count)]
        return look_at(self.generator.batch_of(rows), rows)

    def _cast(self) -> list[int]:
        """Rows of one scene's objects: some alike, some for a need, the others any."""
        draw, drawable = self.draw, self.generator.drawable
        number = draw.randint(self.config.min_objects, self.config.max_objects)
        rows = [draw.choice(drawable)]
        if number > 1:
            rows += draw.choice((self._again, self._alike, self._needed, self._any))(rows[0])
        while len(rows) < number:
            rows.append(draw.choice(drawable))
        rows = rows[:number]
        draw.shuffle(rows)
        return rows

    def _again(self, row: int) -> list[int]:
        return [row] * self.draw.choice((1, 1, 2))

    def _alike(self, row: int) -> list[int]:
        kind = objects()[row].category
        alike = [r for r in self.generator.drawable if objects()[r].category == kind]
        return self.draw.sample(alike, min(len(alike), self.draw.choice((1, 2))))

    def _needed(self, row: int) -> list[int]:
        need = self.draw.choice(SITUATIONS)
        chosen = []
        for tag in (need.first, need.second):
            fitting = [r for r in self.generator.drawable if objects()[r].has(tag)]
            chosen += self.draw.sample(fitting, min(1, len(fitting)))
        return chosen

    def _any(self, row: int) -> list[int]:
        return []


def look_at(batch: LabelledScenes, rows: Sequence[Sequence[int]]) -> ChatScenes:
    """Say what can be seen in scenes of given objects, back to front."""
    ids, count = batch.instance_ids, batch.classes.shape[1]
    numbers = torch.arange(1, count + 1, device=ids.device).view(1, -1, 1, 1)
    masks = (ids[:, None] == numbers).float()  # (B, K, S, S)
    side = ids.shape[-1]
    areas = masks.mean(dim=(2, 3))
    total = masks.sum(dim=(2, 3)).clamp(min=1)
    places = (torch.arange(side, device=ids.device) + 0.5) / side
    x = (masks.sum(dim=2) * places).sum(dim=2) / total
    y = (masks.sum(dim=3) * places).sum(dim=2) / total
    near = F.max_pool2d(masks, 2 * REACH + 1, stride=1, padding=REACH)
    contact = near.flatten(2) @ masks.flatten(2).transpose(1, 2) / (REACH * side)  # (B, K, K)
    shares = colour_shares(batch.images, ids, count)
    seen = (batch.classes >= 0) & (areas >= MIN_AREA)
    classes = torch.where(seen, batch.classes, -1)
    values = [one.tolist() for one in (classes, areas, x, y, contact, shares)]
    scenes = [_scene(own, *(value[b] for value in values)) for b, own in enumerate(rows)]
    return ChatScenes(batch.images, ids, classes, tuple(scenes))


def _scene(
    rows: Sequence[int],
    classes: list[int],
    areas: list[float],
    x: list[float],
    y: list[float],
    contact: list[list[float]],
    shares: list[list[float]],
) -> Scene:
    """One scene from the lists of its objects, by their place in the pile."""
    clear = [k for k in range(len(rows)) if classes[k] >= 0]
    things = [
        Thing(
            number=k + 1,
            row=classes[k],
            colour=_colour(shares[k]),
            maybe=frozenset(c for c, s in zip(COLOURS, shares[k], strict=True) if s > MAYBE_SHARE),
            area=areas[k],
            x=x[k],
            y=y[k],
            hidden_by=frozenset(j + 1 for j in clear if j > k and contact[k][j] > CONTACT),
        )
        for k in clear
    ]
    vague = [objects()[rows[k]] for k in range(len(rows)) if k not in clear and areas[k] > 0]
    return Scene(tuple(sorted(things, key=lambda thing: thing.x)), tuple(vague))


def _colour(shares: list[float]) -> str | None:
    best = max(range(len(shares)), key=shares.__getitem__)
    return COLOURS[best] if shares[best] >= DOMINANT_SHARE else None
