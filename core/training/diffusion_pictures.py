"""The embedded diffusion model's world: one object in the middle of one surface.

Objects are such as the embedded CLIP names reliably, in one art style; held-out objects never
appear. Each is a little scaled, turned, shifted and lit, and casts a soft shadow. Everything is
drawn in batches from one seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from core.stickers import effects
from core.stickers.atlas import SPRITE_SIDE, Atlas
from core.stickers.colours import COLOURS, DOMINANT_SHARE, colour_shares
from core.stickers.objects import ObjectType, find_object
from core.training.diffusion_backdrops import BACKDROPS, SHEETS, SIDE, make_sheets

SIZE = 64  # px
STYLE = "fluent_3d"
SCALES = (0.62, 0.84)  # of the picture's side
TURN = math.radians(12)
SHIFT = 0.06  # of the picture's side
SHADOW = 0.45  # share of the light that it takes
WORLD_NAMES = (
    ("apple", "banana", "watermelon", "strawberry", "pineapple", "pumpkin", "broccoli", "mushroom")
    + ("pizza", "doughnut", "birthday cake", "hamburger", "cup of coffee", "beer")
    + ("cat", "panda", "lion", "zebra", "cow", "duck", "owl", "frog", "butterfly", "crab")
    + ("sunflower", "cactus", "tree", "car", "bus", "fire engine", "train", "ship", "airplane")
    + ("chair", "bed", "alarm clock", "padlock", "fire extinguisher", "basket")
    + ("t-shirt", "dress", "backpack", "top hat", "laptop", "camera", "radio")
    + ("soccer ball", "teddy bear", "gift", "guitar")
)


def world_objects() -> tuple[ObjectType, ...]:
    """The objects that the model is taught."""
    found = [(name, find_object(name)) for name in WORLD_NAMES]
    if missing := [name for name, item in found if item is None or item.split != "train"]:
        raise ValueError(f"Not in the table, or held out: {', '.join(missing)}")
    return tuple(item for _, item in found if item is not None)


def sprites_of(atlas: Atlas, objects: Sequence[ObjectType], style: str = STYLE) -> Tensor:
    """Index (n,) into the atlas of each object's sprite. Raises KeyError if one has none."""
    places = {info.object_id: i for i, info in enumerate(atlas.infos) if info.style == style}
    return torch.tensor([places[item.code_point] for item in objects])


@dataclass(frozen=True)
class Pictures:
    """A batch of the world.

    Attributes:
        images: uint8 (B, 3, S, S) RGB.
        masks: bool (B, S, S), where the object is.
        sprites: int64 (B,), index into the atlas.
        backdrops: int64 (B,), index into ``BACKDROPS``.
        colours: int64 (B,), index of the object's dominant colour, -1 if it has none.
    """

    images: Tensor
    masks: Tensor
    sprites: Tensor
    backdrops: Tensor
    colours: Tensor

    def colour_name(self, index: int) -> str | None:
        """The dominant colour of one picture's object."""
        colour = int(self.colours[index])
        return COLOURS[colour] if colour >= 0 else None


