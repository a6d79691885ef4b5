"""Pairs of a clear and a degraded sticker scene, and the frozen encoder's view of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from core.degradations import KINDS, Degraded, degrade
from core.stickers.scenes import SceneGenerator, Scenes

# Never trained on, so that something is known of kinds that nobody thought of.
UNSEEN = ("snow", "motion_blur")
SEEN = tuple(name for name in KINDS if name not in ("clear", *UNSEEN))


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """How pairs are drawn.

    Args:
        clear_share: of pictures that are not degraded; the published training has 1/16.
        published_share: of degradations drawn from the published ranges instead of a severity.
    """

    scenes_per_step: int = 16
    pool_size: int = 768
    fresh_per_step: int = 4
    clear_share: float = 1 / 8
    published_share: float = 0.2


@dataclass(frozen=True)
class Encoded:
    """Image embedding (B, D, g, g) and early feature (B, C, g, g) of B pictures."""

    embedding: Tensor
    early: Tensor

    def rows(self, index: Tensor) -> Encoded:
        return Encoded(self.embedding[index], self.early[index])


@torch.no_grad()
def encode(sam: Sam, images: Tensor) -> Encoded:
    """Encode pictures uint8 or float (B, 3, S, S) in [0, 255] by SAM's frozen encoder."""
    pixels = (images.float() - sam.pixel_mean) / sam.pixel_std
    embedding, early = sam.image_encoder.forward_features(pixels)
    return Encoded(embedding.float(), early.float())


class DegradedPairs:
    """A rolling pool of encoded clear scenes, each seen several times under new degradations."""

    def __init__(self, sam: Sam, generator: SceneGenerator, config: PairConfig, seed: int) -> None:
        self.sam, self.generator, self.config = sam, generator, config
        self.random = torch.Generator().manual_seed(seed)
        self.stored: list[tuple[Scenes, Encoded]] = []
        self.next = 0

    def batch(self) -> tuple[Scenes, Encoded, list[Degraded]]:
        """Draw clear scenes, their encodings, and each degraded."""
        self._add(self.config.fresh_per_step if self.stored else self.config.scenes_per_step)
        count = min(self.config.scenes_per_step, len(self.stored))
        chosen = torch.randperm(len(self.stored), generator=self.random)[:count].tolist()
        scenes = _join([self.stored[i][0] for i in chosen])
        embeddings, early = (
            torch.cat([getattr(self.stored[i][1], name).float() for i in chosen])
            for name in ("embedding", "early")
        )
        encoded = Encoded(embeddings, early)
        pictures = scenes.images.permute(0, 2, 3, 1).cpu().numpy()
        return scenes, encoded, [self._degrade(np.ascontiguousarray(one)) for one in pictures]

    def _degrade(self, picture: np.ndarray) -> Degraded:
        draw = torch.rand(2, generator=self.random).tolist()
        seed = int(torch.randint(2**31, (), generator=self.random))
        kind = int(torch.randint(len(SEEN), (), generator=self.random))
        severity = int(torch.randint(1, 6, (), generator=self.random))
        if draw[0] < self.config.clear_share:
            return degrade(picture, "clear")
        published = draw[1] < self.config.published_share
        return degrade(picture, SEEN[kind], severity=None if published else severity, seed=seed)

    def _add(self, count: int) -> None:
        scenes = self.generator.batch(count)
        encoded = encode(self.sam, scenes.images)
        for i, one in enumerate(_split(scenes)):
            # Half precision: a thousand scenes are 100 MB.
            halves = Encoded(encoded.embedding[i : i + 1].half(), encoded.early[i : i + 1].half())
            if len(self.stored) < self.config.pool_size:
                self.stored.append((one, halves))
            else:
                self.stored[self.next] = (one, halves)
                self.next = (self.next + 1) % self.config.pool_size


def _split(scenes: Scenes) -> Iterator[Scenes]:
    for i in range(len(scenes.images)):
        yield Scenes(**{name: value[i : i + 1] for name, value in scenes.__dict__.items()})


def _join(scenes: list[Scenes]) -> Scenes:
    return Scenes(**{k: torch.cat([getattr(s, k) for s in scenes]) for k in scenes[0].__dict__})
