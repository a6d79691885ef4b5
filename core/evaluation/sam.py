"""Promptable segmentation: one click, best of three, boxes, and correction clicks.

Protocol of SAM's paper, section 7.1 and appendix D: the first click lies farthest from the
mask's edge, each next one farthest from the edge of the error region; the answer to one click
is the mask of the highest predicted IoU, "oracle" the best of the three; mIoU is the mean over
masks. A box is the truth's own, answered like one click.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core import masks as mask_ops
from core.evaluation.data import Example
from core.evaluation.metrics import bootstrap_interval, rank_correlation
from core.sam.predictor import ImageEmbedding, Prediction, Predictor

CLICKS = 3
AREA_BANDS = {
    "under_1_percent": (0, 0.01),
    "1_to_5_percent": (0.01, 0.05),
    "over_5_percent": (0.05, 1),
}


@dataclass
class Scores:
    """IoU (fractions) of every mask, by protocol; ``areas`` and ``predicted`` in step."""

    one_click: list[float] = field(default_factory=list)
    one_click_oracle: list[float] = field(default_factory=list)
    box: list[float] = field(default_factory=list)
    three_click: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Means over masks, and Spearman's correlation of predicted and true IoU."""
        return {
            "one_click_miou": float(np.mean(self.one_click)),
            "one_click_oracle_miou": float(np.mean(self.one_click_oracle)),
            "box_miou": float(np.mean(self.box)),
            "three_click_miou": float(np.mean(self.three_click)),
            "iou_rank_correlation": rank_correlation(self.predicted, self.one_click),
        }

    def details(self) -> dict[str, object]:
        """95 % bootstrap intervals, and means by the object's share of the picture."""
        names = ("one_click", "one_click_oracle", "box", "three_click")
        areas = np.array(self.areas)
        bands: dict[str, dict[str, float]] = defaultdict(dict)
        for band, (low, high) in AREA_BANDS.items():
            rows = (areas >= low) & (areas < high)
            bands[band] = {"masks": int(rows.sum())}
            if rows.any():
                bands[band] |= {n: float(np.array(getattr(self, n))[rows].mean()) for n in names}
        intervals = {n: bootstrap_interval(getattr(self, n)) for n in names}
        return {"masks": len(areas), "interval_95": intervals, "by_area": dict(bands)}


def evaluate(predictor: Predictor, examples: Iterable[Example]) -> Scores:
    """Score ``predictor`` on every mask of every example."""
    scores = Scores()
    for example in examples:
        embedding = predictor.encode(example.image)
        boxes = np.stack([mask_ops.mask_to_box(m) for m in example.masks]).astype(np.float32)
        clicks = np.array([[mask_ops.farthest_point(m)] for m in example.masks], np.float32)
        labels = np.ones(clicks.shape[:2], np.int64)
        boxed = predictor.predict_batch(embedding, boxes=boxes, multimask_output=True)
        clicked = predictor.predict_batch(
            embedding, point_coords=clicks, point_labels=labels, multimask_output=True
        )
        scores.box += list(_true_ious(boxed, example.masks)[_rows(boxed), boxed.best()])
        ious = _true_ious(clicked, example.masks)
        best = clicked.best()
        scores.one_click += list(ious[_rows(clicked), best])
        scores.one_click_oracle += list(ious.max(axis=1))
        scores.predicted += clicked.iou_predictions.cpu().numpy()[_rows(clicked), best].tolist()
        scores.areas += example.masks.mean(axis=(1, 2)).tolist()
        scores.three_click += _correct(predictor, embedding, clicked, clicks, example.masks)
    return scores


def _rows(prediction: Prediction) -> NDArray[np.intp]:
    return np.arange(len(prediction))


def _true_ious(prediction: Prediction, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of every candidate with its prompt's truth, (N, M)."""
    return np.array(
        [
            [mask_ops.iou(candidate, true) for candidate in candidates]
            for candidates, true in zip(prediction.masks(), truth, strict=True)
        ]
    )


def _correct(
    predictor: Predictor,
    embedding: ImageEmbedding,
    prediction: Prediction,
    clicks: NDArray[np.float32],
    truth: NDArray[np.bool_],
) -> list[float]:
    """Add clicks where the former answer errs, with its logits as mask input; final IoUs."""
    labels = np.ones(clicks.shape[:2], np.int64)
    for _ in range(CLICKS - 1):
        rows, best = _rows(prediction), prediction.best()
        answers = prediction.masks()[rows, best]
        added = [_next_click(answer, true) for answer, true in zip(answers, truth, strict=True)]
        points, signs = zip(*added, strict=True)
        clicks = np.concatenate([clicks, np.array(points, np.float32)[:, None]], axis=1)
        labels = np.concatenate([labels, np.array(signs)[:, None]], axis=1)
        prediction = predictor.predict_batch(
            embedding,
            point_coords=clicks,
            point_labels=labels,
            mask_input=prediction.low_res_logits[rows, best][:, None],
            multimask_output=False,
        )
    return list(_true_ious(prediction, truth)[:, 0])


def _next_click(
    answer: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> tuple[tuple[float, float], int]:
    """The error region's innermost pixel and its label; a perfect answer repeats the first."""
    error = answer ^ truth
    x, y = mask_ops.farthest_point(error if error.any() else truth)
    return (x, y), int(truth[y, x])
