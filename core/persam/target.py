"""Target features: what an object looks like to SAM's encoder (paper, section 3.1).

The reference mask is brought to the grid of the embedding and the features of its cells are
pooled. Letters: R reference pictures, C channels, g side of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.errors import PromptError
from core.persam.config import PersamConfig, Pooling
from core.sam.geometry import Geometry
from core.sam.predictor import ImageEmbedding, Predictor

FULL_FRAME = 0.95  # of the picture: more than that is hardly one object


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture of the object, RGB uint8 (H, W, 3), and where it is in it, bool (H, W).

    Raises:
        PromptError: the mask is empty or of another size than the picture.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.mask.shape != self.image.shape[:2]:
            height, width = self.mask.shape[:2]
            raise PromptError(
                f"The mask is {width}×{height} pixels and the picture is "
                f"{self.image.shape[1]}×{self.image.shape[0]}: give a mask of the picture's size."
            )
        if not self.mask.any():
            raise PromptError("The reference mask is empty: paint the object first.")


@dataclass(frozen=True, eq=False)
class Target:
    """Pooled features of one object in R reference pictures, float32 on the CPU.

    Args:
        means, maxima: (R, C) over the object's cells, not normalised.
    """

    means: Tensor
    maxima: Tensor

    @property
    def embedding(self) -> Tensor:
        """T_R of target-semantic prompting, (1, 1, C), not normalised."""
        return self.means.mean(dim=0)[None, None]

    def feature(self, pooling: Pooling) -> Tensor:
        """Direction (1, C) of unit length that cells of a picture are compared with."""
        vectors = self.means if pooling == "mean" else (self.maxima + self.means) / 2
        if len(vectors) > 1:  # each reference counts alike, however strong its features
            vectors = F.normalize(vectors, dim=1).mean(dim=0, keepdim=True)
        return vectors / vectors.norm(dim=1, keepdim=True)

    @classmethod
    def merge(cls, targets: list[Target]) -> Target:
        """One object from several pictures."""
        means, maxima = zip(*((target.means, target.maxima) for target in targets), strict=True)
        return cls(torch.cat(means), torch.cat(maxima))


def pool_target(
    predictor: Predictor,
    embedding: ImageEmbedding,
    mask: NDArray[np.bool_],
    config: PersamConfig,
) -> tuple[Target, tuple[str, ...]]:
    """Pool the features of one reference picture.

    Args:
        embedding: of the reference picture.
        mask: bool (H, W), not empty.

    Returns:
        The target (R = 1), and warnings for the visitor.
    """
    grid = mask_to_grid(predictor, mask, embedding.geometry, config.mask_value)
    cells = grid > 0  # (g, g)
    warnings = []
    if not cells.any():
        cells = covered_cells(mask, embedding.geometry, len(grid))
        warnings.append(
            "The object is smaller than one cell of the model's grid "
            f"({cell_side(embedding.geometry, len(grid)):.0f} px of this picture): its features "
            "are mixed with its surroundings, so a closer picture works better."
        )
    if mask.mean() > FULL_FRAME:
        warnings.append(
            f"The mask covers {mask.mean():.0%} of the reference picture: there is nothing that "
            "the object could be told from."
        )
    features = pool_cells(embedding, cells)  # (n, C)
    target = Target(
        features.mean(dim=0, keepdim=True).cpu(), features.max(dim=0, keepdim=True).values.cpu()
    )
    return target, tuple(warnings)


def mask_to_grid(
    predictor: Predictor, mask: NDArray[np.bool_], geometry: Geometry, value: int
) -> Tensor:
    """Bring a mask (H, W) to the grid (g, g) the published way; foreground where positive.

    That way is the picture's own: drawn in 0 and ``value``, resized, normalised, padded with 0.
    """
    drawn = np.repeat((mask * np.uint8(value))[..., None], 3, axis=2)
    red = torch.from_numpy(geometry.resize(drawn)[..., 0].copy()).float()  # (h, w)
    mean, std = (float(t.flatten()[0]) for t in (predictor.sam.pixel_mean, predictor.sam.pixel_std))
    height, width = geometry.input_size
    side = geometry.image_size
    pixels = F.pad((red - mean) / std, (0, side - width, 0, side - height))
    grid = (predictor.low_res_side // 4,) * 2
    return F.interpolate(pixels[None, None], grid, mode="bilinear", align_corners=False)[0, 0]


def covered_cells(mask: NDArray[np.bool_], geometry: Geometry, grid_side: int) -> Tensor:
    """Cells (g, g) that a mask (H, W) covers: by half or more, else those that it covers most."""
    pixels = torch.from_numpy(mask).float()[None, None]
    pixels = F.interpolate(pixels, geometry.input_size, mode="area")
    height, width = geometry.input_size
    side = geometry.image_size
    pixels = F.pad(pixels, (0, side - width, 0, side - height))
    coverage = F.avg_pool2d(pixels, side // grid_side)[0, 0]  # (g, g)
    return coverage >= min(0.5, max(float(coverage.max()) / 2, 1e-9))


def pool_cells(embedding: ImageEmbedding, cells: Tensor) -> Tensor:
    """Features (n, C) of n cells (g, g) of a picture."""
    features = embedding.features[0].permute(1, 2, 0)  # (g, g, C)
    return features[cells.to(features.device)]


def cell_side(geometry: Geometry, grid_side: int) -> float:
    """Side of a grid cell in pixels of the original picture."""
    return geometry.image_size / grid_side * max(geometry.original_size) / max(geometry.input_size)
