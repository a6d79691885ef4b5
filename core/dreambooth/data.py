"""What a step is fed with: latents, their masks, noise and timesteps, by picture and crop.

Pictures are encoded once and kept by picture and crop, so that a latent can never meet another
picture's mask, however the pictures are shuffled. Letters: B pictures, C latent channels, h×w
latent cells, S side of a picture, f pixels of a latent cell's side.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.dreambooth.loss import latent_mask, weight_map
from core.dreambooth.randomness import generator_at, position, random_below
from core.dreambooth.transforms import Crop, choose_crop, cut_mask, cut_picture

if TYPE_CHECKING:
    from core.dreambooth.config import DreamBoothConfig
    from core.dreambooth.model import DiffusionModel

MIB = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Record:
    """One crop of one picture, as training sees it; on the CPU.

    Args:
        picture: its index.
        mean, std: of the latent's distribution, (C, h, w), scaled as the network expects.
        mask: where the loss counts, (1, h, w) in [0, 1].
    """

    picture: int
    crop: Crop
    mean: Tensor
    std: Tensor
    mask: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a latent (C, h, w)."""
        return self.mean + self.std * torch.randn(self.mean.shape, generator=generator)


@dataclass(frozen=True, eq=False)
class Batch:
    """B pictures of the subject and, with prior preservation, behind them B of the class.

    Args:
        latents, noise: (B or 2B, C, h, w).
        timesteps: (B or 2B,).
        mask: of the subject's pictures only, (B, 1, h, w).
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(
            self.latents.to(device),
            self.noise.to(device),
            self.timesteps.to(device),
            self.mask.to(device),
        )


class PictureLatents:
    """Latents of some pictures, encoded once for each of their fixed crops, or at each request.

    Args:
        name: of these pictures, for their random numbers.
        pictures: (image, mask) each: RGB uint8 (H, W, 3), bool (H, W).
    """

    def __init__(
        self,
        model: DiffusionModel,
        name: str,
        pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
        config: DreamBoothConfig,
    ) -> None:
        self._model = model
        self._name = name
        self._pictures = pictures
        self._config = config
        self._side = config.resolution or model.resolution
        self._records: dict[tuple[int, int], Record] = {}  # by picture and crop
        self._cached = config.cache_latents

    def __len__(self) -> int:
        return len(self._pictures)

    def fill(self) -> Iterator[tuple[int, int]]:
        """Encode all crops of all pictures; yields (done, all) pictures. Nothing if not cached."""
        if self._cached and self._expected_mib() > self._config.cache_mib:
            _log.warning(
                "latents of %d pictures would take %d MiB: they are encoded at each step",
                len(self),
                self._expected_mib(),
            )
            self._cached = False
        if not self._cached:
            return
        for index in range(len(self)):
            for number in range(self._crops_of(index)):
                place = generator_at(self._config.seed, self._name, index, number)
                self._records[index, number] = self._encode(index, self._draw(index, place))
            yield index + 1, len(self)

    def get(self, index: int, generator: torch.Generator) -> Record:
        """One crop of a picture, drawn by the generator."""
        if not self._cached:
            return self._encode(index, self._draw(index, generator))
        return self._records[index, random_below(self._crops_of(index), generator)]

    def _crops_of(self, index: int) -> int:
        """Of a square picture, without mirroring, all crops are the same."""
        height, width = self._pictures[index][0].shape[:2]
        if self._config.flip or (height != width and self._config.random_crop):
            return self._config.crops_per_picture
        return 1

    def _expected_mib(self) -> int:
        cells = (self._side // self._model.factor) ** 2
        crops = sum(self._crops_of(index) for index in range(len(self)))
        return crops * cells * (2 * self._model.channels + 1) * 4 // MIB

    def _draw(self, index: int, generator: torch.Generator) -> Crop:
        return choose_crop(
            self._pictures[index][1],
            self._side,
            generator,
            random_crop=self._config.random_crop,
            flip=self._config.flip,
        )

    def _encode(self, index: int, crop: Crop) -> Record:
        image, mask = self._pictures[index]
        mean, std = self._model.encode_pixels(cut_picture(image, crop)[None])
        cells = latent_mask(cut_mask(mask, crop)[None], self._model.factor)  # (1, 1, h, w)
        weights = weight_map(
            cells, dilate=self._config.dilate, background_weight=self._config.background_weight
        )
        return Record(index, crop, mean[0].cpu(), std[0].cpu(), weights[0])


class Batches:
    """The batch of any step, the same however a training came to it.

    Args:
        own: of the subject's pictures.
        other: of the class's, None without prior preservation.
        timesteps: of the noise schedule.
    """

    def __init__(
        self,
        own: PictureLatents,
        other: PictureLatents | None,
        config: DreamBoothConfig,
        timesteps: int,
    ) -> None:
        self._own = own
        self._other = other
        self._config = config
        self._timesteps = timesteps

    def make(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Make the batch of a step for one of ``world`` processes."""
        size, seed = self._config.batch_size, self._config.seed
        draw = generator_at(seed, "batch", step, rank)
        first = (step * world + rank) * size
        records = [
            pictures.get(position(first + k, len(pictures), seed, name), draw)
            for name, pictures in (("own", self._own), ("class", self._other))
            if pictures is not None
            for k in range(size)
        ]
        latents = torch.stack([record.sample(draw) for record in records])
        noise = torch.randn(latents.shape, generator=draw)
        if self._config.offset_noise:
            shift = torch.randn((*latents.shape[:2], 1, 1), generator=draw)
            noise = noise + self._config.offset_noise * shift
        timesteps = torch.randint(self._timesteps, (len(records),), generator=draw)
        mask = torch.stack([record.mask for record in records[:size]])
        return Batch(latents, noise, timesteps, mask)