class WorldGenerator:
    """Draws pictures of given sprites on given backdrops, in a seeded order.

    Args:
        size: side of the pictures in px; the same things are drawn larger.
        turned_share: of the objects, those in any hue at all.
    """

    def __init__(
        self, atlas: Atlas, *, seed: int, size: int = SIZE, turned_share: float = 0.0
    ) -> None:
        self.atlas = atlas
        self.size = size
        self.turned_share = turned_share
        self.sheets = make_sheets()
        self.random = torch.Generator().manual_seed(seed)

    def batch(self, sprites: Tensor, backdrops: Tensor) -> Pictures:
        """Draw a picture of each sprite (B,) on the backdrop (B,) beside it."""
        rgba = self._place(sprites)
        rgb = self._light(rgba)
        alpha, shade = rgba[:, 3:], self._shadow(rgba[:, 3:])
        images = (self._behind(backdrops) * (1 - shade) * (1 - alpha) + rgb).clamp(0, 1)
        pixels = (images * 255).round().to(torch.uint8)
        masks = alpha[:, 0] > 0.5
        best, colours = colour_shares(pixels, masks.to(torch.uint8), 1)[:, 0].max(dim=1)
        colours = torch.where(best >= DOMINANT_SHARE, colours, -1)
        return Pictures(pixels, masks, sprites, backdrops, colours)

    def choose(self, among: Tensor, count: int) -> Tensor:
        """Draw ``count`` of the indices ``among``, with repetition."""
        return among[torch.randint(len(among), (count,), generator=self.random)]

    def choose_backdrops(self, count: int) -> Tensor:
        """Draw ``count`` indices of backdrops."""
        return torch.randint(len(BACKDROPS), (count,), generator=self.random)

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        return torch.rand(count, generator=self.random) * (high - low) + low

    def _place(self, sprites: Tensor) -> Tensor:
        """Scale, turn and shift sprites in pictures of their own: premultiplied (B, 4, S, S)."""
        count = len(sprites)
        scale, turn = self._uniform(count, *SCALES), self._uniform(count, -TURN, TURN)
        shift = self._uniform(2 * count, -2 * SHIFT, 2 * SHIFT).view(count, 2, 1)
        cos, sin = turn.cos() / scale, turn.sin() / scale
        turned = torch.stack([cos, -sin, sin, cos], dim=1).view(count, 2, 2)
        theta = torch.cat([turned, -turned @ shift], dim=2)
        pixels = self.atlas.sprites[sprites].float() / 255
        if self.size <= SPRITE_SIDE:
            pixels = F.avg_pool2d(pixels, 2)  # else fine lines would alias
        grid = F.affine_grid(theta, [count, 4, self.size, self.size], align_corners=False)
        return F.grid_sample(pixels, grid, align_corners=False)

    def _light(self, rgba: Tensor) -> Tensor:
        """Light of several strengths and sides; a share of the objects in other hues."""
        count = len(rgba)
        bold = self._uniform(count, 0, 1) < self.turned_share
        hue = torch.where(bold, self._uniform(count, -math.pi, math.pi), torch.zeros(count))
        saturation, gain = self._uniform(count, 0.9, 1.1), self._uniform(count, 0.85, 1.1)
        rgb = effects.apply_colour(rgba[:, :3], effects.colour_matrix(hue, saturation, gain))
        angle, strength = self._uniform(count, 0, 2 * math.pi), self._uniform(count, 0, 0.2)
        rgb = rgb * effects.light_ramp(self.size, self.size, angle, strength)
        return torch.minimum(rgb.clamp(min=0), rgba[:, 3:])

    def _shadow(self, alpha: Tensor) -> Tensor:
        """The light that objects take from what is below and beside them, (B, 1, S, S)."""
        down, side = round(self.size * 0.05), round(self.size * 0.02)
        moved = F.pad(alpha, (side, 0, down, 0))[..., : self.size, : self.size]
        return SHADOW * effects.gaussian_blur(moved, self.size / 64 * 1.5)

    def _behind(self, backdrops: Tensor) -> Tensor:
        """Crops (B, 3, S, S) of the backdrops' sheets, half of them mirrored."""
        count = len(backdrops)
        sheets = torch.randint(SHEETS, (count,), generator=self.random).tolist()
        corners = torch.randint(SIDE - SIZE + 1, (count, 2), generator=self.random).tolist()
        mirrored = self._uniform(count, 0, 1) < 0.5
        crops = torch.stack(
            [
                self.sheets[backdrop, sheet][:, top : top + SIZE, left : left + SIZE]
                for backdrop, sheet, (top, left) in zip(
                    backdrops.tolist(), sheets, corners, strict=True
                )
            ]
        )
        crops[mirrored] = crops[mirrored].flip(-1)
        if self.size == SIZE:
            return crops
        return F.interpolate(crops, (self.size, self.size), mode="bilinear", align_corners=False)
