"""Object proposals: up to 1000 masks that cover what is in a picture (paper, section 7.3).

A dense grid of points, no filter by predicted IoU or stability, box NMS at 0.9; what is above
1000 goes by the mean of both scores (appendix D.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.models.presets import ProposalConfig
from core.sam.candidates import (
    Candidate,
    Progress,
    find_candidates,
    point_grid,
    suppress_duplicates,
)
from core.sam.predictor import ImageEmbedding, Predictor
from core.sam.regions import upscaler_for

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken


@dataclass(frozen=True, eq=False)
class Proposal:
    """A mask bool (H, W) with its predicted IoU and stability score."""

    mask: NDArray[np.bool_]
    predicted_iou: float
    stability_score: float


def propose_objects(
    predictor: Predictor,
    embedding: ImageEmbedding,
    config: ProposalConfig | None = None,
    *,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> list[Proposal]:
    """Propose masks of objects, the best mean of predicted IoU and stability first.

    Raises:
        Cancelled: on request, between batches of points.
    """
    config = config or ProposalConfig()
    height, width = embedding.original_size
    found = find_candidates(
        predictor,
        embedding,
        point_grid(config.points_per_side) * (width, height),
        cancel=cancel,
        progress=progress,
    )
    found = [candidate for candidate in found if candidate.area]
    kept = suppress_duplicates(
        [c.box for c in found], [c.predicted_iou for c in found], config.box_nms_thresh
    )
    ranked = sorted((found[i] for i in kept), key=_mean_score, reverse=True)
    upscaler = upscaler_for(embedding.geometry, predictor.low_res_side, predictor.device)
    return [
        Proposal(upscaler.mask(c.low_res_logits), c.predicted_iou, c.stability_score)
        for c in ranked[: config.max_proposals]
    ]


def _mean_score(candidate: Candidate) -> float:
    return (candidate.predicted_iou + candidate.stability_score) / 2
