"""Object proposals (SAM paper, section 7.3): mask AR at up to 1000 proposals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from core.evaluation.data import Example
from core.masks import pairwise_iou
from core.sam.predictor import Predictor
from core.sam.proposals import ProposalConfig, propose_objects

IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)


def evaluate_proposals(
    predictor: Predictor, examples: Iterable[Example], config: ProposalConfig
) -> dict[str, float]:
    """Average recall over IoU 0.50 to 0.95, recall at 0.5, and proposals per picture."""
    best: list[float] = []
    counts: list[int] = []
    for example in examples:
        proposals = propose_objects(predictor, predictor.encode(example.image), config)
        counts.append(len(proposals))
        masks = np.array([p.mask for p in proposals]).reshape(-1, *example.image.shape[:2])
        ious = pairwise_iou(example.masks, masks)
        best += ious.max(axis=1, initial=0).tolist()
    recalls = [float(np.mean(np.array(best) >= t)) for t in IOU_THRESHOLDS]
    return {
        "average_recall": float(np.mean(recalls)),
        "recall_at_50": recalls[0],
        "proposals_per_picture": float(np.mean(counts)),
    }
