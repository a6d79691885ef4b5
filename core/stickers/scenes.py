"""Compose sprites over photographs into scenes with exact visible masks, in batches.

Every number that chance decides is drawn on the CPU from one seeded generator; pixels are made
on the atlas's device. A scene has 1 to ``max_objects`` sprites, scaled, turned, recoloured, lit
and shadowed, later ones in front of earlier ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from core.stickers import effects
from core.stickers.atlas import PHOTO_SIDE, SPRITE_SIDE, Atlas

PATCH_SIDES = (48, 72, 104, 144, 200, 280, 380, 480)  # a sprite goes into the smallest holding it
CLOSE_UP_SCALES = (0.7, 1.25)
CLOSE_UP_CENTRES = (0.3, 0.7)


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """How scenes are made; lengths are fractions of the scene's side.

    Probabilities are per scene, but for ``texture_probability`` (per object). In a close-up the
    backmost object fills most of the picture, as the subject of a photograph does.
    """

    size: int = 256
    min_objects: int = 1
    max_objects: int = 6
    min_scale: float = 0.16
    max_scale: float = 0.75
    close_up_probability: float = 0.0
    max_turn_degrees: float = 40.0
    plain_background_probability: float = 0.3
    texture_probability: float = 0.12
    blur_probability: float = 0.35
    noise_probability: float = 0.4
    jpeg_probability: float = 0.35


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes.

    Attributes:
        images: uint8 (B, 3, S, S) RGB.
        instance_ids: uint8 (B, S, S), 0 background, k the k-th object where it is visible.
        part_ids: uint8 (B, S, S), colour regions of the visible object, 0 none.
        region_ids: uint8 (B, S, S), regions of the background photograph, 0 none or hidden.
        sprite_indices: int64 (B, K) index into the atlas, -1 where there is no object.
        visible_fractions: float (B, K), visible area over the object's whole area.
    """

    images: Tensor
    instance_ids: Tensor
    part_ids: Tensor
    region_ids: Tensor
    sprite_indices: Tensor
    visible_fractions: Tensor


@dataclass(frozen=True)
class Cast:
    """Who is in a batch of scenes, and what each looks like.

    Attributes:
        sprites: int64 (B, K) index into the atlas, back to front, -1 for none.
        tones: float (B, K, 3): turn of the hue in radians, saturation and brightness; 0, 1 and 1
            leave a sprite as it is drawn.
        textures: int64 (B, K), the photograph that gives its texture, -1 for none.
    """

    sprites: Tensor
    tones: Tensor
    textures: Tensor


