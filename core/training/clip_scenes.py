"""Sticker scenes as the embedded CLIP sees them: who is where, in which colour, and prompted how.

A part of the pictures carries a visual prompt (CaR, section 3.2): one object stays as it is, what
is around it is blurred, grey or both, or it has a red ellipse around it. Only that object counts
for the picture as a whole then, as CaR's classifier needs it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from core.stickers import effects
from core.stickers.atlas import Atlas
from core.stickers.colours import COLOURS, DOMINANT_SHARE, colour_shares
from core.stickers.objects import ObjectType, load_objects
from core.stickers.scenes import Cast, SceneConfig, SceneGenerator, Scenes
from core.training.clip_redraw import redraw

SEEN = 0.25  # visible share of an object that counts as being in the picture
PROMPTS = ("blur", "grey", "blur and grey", "ellipse", "ellipse and blur")
RECOLOURED_SHARE = 0.3  # of objects in any hue at all; the others look as drawn, in some light


def known_objects() -> tuple[ObjectType, ...]:
    """The objects that the embedded CLIP knows: those of the table that are no test objects."""
    return tuple(item for item in load_objects().values() if item.split == "train")


def known_sprites(atlas: Atlas, sprites: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the ``sprites`` that show a known object.

    Returns:
        Their indices (n,), and for every sprite of the atlas its row in ``known_objects``, or -1.
    """
    rows: dict[str, int] = {}
    for row, item in enumerate(known_objects()):
        rows[item.code_point] = row
        rows |= {stem: row for stem in item.openclipart}
    stems = [info.object_id.rsplit("/", 1)[-1].rsplit(".", 1)[0] for info in atlas.infos]
    classes = torch.tensor([rows.get(stem, -1) for stem in stems])
    return sprites[classes[sprites] >= 0], classes


@dataclass(frozen=True)
class LabelledScenes:
    """A batch of scenes with what is said of them.

    Args:
        images: uint8 (B, 3, S, S), with visual prompts where there are some.
        instance_ids: (B, S, S).
        classes: int64 (B, K), row in ``known_objects`` of each visible object, -1 for none.
        colours: int64 (B, K), index of its dominant colour, -1 where there is none.
        subject: bool (B, K), the objects that the picture as a whole is about.
    """

    images: Tensor
    instance_ids: Tensor
    classes: Tensor
    colours: Tensor
    subject: Tensor


class LabelledSceneGenerator:
    """Draws labelled scenes of one size, objects equally often, in a seeded order.

    Args:
        prompted_share: of the pictures, those with a visual prompt.
        recoloured_share: of the objects, those in any hue at all.
        redrawn_share: of the pictures, those drawn as if by another hand.
    """

    def __init__(
        self,
        atlas: Atlas,
        sprites: Tensor,
        config: SceneConfig,
        *,
        seed: int,
        prompted_share: float = 0.0,
        recoloured_share: float = RECOLOURED_SHARE,
        redrawn_share: float = 0.0,
        test_photos: bool = False,
    ) -> None:
        known, classes = known_sprites(atlas, sprites)
        self.classes = classes
        self.by_class = [known[classes[known] == row] for row in range(len(known_objects()))]
        self.drawable = [row for row, ones in enumerate(self.by_class) if len(ones)]
        self.scenes = SceneGenerator(
            atlas, known, config=config, seed=seed, test_photos=test_photos
        )
        self.draw = random.Random(seed)
        self.prompted_share = prompted_share
        self.recoloured_share = recoloured_share
        self.redrawn_share = redrawn_share

    def batch(self, count: int) -> LabelledScenes:
        """Draw ``count`` scenes of different objects each."""
        config, draw = self.scenes.config, self.draw
        numbers = [draw.randint(config.min_objects, config.max_objects) for _ in range(count)]
        return self.batch_of([draw.sample(self.drawable, number) for number in numbers])

    def batch_of(self, rows: list[list[int]]) -> LabelledScenes:
        """Draw a scene of each list of known objects, given by their rows, back to front."""
        scenes = self.scenes.compose(self._cast(rows))
        return self.label(redraw(scenes, self.redrawn_share, self.scenes.random))

    def _cast(self, rows: list[list[int]]) -> Cast:
        draw = self.draw
        sprites = torch.full((len(rows), self.scenes.config.max_objects), -1)
        for b, objects in enumerate(rows):
            chosen = [int(draw.choice(self.by_class[row].tolist())) for row in objects]
            sprites[b, : len(chosen)] = torch.tensor(chosen)
        tones = self.scenes.draw_light(sprites.numel())
        bold = torch.tensor([draw.random() < self.recoloured_share for _ in range(len(tones))])
        turned = torch.tensor([draw.uniform(-3.1, 3.1) for _ in range(len(tones))])
        tones[:, 0] = torch.where(bold, turned, tones[:, 0])
        return Cast(sprites, tones.view(*sprites.shape, 3), torch.full(sprites.shape, -1))

    def label(self, scenes: Scenes) -> LabelledScenes:
        """Say what is in the scenes, and prompt some of them."""
        device = scenes.images.device
        count = scenes.sprite_indices.shape[1]
        shares = colour_shares(scenes.images, scenes.instance_ids, count)
        best, colours = shares.max(dim=2)
        colours = torch.where(best >= DOMINANT_SHARE, colours, -1)
        there = (scenes.sprite_indices >= 0) & (scenes.visible_fractions >= SEEN)
        classes = torch.where(there, self.classes[scenes.sprite_indices.clamp(min=0)], -1)
        labelled = LabelledScenes(
            scenes.images,
            scenes.instance_ids,
            classes.to(device),
            colours.to(device),
            there.to(device),
        )
        return self._prompt(labelled) if self.prompted_share else labelled

    def _prompt(self, scenes: LabelledScenes) -> LabelledScenes:
        images, subject = scenes.images.clone(), scenes.subject.clone()
        for b in range(len(images)):
            present = scenes.subject[b].nonzero().flatten().tolist()
            if not present or self.draw.random() >= self.prompted_share:
                continue
            chosen = self.draw.choice(present)
            mask = scenes.instance_ids[b] == chosen + 1
            images[b] = prompt_visually(images[b], mask, self.draw.choice(PROMPTS), self.draw)
            subject[b] = False
            subject[b, chosen] = True
        return replace(scenes, images=images, subject=subject)


