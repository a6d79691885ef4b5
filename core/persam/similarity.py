"""Where a picture looks like the target: similarity, location prior, guidance (section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.errors import PromptError
from core.persam.config import PersamConfig
from core.persam.target import cell_side
from core.prompts import BACKGROUND, FOREGROUND, Points
from core.sam.geometry import Geometry
from core.sam.predictor import ImageEmbedding


@dataclass(frozen=True, eq=False)
class SimilarityMap:
    """Cosine of a target with every cell of a picture.

    Args:
        grid: float32 (g, g) on the CPU, padded cells included.
        geometry: the picture's place in the model's input.
    """

    grid: Tensor
    geometry: Geometry

    @classmethod
    def of(cls, embedding: ImageEmbedding, feature: Tensor) -> SimilarityMap:
        """Compare a picture's cells with a target feature (1, C) of unit length.

        Raises PromptError if the feature has not as many channels as the embedding.
        """
        cells = embedding.features[0]  # (C, g, g)
        if feature.shape[1] != len(cells):
            raise PromptError(
                f"The object's features have {feature.shape[1]} channels and the model's "
                f"{len(cells)}: learn it again with this model."
            )
        cells = cells / cells.norm(dim=0, keepdim=True)
        side = cells.shape[-1]
        cosine = feature.to(cells.device) @ cells.flatten(1)  # (1, g*g)
        return cls(cosine.view(side, side).cpu(), embedding.geometry)

    @property
    def cell_side(self) -> float:
        """Side of a grid cell in pixels of the picture."""
        return cell_side(self.geometry, len(self.grid))

    def full(self) -> Tensor:
        """The map (H, W) at the picture's size, by the way of mask logits."""
        low_res = F.interpolate(
            self.grid[None, None], scale_factor=4, mode="bilinear", align_corners=False
        )
        return self.geometry.upscale(low_res)[0, 0]


def choose_points(similarity: Tensor, cell: float, config: PersamConfig) -> Points:
    """Location prior: the most similar pixels as foreground, the least similar as background.

    Args:
        similarity: (H, W) at the picture's size.
        cell: side of a grid cell in its pixels.

    Returns:
        ``config.points`` positive points, the best first, then the negative one.
    """
    apart = cell if config.distinct_points and config.points > 1 else 0.0
    positive = peaks(similarity, config.points, apart)
    negative = peaks(-similarity, 1 if config.negative_point else 0, 0.0)
    labels = [FOREGROUND] * len(positive) + [BACKGROUND] * len(negative)
    return Points(np.concatenate([positive, negative]), np.array(labels, np.int64))


def peaks(values: Tensor, count: int, apart: float) -> NDArray[np.float32]:
    """Positions (K, 2) as x, y of the highest values, K at most ``count``.

    Args:
        values: (H, W).
        apart: least distance in pixels between two of them along x or y; 0: any.
    """
    height, width = values.shape
    if not apart:
        best = values.flatten().topk(min(count, values.numel())).indices.cpu().numpy()
        return np.stack([best % width, best // width], axis=1).astype(np.float32)
    values = values.clone()
    found = []
    for _ in range(count):
        y, x = divmod(int(values.argmax()), width)
        if values[y, x] == -torch.inf:
            break
        found.append((x, y))
        reach = max(1, round(apart))
        values[max(0, y - reach + 1) : y + reach, max(0, x - reach + 1) : x + reach] = -torch.inf
    return np.array(found, np.float32).reshape(-1, 2)


def guidance_map(
    similarity: Tensor, geometry: Geometry, grid_side: int, *, aligned: bool
) -> Tensor:
    """Turn a similarity map (H, W) into what guides the attention: (g, g) in (0, 1).

    The map is standardised and goes through a sigmoid (paper: a softmax). The published code
    stretches a picture that is not square over the padding; ``aligned`` keeps it in its place
    and gives the padding the least value.
    """
    z = similarity - similarity.mean()
    if z.any():
        z = z / z.std()
    rows, columns = grid_side, grid_side
    if aligned:
        rows, columns = (
            max(1, round(side * grid_side / geometry.image_size)) for side in geometry.input_size
        )
    z = F.interpolate(z[None, None], (rows, columns), mode="bilinear", align_corners=False)[0, 0]
    z = F.pad(z, (0, grid_side - columns, 0, grid_side - rows), value=float(z.min()))
    return z.sigmoid()
