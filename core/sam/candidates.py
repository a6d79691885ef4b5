"""Masks of many single-point prompts, measured, filtered and freed of duplicates.

The common first half of everything mode, edge detection and object proposals. Only masks whose
predicted IoU passes are upscaled at all, only where they can be, and full-size masks are made at
the end, for those that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from core.masks import mask_to_box
from core.sam.predictor import ImageEmbedding, Predictor
from core.sam.regions import RegionUpscaler, upscaler_for

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken

# Called with the finished fraction in [0, 1] and a sentence.
Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One mask of one point, not yet at full size.

    Args:
        low_res_logits: (4g, 4g).
        predicted_iou: the model's estimate.
        stability_score: IoU of the masks at the two shifted thresholds, 0 if both are empty.
        area: pixels at the original size.
        box: float32 (4,) x0, y0, x1, y1 in pixels, the last ones included; zeros if empty.
        point: (2,) x, y in pixels: the prompt.
    """

    low_res_logits: Tensor
    predicted_iou: float
    stability_score: float
    area: int
    box: NDArray[np.float32]
    point: NDArray[np.float64]


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """Centres (n*n, 2) of n x n cells of the unit square as x, y, row by row."""
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(centres, centres)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def find_candidates(
    predictor: Predictor,
    embedding: ImageEmbedding,
    points: NDArray[np.float64],
    *,
    pred_iou_thresh: float = 0.0,
    stability_score_thresh: float = 0.0,
    stability_score_offset: float = 1.0,
    points_per_batch: int | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Predict three masks for each foreground point and keep those that pass.

    Args:
        points: (N, 2) x, y in pixels of the embedded picture.
        pred_iou_thresh: keep masks of a higher predicted IoU; 0 keeps all.
        stability_score_thresh: keep masks at least as stable; 0 keeps all.
        stability_score_offset: shift of the logit threshold, up and down.
        points_per_batch: None: as many as one decoder call takes.

    Raises:
        Cancelled: on request, between batches.
    """
    upscaler = upscaler_for(embedding.geometry, predictor.low_res_side, predictor.device)
    step = points_per_batch or predictor.batch_size
    found: list[Candidate] = []
    for start in range(0, len(points), step):
        if cancel is not None:
            cancel.raise_if_cancelled(f"after {start} of {len(points)} points")
        batch = points[start : start + step]
        prediction = predictor.predict_batch(
            embedding, point_coords=batch[:, None], point_labels=np.ones((len(batch), 1))
        )
        iou = prediction.iou_predictions.flatten()  # (B*3,)
        passing = (iou > pred_iou_thresh) if pred_iou_thresh > 0 else torch.ones_like(iou).bool()
        measured = _measure(
            upscaler,
            prediction.low_res_logits.flatten(0, 1)[passing],
            iou[passing].tolist(),
            np.repeat(batch, 3, axis=0)[passing.cpu().numpy()],
            stability_score_offset,
        )
        found += [c for c in measured if c.stability_score >= stability_score_thresh]
        if progress is not None:
            done = min(start + step, len(points))
            progress(done / len(points), f"{done} of {len(points)} points")
    return found


def suppress_duplicates(
    boxes: Sequence[NDArray[np.float32]], scores: Sequence[float], iou_thresh: float
) -> list[int]:
    """Box NMS: indices of what stays, best score first; equal scores keep their order."""
    if not boxes:
        return []
    kept = nms(
        torch.from_numpy(np.stack(boxes)), torch.tensor(scores, dtype=torch.float32), iou_thresh
    )
    return kept.tolist()


def _measure(
    upscaler: RegionUpscaler,
    low_res_logits: Tensor,
    predicted_iou: list[float],
    points: NDArray[np.float64],
    offset: float,
) -> Iterator[Candidate]:
    """Yield n measured candidates of (n, 4g, 4g) logits, in order."""
    regions = upscaler.regions(low_res_logits, -offset)
    for low_res, iou, point, region in zip(
        low_res_logits, predicted_iou, points, regions, strict=True
    ):
        if region is None:
            yield Candidate(low_res, iou, 0.0, 0, np.zeros(4, np.float32), point)
            continue
        logits = upscaler.upscale(low_res, region).cpu().numpy()
        mask = logits > 0
        union = np.count_nonzero(logits > -offset)
        stability = np.count_nonzero(logits > offset) / union if union else 0.0
        area = int(np.count_nonzero(mask))
        box = np.zeros(4, np.float32)
        if area:
            x0, y0 = region.x.start, region.y.start
            box = (mask_to_box(mask) + (x0, y0, x0 - 1, y0 - 1)).astype(np.float32)
        # A copy: a view would keep the logits of the whole batch in memory.
        yield Candidate(low_res.clone(), iou, stability, area, box, point)