def prompt_visually(image: Tensor, mask: Tensor, kind: str, draw: random.Random) -> Tensor:
    """Prompt an object of a picture uint8 (3, S, S) by its mask bool (S, S), a little off."""
    picture = image[None].float() / 255
    reach = draw.choice((0, 1, 2, 3))
    inside = mask[None, None].float()
    if reach:
        sign = draw.choice((-1, 1))
        grown = sign * F.max_pool2d(sign * inside, 2 * reach + 1, stride=1, padding=reach)
        inside = grown if grown.any() else inside
    if "grey" in kind:
        grey = picture.mean(dim=1, keepdim=True).expand_as(picture)
        picture = inside * picture + (1 - inside) * grey
    if "blur" in kind:
        blurred = effects.gaussian_blur(picture, image.shape[-1] / 256 * draw.uniform(1.5, 4.0))
        picture = inside * picture + (1 - inside) * blurred
    if "ellipse" in kind:
        line = _ellipse(inside[0, 0] > 0.5)
        red = torch.tensor([1.0, 0.0, 0.0], device=image.device).view(1, 3, 1, 1)
        picture = torch.where(line, red, picture)
    return (picture[0] * 255).round().clamp(0, 255).to(torch.uint8)


def _ellipse(mask: Tensor) -> Tensor:
    """The outline (S, S) of the ellipse in a mask's box, a pixel wide."""
    rows, columns = mask.nonzero().float().T
    centre = torch.stack([rows.mean(), columns.mean()])
    half = torch.stack([rows.max() - rows.min(), columns.max() - columns.min()]).clamp(min=2) / 2
    side = torch.arange(mask.shape[-1], device=mask.device)
    y, x = (side[:, None] - centre[0]) / half[0], (side[None] - centre[1]) / half[1]
    radius = (y.square() + x.square()).sqrt()
    return (radius - 1).abs() * half.mean() < 0.6


def patch_coverage(instance_ids: Tensor, count: int, patch: int) -> Tensor:
    """Share of each patch that each object covers: (B, n, count) of ids (B, S, S)."""
    numbers = torch.arange(1, count + 1, device=instance_ids.device).view(1, -1, 1, 1)
    each = (instance_ids[:, None] == numbers).float()
    return F.avg_pool2d(each, patch).flatten(2).transpose(1, 2)


def colour_name(index: int) -> str | None:
    return COLOURS[index] if index >= 0 else None
