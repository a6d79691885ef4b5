"""Whether the object is in the picture at all: the question that PerSAM never asks.

PerSAM always answers with a mask. Its evidence is weighed here: how much the best cell looks like
the target, and how much the whole mask does, compared by the features under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from core.masks import iou
from core.persam.cascade import Stage
from core.persam.target import covered_cells, pool_cells
from core.sam.predictor import ImageEmbedding

if TYPE_CHECKING:
    from core.models.catalogue import Entry


@dataclass(frozen=True)
class Presence:
    """Evidence that a mask shows the object.

    Args:
        peak: highest cosine of a pixel with the target.
        pooled: cosine of the mean feature under the mask with the target; -1 for an empty mask.
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
    embedding: ImageEmbedding, feature: Tensor, peak: float, stages: Sequence[Stage]
) -> Presence:
    """Weigh the answer of a cascade.

    Args:
        feature: the target's (1, C), of unit length.
        peak: highest value of the similarity map that the points were taken from.
    """
    last = stages[-1]
    pooled = -1.0
    if last.mask.any():
        cells = covered_cells(last.mask, embedding.geometry, embedding.features.shape[-1])
        mean = F.normalize(pool_cells(embedding, cells).mean(dim=0), dim=0).cpu()
        pooled = float(feature[0] @ mean)
    return Presence(peak, pooled, last.score, iou(stages[0].mask, last.mask))


def calibrated_threshold(entry: Entry) -> float | None:
    """The threshold that a model's card carries (``presence_threshold``), if it was calibrated.

    ``python -m core.evaluation persam`` calibrates it; scores of two models do not compare.
    """
    value = entry.read_card().get("presence_threshold")
    return None if value is None else float(value)


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