class SceneGenerator:
    """Draws batches of scenes from some sprites of an atlas, in a seeded order."""

    def __init__(
        self,
        atlas: Atlas,
        sprite_indices: Tensor,
        *,
        config: SceneConfig | None = None,
        seed: int = 0,
        test_photos: bool = False,
    ) -> None:
        self.atlas = atlas
        self.config = config or SceneConfig()
        self.sprite_indices = sprite_indices
        self.photo_indices = (atlas.photo_is_test == test_photos).nonzero().flatten()
        self.random = torch.Generator().manual_seed(seed)
        self.device = atlas.sprites.device

    def batch(self, count: int) -> Scenes:
        """Draw ``count`` scenes."""
        return self._draw(count, None)

    def compose(self, cast: Cast) -> Scenes:
        """Draw scenes of a given cast of at most ``max_objects`` each."""
        return self._draw(len(cast.sprites), cast)

    def _draw(self, count: int, cast: Cast | None) -> Scenes:
        canvas, region_ids = self._backgrounds(count)
        sprites = self._choose_sprites(count) if cast is None else cast.sprites
        scenes = Scenes(
            images=canvas,
            instance_ids=torch.zeros_like(region_ids),
            part_ids=torch.zeros_like(region_ids),
            region_ids=region_ids,
            sprite_indices=sprites,
            visible_fractions=torch.zeros(sprites.shape),
        )
        areas = self._paste_objects(scenes, cast)
        for k in range(sprites.shape[1]):
            visible = (scenes.instance_ids == k + 1).sum(dim=(1, 2)).cpu()
            scenes.visible_fractions[:, k] = visible / areas[:, k].clamp(min=1)
        images = (self._photograph(scenes.images) * 255).round().clamp(0, 255).to(torch.uint8)
        return Scenes(**{**scenes.__dict__, "images": images})

    # Random numbers, always on the CPU

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self.random) * (high - low) + low

    def _chance(self, probability: float) -> bool:
        return bool(torch.rand((), generator=self.random) < probability)

    def _integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.random)

    def _choose_sprites(self, count: int) -> Tensor:
        config = self.config
        chosen = self.sprite_indices[
            self._integers(len(self.sprite_indices), count, config.max_objects)
        ]
        number = config.min_objects + self._integers(
            config.max_objects - config.min_objects + 1, count, 1
        )
        return chosen.where(torch.arange(config.max_objects) < number, -1)

    def draw_tones(self, count: int) -> Tensor:
        """Draw strong changes of colour, (count, 3): a scene's objects in every colour."""
        return torch.stack(
            [
                self._uniform(count, low=-1, high=1) ** 3 * 1.5,
                self._uniform(count, low=0.4, high=1.3),
                self._uniform(count, low=0.55, high=1.15),
            ],
            dim=1,
        )

    def draw_light(self, count: int) -> Tensor:
        """Draw tones as light makes them, (count, 3): an object stays recognisably itself."""
        return torch.stack(
            [
                self._uniform(count, low=-0.12, high=0.12),
                self._uniform(count, low=0.75, high=1.15),
                self._uniform(count, low=0.65, high=1.15),
            ],
            dim=1,
        )

    def draw_textures(self, count: int) -> Tensor:
        """Draw photographs (count,) for the objects that take their texture, -1 for the others."""
        textured = self._uniform(count) < self.config.texture_probability
        chosen = self.photo_indices[self._integers(len(self.photo_indices), count)]
        return chosen.where(textured, -1)

    # Backgrounds

    def _backgrounds(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw photographs and plain walls: float (B, 3, S, S) and region ids uint8 (B, S, S)."""
        size = self.config.size
        photos, regions = self._photo_crops(count, size)
        plain = self._uniform(count) < self.config.plain_background_probability
        for b in plain.nonzero().flatten().tolist():
            photos[b] = self._plain_background(size)
            regions[b] = 0
        matrix = effects.colour_matrix(
            self._uniform(count, low=-0.25, high=0.25),
            self._uniform(count, low=0.3, high=1.2),
            self._uniform(count, low=0.6, high=1.25),
        )
        photos = effects.apply_colour(photos, matrix.to(self.device)).clamp(0, 1)
        for b in range(count):  # shallow depth of field, as in pictures of things
            if self._chance(0.25):
                sigma = float(self._uniform(1, low=0.8, high=3.0))
                photos[b : b + 1] = effects.gaussian_blur(photos[b : b + 1], sigma)
                regions[b] = 0
        return photos, regions

    def _photo_crops(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        photos = torch.empty(count, 3, size, size, device=self.device)
        regions = torch.empty(count, size, size, dtype=torch.uint8, device=self.device)
        chosen = self.photo_indices[self._integers(len(self.photo_indices), count)].tolist()
        tops, lefts = self._integers(PHOTO_SIDE - size + 1, 2, count).tolist()
        for b, (index, top, left) in enumerate(zip(chosen, tops, lefts, strict=True)):
            window = (slice(top, top + size), slice(left, left + size))
            photo, region = self.atlas.photos[index][:, *window], self.atlas.regions[index][window]
            if self._chance(0.5):
                photo, region = photo.flip(-1), region.flip(-1)
            photos[b] = photo / 255
            regions[b] = region
        return photos, regions

    def _plain_background(self, size: int) -> Tensor:
        """Two colours blended by a ramp or by smooth noise, (3, S, S): walls, tables, sky."""
        first, second = self._uniform(2, 3).to(self.device)
        second = first + (second - first) * float(self._uniform(1, high=0.8))
        if self._chance(0.5):
            angle, strength = self._uniform(1, high=2 * math.pi), torch.ones(1)
            mix = effects.light_ramp(size, size, angle.to(self.device), strength.to(self.device))
            mix = mix[0] / 2
        else:
            cells = 2 + int(self._integers(14, 1))
            noise = self._uniform(1, 1, cells, cells).to(self.device)
            mix = F.interpolate(noise, (size, size), mode="bicubic", align_corners=False)[0]
        return (first.view(3, 1, 1) * (1 - mix) + second.view(3, 1, 1) * mix).clamp(0, 1)

    # Objects

    def _paste_objects(self, scenes: Scenes, cast: Cast | None) -> Tensor:
        """Draw all objects onto ``scenes`` in place, back to front; return areas (B, K)."""
        where = (scenes.sprite_indices >= 0).nonzero()  # scene by scene, back to front
        if not len(where):
            return torch.zeros_like(scenes.visible_fractions)
        lengths, centres = self._place(where, len(scenes.images))
        if cast is None:
            looks = self.draw_tones(len(where)), self.draw_textures(len(where))
        else:
            looks = cast.tones[where.unbind(dim=1)], cast.textures[where.unbind(dim=1)]
        sprites = scenes.sprite_indices[where.unbind(dim=1)]
        patches = self._draw_patches(sprites, lengths, *looks)
        areas = torch.zeros_like(scenes.visible_fractions)
        shadow = self._uniform(len(where), 3)
        for n, (b, k) in enumerate(where.tolist()):
            rgb, alpha, parts = patches[n]
            areas[b, k] = float((alpha > 0.5).sum())
            corner = (centres[n] * self.config.size - alpha.shape[-1] / 2).round().int().tolist()
            if shadow[n, 0] < 0.7:
                self._cast_shadow(scenes.images[b], alpha, corner, shadow[n, 1:])
            overlap = _overlap(corner, alpha.shape[-1], self.config.size)
            if overlap is None:
                continue
            inside, patch = overlap
            view = scenes.images[b][:, *inside]
            view.mul_(1 - alpha[patch]).add_(rgb[:, *patch])
            solid = alpha[patch] > 0.5
            scenes.instance_ids[b][inside].masked_fill_(solid, k + 1)
            scenes.region_ids[b][inside].masked_fill_(solid, 0)
            part_view = scenes.part_ids[b][inside]
            part_view.copy_(torch.where(solid, parts[patch], part_view))
        return areas

    def _place(self, where: Tensor, scenes: int) -> tuple[Tensor, Tensor]:
        """Draw length (n,) in pixels and centre (n, 2) in fractions of objects (scene, order)."""
        count, config = len(where), self.config
        log_scale = self._uniform(
            count, low=math.log(config.min_scale), high=math.log(config.max_scale)
        )
        centres = self._uniform(count, 2, low=0.06, high=0.94)
        is_close_up = self._uniform(scenes) < config.close_up_probability
        subject = is_close_up[where[:, 0]] & (where[:, 1] == 0)
        low, high = CLOSE_UP_SCALES
        scale = torch.where(subject, self._uniform(count, low=low, high=high), log_scale.exp())
        low, high = CLOSE_UP_CENTRES
        middle = self._uniform(count, 2, low=low, high=high)
        return scale * config.size, torch.where(subject[:, None], middle, centres)

    def _draw_patches(
        self, indices: Tensor, lengths: Tensor, tones: Tensor, textures: Tensor
    ) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        """Scale, turn and recolour sprites: per object premultiplied rgb, alpha and parts."""
        count, config = len(indices), self.config
        turns = self._uniform(count, low=-1, high=1) ** 3 * math.radians(config.max_turn_degrees)
        flips = self._uniform(count).lt(0.5).float() * 2 - 1
        matrices = effects.colour_matrix(*tones.unbind(dim=1))
        ramps = torch.stack(
            [self._uniform(count, high=2 * math.pi), self._uniform(count, high=0.45)], dim=1
        )
        needed = lengths * (turns.cos().abs() + turns.sin().abs())
        sides = torch.tensor(PATCH_SIDES)
        bucket = torch.bucketize(needed, sides.float()).clamp(max=len(sides) - 1)
        patches: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for b in bucket.unique().tolist():
            rows = (bucket == b).nonzero().flatten()
            theta = _placement(lengths[rows], turns[rows], flips[rows], int(sides[b]))
            rgba, parts = self._warp(indices[rows], theta, int(sides[b]))
            rgb = self._shade(rgba, matrices[rows], ramps[rows], textures[rows])
            drawn = zip(rgb, rgba[:, 3], parts, strict=True)
            patches |= dict(zip(rows.tolist(), drawn, strict=True))
        return patches

    def _warp(self, indices: Tensor, theta: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Sample sprites through ``theta`` (n, 2, 3): rgba (n, 4, P, P) and parts uint8."""
        sprites = self.atlas.sprites[indices].float() / 255
        parts = self.atlas.parts[indices].float().unsqueeze(1)
        if side <= SPRITE_SIDE // 2:
            sprites = F.avg_pool2d(sprites, 2)  # else small objects would alias
        grid = F.affine_grid(
            theta.to(self.device), [len(indices), 4, side, side], align_corners=False
        )
        rgba = F.grid_sample(sprites, grid, align_corners=False)
        part = F.grid_sample(parts, grid, mode="nearest", align_corners=False)
        return rgba, part[:, 0].to(torch.uint8)

    def _shade(self, rgba: Tensor, matrix: Tensor, ramp: Tensor, textures: Tensor) -> Tensor:
        """Recolour and light premultiplied rgba; some objects take a photograph's texture."""
        rgb, alpha = rgba[:, :3], rgba[:, 3:]
        side = rgba.shape[-1]
        for n in (textures >= 0).nonzero().flatten().tolist():
            texture = self.atlas.photos[textures[n]][None, :, :side, :side] / 255
            if side > PHOTO_SIDE:
                texture = F.interpolate(texture, (side, side), mode="bilinear")
            shade = 0.45 + 0.8 * rgb[n].mean(dim=0)  # the drawing stays readable as relief
            rgb[n] = (texture[0] * shade).clamp(0, 1) * alpha[n]
        rgb = effects.apply_colour(rgb, matrix.to(self.device))
        rgb = rgb * effects.light_ramp(side, side, *ramp.to(self.device).T)
        return torch.minimum(rgb.clamp(min=0), alpha)

    def _cast_shadow(self, image: Tensor, alpha: Tensor, corner: list[int], random: Tensor) -> None:
        """Darken ``image`` (3, S, S) in place where the object's soft shadow falls."""
        margin = max(2, alpha.shape[-1] // 8)
        blurred = effects.soft_shadow(alpha, margin)
        shift = margin * (random[0] - 0.5)
        moved = [int(corner[0] - margin + shift), int(corner[1] - margin + margin // 3)]
        overlap = _overlap(moved, blurred.shape[-1], self.config.size)
        if overlap is not None:
            inside, patch = overlap
            image[:, *inside].mul_(1 - float(0.15 + 0.4 * random[1]) * blurred[patch])

    # Camera

    def _photograph(self, images: Tensor) -> Tensor:
        """Light, blur, noise and compression on the whole picture."""
        count, config = len(images), self.config
        angle, strength = self._uniform(count, high=2 * math.pi), self._uniform(count, high=0.35)
        ramp = effects.light_ramp(config.size, config.size, angle, strength).to(self.device)
        tint = self._uniform(count, 3, 1, 1, low=0.88, high=1.06).to(self.device)
        images = images * ramp * tint
        for b in range(count):
            if self._chance(config.blur_probability):
                sigma = float(self._uniform(1, low=0.4, high=1.1))
                images[b : b + 1] = effects.gaussian_blur(images[b : b + 1], sigma)
            if self._chance(config.noise_probability):
                sigma = float(self._uniform(1, low=0.005, high=0.04))
                noise = torch.randn(3, config.size, config.size, generator=self.random)
                images[b] += sigma * noise.to(self.device)
            if self._chance(config.jpeg_probability):
                quality = int(30 + self._integers(60, 1))
                images[b : b + 1] = effects.jpeg(images[b : b + 1].clamp(0, 1), quality)
        return images


def _placement(length: Tensor, turn: Tensor, flip: Tensor, side: int) -> Tensor:
    """Affine maps (n, 2, 3) from a patch's [-1, 1] frame to the sprite's."""
    scale = side / length
    cos, sin, zero = scale * turn.cos(), scale * turn.sin(), torch.zeros_like(scale)
    rows = torch.stack([flip * cos, flip * -sin, zero, sin, cos, zero], dim=1)
    return rows.view(-1, 2, 3)


def _overlap(
    corner: list[int], side: int, size: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where a square at ``corner`` (x, y) meets the canvas: slices of canvas and of square."""
    (x, y), inside, patch = corner, [], []
    for start in (y, x):
        low, high = max(0, start), min(size, start + side)
        if low >= high:
            return None
        inside.append(slice(low, high))
        patch.append(slice(low - start, high - start))
    return (inside[0], inside[1]), (patch[0], patch[1])
