"""Whether the object is in the picture at all: the question that PerSAM never asks.

PerSAM always answers with a mask. Its evidence is weighed here: how much the best cell looks like
the target, and how much the whole mask does, compared by the features under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from core.masks import iou
from core.persam.cascade import Stage
from core.persam.target import Target, covered_cells, pool_cells
from core.sam.predictor import ImageEmbedding


@dataclass(frozen=True)
class Presence:
    """Evidence that a mask shows the object.

    Args:
        peak: cosine of the first positive point with the target.
        pooled: cosine of the mean feature under the mask with the target; -1 for an empty mask.
            The target is the mean feature for every variant, so that one threshold serves all.
        predicted_iou: of the last pass.
        agreement: IoU of the first pass's mask and the last one's.
    """

    peak: float
    pooled: float
    predicted_iou: float
    agreement: float

    @property
    def score(self) -> float:
        """Presence score in [0, 1]: the mean of both cosines, negative values cut off.

        The other two tell a good mask from a bad one, whatever it shows.
        """
        return max(0.0, min(1.0, (self.peak + self.pooled) / 2))


def weigh(
    embedding: ImageEmbedding, target: Target, peak: float, stages: Sequence[Stage]
) -> Presence:
    """Weigh the answer of a cascade; ``peak`` as in Presence."""
    feature = target.feature("mean")  # (1, C)
    last = stages[-1]
    pooled = -1.0
    if last.mask.any():
        cells = covered_cells(last.mask, embedding.geometry, embedding.features.shape[-1])
        mean = F.normalize(pool_cells(embedding, cells).mean(dim=0), dim=0).cpu()
        pooled = float(feature[0] @ mean)
    return Presence(peak, pooled, last.score, iou(stages[0].mask, last.mask))


def calibrate_threshold(present: ArrayLike, absent: ArrayLike) -> float:
    """Choose the score below which the answer is "not in this picture".

    Args:
        present, absent: scores (N,), (M,) of pictures with and without the object.

    Returns:
        The score between two neighbouring ones with the most right answers, both kinds of
        picture counting alike.

    Raises:
        ValueError: one of them is empty.
    """
    present, absent = np.sort(np.asarray(present)), np.sort(np.asarray(absent))
    if not (len(present) and len(absent)):
        raise ValueError(f"{len(present)} and {len(absent)} scores; both must be given")
    scores = np.unique(np.concatenate([present, absent]))
    between = scores[:-1] + (scores[1:] - scores[:-1]) / 2
    between = np.where(between > scores[:-1], between, scores[1:])  # neighbours among floats
    thresholds = np.concatenate([scores[:1], between, scores[-1:] + 1e-6])
    right = absent_rate(absent, thresholds) + 1 - absent_rate(present, thresholds)
    return float(thresholds[right.argmax()])


def absent_rate(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of scores below each threshold."""
    scores = np.sort(np.asarray(scores))
    return np.searchsorted(scores, np.asarray(thresholds), side="left") / len(scores)
