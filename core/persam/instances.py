"""Find an object in a picture: one instance, several, or none; and let objects compete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import PromptError
from core.masks import iou, mask_to_box
from core.persam.cascade import Prompt, Stage, as_prediction, run_cascade, stage_of
from core.persam.config import PersamConfig
from core.persam.presence import Presence, weigh
from core.persam.scale import ScaleWeights
from core.persam.similarity import SimilarityMap, choose_points, guidance_map
from core.persam.target import Target
from core.prompts import FOREGROUND, Points
from core.sam.predictor import ImageEmbedding, Predictor

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken


@dataclass(frozen=True, eq=False)
class Found:
    """One answer: what it was prompted with, its passes, and the evidence for it.

    Args:
        accepted: whether it counts as the object; else the object is "not in this picture".
        number: the instance's number in the result, kept through corrections.
    """

    points: Points
    stages: tuple[Stage, ...]
    presence: Presence
    accepted: bool
    number: int = 0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The answer's mask (H, W)."""
        return self.stages[-1].mask


def find_instances(
    predictor: Predictor,
    embedding: ImageEmbedding,
    target: Target,
    weights: ScaleWeights | None,
    config: PersamConfig,
    *,
    taken: Sequence[NDArray[np.bool_]] = (),
    cancel: CancelToken | None = None,
) -> tuple[SimilarityMap, list[Found]]:
    """Look for an object, then on the same similarity map for further instances of it.

    What was found is levelled to the map's mean, and the next highest place is tried, until that
    is no longer similar enough, or its mask is one that was found already.

    Args:
        weights: PerSAM-F's, needed if the configuration says so.
        taken: masks (H, W) where the object is not to be looked for.

    Returns:
        The similarity map, and one or more answers; only the first may be not accepted.

    Raises:
        PromptError: the target is of another model, or the weights are missing.
        Cancelled: on request.
    """
    feature = target.feature(config.pooling)
    similarity = SimilarityMap.of(embedding, feature)
    full = similarity.full()
    own = full  # of the mean feature, for the evidence
    if config.pooling != "mean":
        own = SimilarityMap.of(embedding, target.feature("mean")).full()
    mean, first_rise = full.mean(), None
    for mask in taken:
        full = _level(full, mask, mean)
    found: list[Found] = []
    while len(found) < config.max_instances:
        if cancel is not None:
            cancel.raise_if_cancelled(f"after {len(found)} instances")
        peak = full.max()
        first_rise = peak - mean if first_rise is None else first_rise
        if found and peak - mean < config.instance_ratio * first_rise:
            break
        prompt = _prompt(full, similarity, target, weights, config)
        stages = run_cascade(predictor, embedding, prompt, config)
        presence = weigh(embedding, target, _likeness(own, prompt.points), stages)
        threshold = config.presence_threshold
        accepted = stages[-1].mask.any() and (threshold is None or presence.score >= threshold)
        repeated = any(iou(stages[-1].mask, f.mask) >= config.same_instance_iou for f in found)
        if found and (repeated or not accepted):
            break
        found.append(Found(prompt.points, stages, presence, bool(accepted)))
        if not accepted:
            break
        full = _level(full, found[-1].mask, mean)
    return similarity, found


def _prompt(
    full: Tensor,
    similarity: SimilarityMap,
    target: Target,
    weights: ScaleWeights | None,
    config: PersamConfig,
) -> Prompt:
    """Location prior, guidance and semantic prompt from a similarity map (H, W)."""
    guidance = None
    if config.guided_attention:
        guidance = guidance_map(
            full, similarity.geometry, len(similarity.grid), aligned=config.aligned_guidance
        )
    return Prompt(
        points=choose_points(full, similarity.cell_side, config),
        guidance=guidance,
        target_embedding=target.embedding if config.semantic_prompt else None,
        scale_weights=_scale_vector(weights, config),
    )


def _scale_vector(weights: ScaleWeights | None, config: PersamConfig) -> NDArray[np.float32] | None:
    if config.scale == "single":
        return None
    if config.scale == "equal":
        return ScaleWeights().vector
    if weights is None:
        raise PromptError(
            "This object has no learned mask weights: learn it again with PerSAM-F, or use PerSAM."
        )
    return weights.vector


def _likeness(similarity: Tensor, points: Points) -> float:
    """Value of a similarity map (H, W) at the first point."""
    x, y = points.coords[0].astype(int)
    return float(similarity[y, x])


def _level(full: Tensor, mask: NDArray[np.bool_], mean: Tensor) -> Tensor:
    return torch.where(torch.from_numpy(mask).to(full.device), full.minimum(mean), full)


def correct_instance(
    predictor: Predictor,
    embedding: ImageEmbedding,
    target: Target,
    found: Found,
    clicks: Points,
    cell_side: float,
    config: PersamConfig,
) -> Found:
    """Answer correction clicks, together with the personal points and the former mask.

    A personal point gives way to a click of the other label within a grid cell. Where the object
    was "not in this picture" only the clicks say where it is.

    Args:
        cell_side: side of a grid cell in pixels of the picture.

    Raises:
        PromptError: no click at all, or none on the object where none was found.
    """
    if not len(clicks):
        raise PromptError("There is no correction: click on what is missing or too much.")
    kept = _without_conflicts(found.points, clicks, cell_side)
    if not found.accepted:
        kept = Points(
            kept.coords[kept.labels != FOREGROUND], kept.labels[kept.labels != FOREGROUND]
        )
        if not (clicks.labels == FOREGROUND).any():
            raise PromptError("The object was not found here: click on it first.")
    points = Points(
        np.concatenate([kept.coords, clicks.coords]), np.concatenate([kept.labels, clicks.labels])
    )
    prediction = predictor.predict(
        embedding,
        point_coords=points.coords,
        point_labels=points.labels,
        mask_input=found.stages[-1].logits[None] if found.accepted else None,
        multimask_output=False,
    )
    stages = (*found.stages, stage_of("correction", prediction, 0))
    presence = weigh(embedding, target, found.presence.peak, stages)
    return replace(
        found, points=points, stages=stages, presence=presence, accepted=bool(stages[-1].mask.any())
    )


def _without_conflicts(points: Points, clicks: Points, reach: float) -> Points:
    """Points that no click of the other label lies within ``reach`` pixels of."""
    distance = np.abs(points.coords[:, None] - clicks.coords[None]).max(axis=2)  # (N, K)
    opposite = points.labels[:, None] != clicks.labels[None]
    keep = ~((distance < reach) & opposite).any(axis=1)
    return Points(points.coords[keep], points.labels[keep])


def compete(stages: Sequence[Stage], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Give each pixel to the mask of the highest logit, or to none where all are negative.

    Returns:
        Masks (N, H, W) that do not overlap. A single one stays as it is.

    Reference: the published video code's competition of objects.
    """
    if len(stages) < 2:
        return np.stack([s.mask for s in stages]) if stages else np.zeros((0, *size), bool)
    masks = np.zeros((len(stages), *size), bool)
    highest = np.zeros(size, np.float32)
    owner = np.full(size, -1)
    for n, stage in enumerate(stages):
        x0, y0, x1, y1 = mask_to_box(stage.mask)
        if x0 == x1:
            continue
        logits = as_prediction(stage.logits[None], stage.geometry).mask_logits()[0, 0].cpu().numpy()
        window = slice(y0, y1), slice(x0, x1)
        wins = stage.mask[window] & (logits[window] > highest[window])
        highest[window][wins] = logits[window][wins]
        owner[window][wins] = n
    for n in range(len(stages)):
        masks[n] = owner == n
    return masks
