"""Scenes two by two: what is in one is in the other as well, elsewhere and in another light.

What tells one object from others is learned from such pairs, so the objects of a pair often are
of one category, and each keeps its colours from one scene of the pair to the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from core.stickers.scenes import Cast, SceneGenerator, Scenes

SAME_CATEGORY_PROBABILITY = 0.75
ALONE_PROBABILITY = 0.25  # the first scene shows one object only, as a reference picture does


class PairedScenes:
    """Draws batches in which scenes 2i and 2i + 1 share objects, in a seeded order.

    Args:
        generator: draws the scenes; also says how many objects they have.
        category: by object id; objects without one are mixed with any others.
    """

    def __init__(self, generator: SceneGenerator, category: Mapping[str, str], seed: int) -> None:
        self.generator = generator
        self.random = torch.Generator().manual_seed(seed)
        infos = generator.atlas.infos
        self.object_ids = {i: infos[i].object_id for i in generator.sprite_indices.tolist()}
        self.category = {i: category.get(o) for i, o in self.object_ids.items()}
        self.groups: dict[str, list[int]] = defaultdict(list)
        for i, name in self.category.items():
            if name is not None:
                self.groups[name].append(i)

    def batch(self, count: int) -> Scenes:
        """Draw ``count`` scenes, an even number."""
        casts = [self._pair() for _ in range(count // 2)]
        joined = Cast(*(torch.cat(parts) for parts in zip(*map(_fields, casts), strict=True)))
        light = self.generator.draw_light(joined.sprites.numel()).view(joined.tones.shape)
        # Light on top of an object's own colours: hues add up, the factors multiply.
        joined.tones[..., 0] += light[..., 0]
        joined.tones[..., 1:] *= light[..., 1:]
        return self.generator.compose(joined)

    def _pair(self) -> Cast:
        """Cast two scenes of K places each, with K objects between them."""
        config = self.generator.config
        places = config.max_objects
        objects = self._objects(places)
        tones = self.generator.draw_tones(len(objects))
        plain = torch.rand(len(objects), generator=self.random) < 0.5
        tones[plain] = torch.tensor([0.0, 1.0, 1.0])
        materials = self.generator.draw_textures(len(objects))
        cast = Cast(
            sprites=torch.full((2, places), -1),
            tones=torch.ones(2, places, 3),
            textures=torch.full((2, places), -1),
        )
        span = places - config.min_objects + 1
        alone = float(torch.rand((), generator=self.random)) < ALONE_PROBABILITY
        for scene in range(2):
            number = config.min_objects + self._integer(span)
            number = min(1 if alone and scene == 0 else number, len(objects))
            order = torch.randperm(number, generator=self.random)
            cast.sprites[scene, :number] = objects[order]
            cast.tones[scene, :number] = tones[order]
            cast.textures[scene, :number] = materials[order]
        return cast

    def _objects(self, count: int) -> Tensor:
        """Draw at most ``count`` sprites of different objects, often of one category."""
        pool = self.generator.sprite_indices.tolist()
        first = pool[self._integer(len(pool))]
        group = self.category[first]
        same = float(torch.rand((), generator=self.random)) < SAME_CATEGORY_PROBABILITY
        rivals = self.groups[group] if same and group is not None else pool
        chosen = {self.object_ids[first]: first}
        for _ in range(3 * count):
            if len(chosen) == count:
                break
            other = rivals[self._integer(len(rivals))]
            chosen.setdefault(self.object_ids[other], other)
        return torch.tensor(list(chosen.values()))

    def _integer(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self.random))


def _fields(cast: Cast) -> tuple[Tensor, Tensor, Tensor]:
    return cast.sprites, cast.tones, cast.textures
