"""The three passes of the decoder: first mask and two refinements (paper, section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.masks import mask_to_box
from core.persam.attention import TargetGuidedTransformer
from core.persam.config import PersamConfig
from core.prompts import Points
from core.sam.geometry import Geometry
from core.sam.predictor import ImageEmbedding, Prediction, Predictor


@dataclass(frozen=True, eq=False)
class Stage:
    """One pass of the decoder and the mask taken from it.

    Args:
        name: "first", "refinement_1", "refinement_2" or "correction".
        low_res_logits: float32 (M, 4g, 4g), all readings of the pass.
        scores: float32 (M,), predicted IoU, not bounded to [0, 1].
        chosen: the reading taken; None for the weighted sum of all.
        mask: bool (H, W).
        logits: float32 (4g, 4g) of that mask: mask input of the next pass.
        box: (4,) x0, y0, x1, y1 in pixels, the last ones included: the pass's prompt, if any.
        geometry: the picture's place in the model's input.
    """

    name: str
    low_res_logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    chosen: int | None
    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]
    box: NDArray[np.float32] | None
    geometry: Geometry

    @property
    def score(self) -> float:
        """Predicted IoU of the mask taken; of a weighted sum the highest of its parts."""
        return float(self.scores.max() if self.chosen is None else self.scores[self.chosen])

    def masks(self) -> NDArray[np.bool_]:
        """All readings (M, H, W) at the picture's size."""
        return as_prediction(self.low_res_logits, self.geometry).masks()[0]


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the passes are prompted with.

    Args:
        points: positive and negative ones.
        guidance: (g, g) in [0, 1], or None.
        target_embedding: (1, 1, C), or None.
        scale_weights: (3,), PerSAM-F's weights of the three readings of the first pass; None:
            the first pass predicts a single mask.
    """

    points: Points
    guidance: Tensor | None = None
    target_embedding: Tensor | None = None
    scale_weights: NDArray[np.float32] | None = None


def run_cascade(
    predictor: Predictor, embedding: ImageEmbedding, prompt: Prompt, config: PersamConfig
) -> tuple[Stage, ...]:
    """Segment one object in up to three passes; the last stage's mask is the answer."""
    stages = [first_pass(predictor, embedding, prompt, config)]
    if config.refinement_1:
        box = config.refinement_1_box
        stages.append(
            refine("refinement_1", predictor, embedding, prompt.points, stages[-1], use_box=box)
        )
    if config.refinement_2:
        stages.append(
            refine("refinement_2", predictor, embedding, prompt.points, stages[-1], use_box=True)
        )
    return tuple(stages)


def first_pass(
    predictor: Predictor, embedding: ImageEmbedding, prompt: Prompt, config: PersamConfig
) -> Stage:
    """Decode with the points, guided where that is asked for."""
    transformer = None
    if prompt.guidance is not None or prompt.target_embedding is not None:
        device = predictor.device
        guidance, target = prompt.guidance, prompt.target_embedding
        if guidance is not None:
            guidance = (config.guidance_weight * guidance).view(1, 1, 1, -1).to(device)
        transformer = TargetGuidedTransformer(
            predictor.sam.mask_decoder.transformer,
            guidance=guidance,
            target_embedding=None if target is None else target.to(device),
        )
    prediction = predictor.predict(
        embedding,
        point_coords=prompt.points.coords,
        point_labels=prompt.points.labels,
        multimask_output=prompt.scale_weights is not None,
        transformer=transformer,
    )
    if prompt.scale_weights is None:
        return stage_of("first", prediction, 0)
    weights = torch.from_numpy(prompt.scale_weights).to(prediction.low_res_logits)
    weighted = torch.einsum("m,bmhw->bhw", weights, prediction.low_res_logits)[0]
    return stage_of("first", prediction, None, weighted)


def refine(
    name: str,
    predictor: Predictor,
    embedding: ImageEmbedding,
    points: Points,
    former: Stage,
    *,
    use_box: bool,
) -> Stage:
    """Decode again, with the former stage's logits and, on request, its mask's box if any."""
    box = pixel_box(former.mask) if use_box and former.mask.any() else None
    prediction = predictor.predict(
        embedding,
        point_coords=points.coords,
        point_labels=points.labels,
        box=box,
        mask_input=former.logits[None],
    )
    return best_stage(name, prediction, former, box)


def best_stage(
    name: str, prediction: Prediction, former: Stage, box: NDArray[np.float32] | None
) -> Stage:
    """Take the mask of the highest score; an empty one gives way to the largest, then the former.

    The published code fails on an empty mask.
    """
    stage = stage_of(name, prediction, int(prediction.best()[0]), box=box)
    if stage.mask.any():
        return stage
    areas = stage.masks().sum(axis=(1, 2))
    if areas.any():
        return stage_of(name, prediction, int(areas.argmax()), box=box)
    values: dict[str, Any] = {**vars(stage), "mask": former.mask, "logits": former.logits}
    return Stage(**values)


def stage_of(
    name: str,
    prediction: Prediction,
    chosen: int | None,
    logits: Tensor | None = None,
    box: NDArray[np.float32] | None = None,
) -> Stage:
    """Make a stage of one prompt's prediction; ``logits`` (4g, 4g) if none of it is chosen."""
    if logits is None:
        assert chosen is not None
        logits = prediction.low_res_logits[0, chosen]
    taken = Prediction(logits[None, None], prediction.iou_predictions[:, :1], prediction.geometry)
    return Stage(
        name=name,
        low_res_logits=prediction.low_res_logits[0].cpu().numpy(),
        scores=prediction.iou_predictions[0].cpu().numpy(),
        chosen=chosen,
        mask=taken.masks()[0, 0],
        logits=logits.cpu().numpy(),
        box=box,
        geometry=prediction.geometry,
    )


def as_prediction(low_res_logits: NDArray[np.float32], geometry: Geometry) -> Prediction:
    """Wrap logits (M, 4g, 4g) of one prompt, to bring them to the picture's size."""
    logits = torch.from_numpy(low_res_logits)[None]
    return Prediction(logits, torch.zeros(1, logits.shape[1]), geometry)


def pixel_box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Bounds (4,) of a mask, the last pixels included, as the published code prompts."""
    return (mask_to_box(mask) - (0, 0, 1, 1)).astype(np.float32)
