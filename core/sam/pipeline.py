"""SAM's tasks from picture and prompts to results, on an engine's models.

Pages and endpoints call these; each takes everything it needs and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.engine.timing import StageTimer
from core.errors import NothingFound, PromptError
from core.prompts import BACKGROUND, Boxes, MaskPrompt, Points
from core.results import Segmentation
from core.sam.candidates import Progress
from core.sam.edges import detect_edges
from core.sam.everything import EverythingConfig, segment_everything
from core.sam.predictor import ImageEmbedding, Prediction, Predictor
from core.sam.proposals import ProposalConfig, propose_objects

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine

# A 32 x 32 object of a picture at 1024 px is where average recall of the paper's table 4 drops.
SMALL_SIDE = 32 / 1024


@dataclass(frozen=True, eq=False)
class SamResult:
    """Masks of one request, the readings they were chosen from, and what a next click needs.

    Args:
        segmentation: the N chosen instances.
        candidates: all M readings of a single prompt; None for a batch of boxes.
        low_res_logits: float32 (N, M, 4g, 4g).
        chosen: (N,), the reading taken for each instance.
    """

    segmentation: Segmentation
    candidates: Segmentation | None
    low_res_logits: NDArray[np.float32]
    chosen: NDArray[np.intp]

    @property
    def mask_input(self) -> NDArray[np.float32]:
        """Logits (N, 4g, 4g) of the chosen masks, to hand back with a correction click."""
        return self.low_res_logits[np.arange(len(self.chosen)), self.chosen]

    def choose(self, reading: int) -> SamResult:
        """Take another reading of a single prompt. Raises PromptError if there is none such."""
        if self.candidates is None or not 0 <= reading < len(self.candidates):
            count = 0 if self.candidates is None else len(self.candidates)
            raise PromptError(f"There is no reading {reading + 1}; this result has {count}.")
        segmentation = replace(
            self.segmentation,
            masks=self.candidates.masks[[reading]],
            scores=self.candidates.scores[[reading]],
        )
        return replace(self, segmentation=segmentation, chosen=np.array([reading]))


@dataclass(frozen=True, eq=False)
class EdgeMap:
    """Edge strength float32 (H, W) in [0, 1], with how it was made."""

    edges: NDArray[np.float32]
    model: str
    model_set: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class DecoderPath:
    """A way from an embedding to masks: SAM's own, or that of a method built on it.

    Args:
        method: name in results.
        predictor: called as Predictor is.
    """

    method: str
    predictor: Callable[..., Predictor]


SAM_PATH = DecoderPath("sam", Predictor)


def encode(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    *,
    path: DecoderPath = SAM_PATH,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Encode a picture ahead of its first prompt, into the engine's cache; returns seconds."""
    with _encoded(engine, model_id, image, cancel, progress, path) as (_, _, timer):
        return timer.seconds


def segment(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    *,
    points: Points | None = None,
    boxes: Boxes | None = None,
    mask_input: NDArray[np.float32] | MaskPrompt | None = None,
    multimask: bool | None = None,
    threshold: float = 0.0,
    refine: bool = False,
    path: DecoderPath = SAM_PATH,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> SamResult:
    """Segment what the prompts show: one instance, or one for each of several boxes.

    Args:
        image: RGB uint8 (H, W, 3).
        points: with several boxes, background points count for all of them and a foreground
            point for the boxes around it, or the nearest one.
        mask_input: logits (N, 4g, 4g) of a former result, or one mask at the picture's size.
        multimask: predict three readings and take that of the highest predicted IoU; None: for
            a single point or box, where one prompt can mean several things.
        threshold: on logits; higher makes masks smaller.
        refine: a second pass with the first one's mask as a further prompt (paper, section 7.4).
        path: another way through the decoder, for a model that has one.

    Raises:
        PromptError: no prompt at all, or a mask input of another model.
        NothingFound: the only mask is empty.
    """
    points, boxes = points or Points.empty(), boxes or Boxes.empty()
    if not (len(points) or len(boxes) or mask_input is not None):
        raise PromptError("There is no prompt yet: click on an object or draw a box around it.")
    if multimask is None:
        multimask = len(points) + min(len(boxes), 1) + (mask_input is not None) == 1
    with _encoded(engine, model_id, image, cancel, progress, path) as (predictor, embedding, timer):
        multimask = multimask and predictor.multimask
        with timer.stage("predict"):
            prompts = _prompts(predictor, embedding, points, boxes, mask_input)
            prediction = predictor.predict_batch(embedding, **prompts, multimask_output=multimask)
            if refine:
                best = prediction.select(prediction.best())
                prediction = predictor.predict_batch(
                    embedding,
                    **{**prompts, "mask_input": best.low_res_logits},
                    multimask_output=False,
                )
            masks = prediction.masks(threshold)  # (N, M, H, W)
    parameters = {
        "points": np.column_stack([points.coords, points.labels]).tolist(),
        "boxes": boxes.xyxy.tolist(),
        "mask_input": mask_input is not None,
        "multimask": multimask,
        "threshold": threshold,
        "refine": refine,
    }
    template = _segmentation(engine, model_id, path.method, image, timer, parameters)
    return _result(template, prediction, masks, threshold)


def segment_all(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    config: EverythingConfig | None = None,
    *,
    path: DecoderPath = SAM_PATH,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Segment everything in a picture, the largest mask first.

    Args:
        config: None: the package's settings for published models, a coarser grid for embedded.
        path: another way through the decoder, for a model that has one.

    Raises:
        NothingFound: no mask passes the thresholds.
        Cancelled: on request.
    """
    if config is None:
        config = EverythingConfig.of_set(engine.entry(model_id).set)
    with _encoded(engine, model_id, image, cancel, progress, path) as (predictor, embedding, timer):
        with timer.stage("predict"):
            records = segment_everything(
                predictor, image, config, embedding=embedding, cancel=cancel, progress=progress
            )
    if not records:
        raise NothingFound(
            f"No mask reaches predicted IoU {config.pred_iou_thresh:.2f} and stability "
            f"{config.stability_score_thresh:.2f}: lower these thresholds."
        )
    records.sort(key=lambda record: -record.area)
    method = f"{path.method}_everything"
    template = _segmentation(engine, model_id, method, image, timer, asdict(config))
    masks = np.stack([record.mask for record in records])
    return _with_masks(template, masks, [record.predicted_iou for record in records])


def find_edges(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    *,
    thin: bool = True,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> EdgeMap:
    """Detect a picture's edges. Raises Cancelled on request."""
    with _encoded(engine, model_id, image, cancel, progress) as (predictor, embedding, timer):
        with timer.stage("predict"):
            edges = detect_edges(predictor, embedding, thin=thin, cancel=cancel, progress=progress)
    return EdgeMap(edges, model_id, engine.entry(model_id).set, timer.seconds)


def find_proposals(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    config: ProposalConfig | None = None,
    *,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Propose objects, the best first. Raises NothingFound if all masks are empty."""
    if config is None:
        config = ProposalConfig.of_set(engine.entry(model_id).set)
    with _encoded(engine, model_id, image, cancel, progress) as (predictor, embedding, timer):
        with timer.stage("predict"):
            proposals = propose_objects(
                predictor, embedding, config, cancel=cancel, progress=progress
            )
    if not proposals:
        raise NothingFound("No point of the grid gives a mask: try another picture.")
    template = _segmentation(engine, model_id, "sam_proposals", image, timer, asdict(config))
    masks = np.stack([proposal.mask for proposal in proposals])
    return _with_masks(template, masks, [proposal.predicted_iou for proposal in proposals])


@contextmanager
def _encoded(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    cancel: CancelToken | None,
    progress: Progress | None,
    path: DecoderPath = SAM_PATH,
) -> Iterator[tuple[Predictor, ImageEmbedding, StageTimer]]:
    """Borrow a model, encode the picture, and time from there; loading is not counted."""
    with engine.model(model_id, cancel, progress) as sam, engine.out_of_memory_guard():
        predictor = path.predictor(sam, model_id=model_id, cache=engine.embeddings)
        timer = StageTimer(predictor.device)
        with timer.stage("encode"):
            embedding = predictor.encode(image)
        if cancel is not None:
            cancel.raise_if_cancelled("after reading the picture")
        yield predictor, embedding, timer


def _prompts(
    predictor: Predictor,
    embedding: ImageEmbedding,
    points: Points,
    boxes: Boxes,
    mask_input: NDArray[np.float32] | MaskPrompt | None,
) -> dict[str, Any]:
    """Arguments of ``predict_batch``: one row, or one for each box."""
    prompts: dict[str, Any] = {}
    if len(boxes):
        prompts["boxes"] = boxes.xyxy
    if len(points):
        rows = max(len(boxes), 1)
        prompts["point_coords"] = np.repeat(points.coords[None], rows, axis=0)
        prompts["point_labels"] = np.repeat(points.labels[None], rows, axis=0)
    if len(points) and len(boxes) > 1:
        concerns = points_of_boxes(points, boxes)
        prompts["point_labels"] = np.where(concerns, prompts["point_labels"], -1)
    if isinstance(mask_input, MaskPrompt):
        side = predictor.low_res_side
        prompts["mask_input"] = embedding.geometry.to_low_res(mask_input.mask, side)[None]
    elif mask_input is not None:
        prompts["mask_input"] = np.asarray(mask_input)[:, None]
    return prompts


def points_of_boxes(points: Points, boxes: Boxes) -> NDArray[np.bool_]:
    """Which points (M, N) count for which of several boxes.

    Background points for all; a foreground point for the boxes around it, else the nearest.
    """
    x, y = points.coords.T  # (N,)
    x0, y0, x1, y1 = boxes.xyxy.T[:, :, None]  # (M, 1)
    outside = np.hypot(
        np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0)
    )  # (M, N) px to the box, 0 within
    return (points.labels == BACKGROUND) | (outside == outside.min(axis=0))


def _segmentation(
    engine: Engine,
    model_id: str,
    method: str,
    image: NDArray[np.uint8],
    timer: StageTimer,
    parameters: dict[str, Any],
) -> Segmentation:
    """A result without instances yet."""
    size = (image.shape[0], image.shape[1])
    return Segmentation(
        method=method,
        model=model_id,
        model_set=engine.entry(model_id).set,
        size=size,
        masks=np.zeros((0, *size), bool),
        labels=(),
        scores=np.zeros(0, np.float32),
        parameters=parameters,
        seconds=timer.seconds,
    )


def _with_masks(
    template: Segmentation, masks: NDArray[np.bool_], predicted_iou: Any
) -> Segmentation:
    scores = np.clip(np.asarray(predicted_iou, np.float32), 0, 1)  # the IoU head has no sigmoid
    return replace(template, masks=masks, scores=scores, labels=("",) * len(masks), ids=None)


def _result(
    template: Segmentation,
    prediction: Prediction,
    masks: NDArray[np.bool_],
    threshold: float,
) -> SamResult:
    """Choose the reading of the highest predicted IoU for each instance (N, M, H, W)."""
    scores = prediction.iou_predictions.cpu().numpy()
    chosen = prediction.best()
    rows = np.arange(len(chosen))
    segmentation = _with_masks(template, masks[rows, chosen], scores[rows, chosen])
    areas = segmentation.areas
    if not areas.any():
        raise NothingFound(
            f"No pixel is above the threshold {threshold:g}: lower it, or add a point.",
            best_score=float(segmentation.scores.max()),
        )
    segmentation = replace(segmentation, warnings=_warnings(areas, template.size))
    return SamResult(
        segmentation,
        _with_masks(template, masks[0], scores[0]) if len(masks) == 1 else None,
        prediction.low_res_logits.cpu().numpy(),
        chosen,
    )


def _warnings(areas: NDArray[np.int64], size: tuple[int, int]) -> tuple[str, ...]:
    """Say which boxes gave nothing, and when an object is too small to be trusted."""
    warnings = [f"Box {i + 1} gave an empty mask." for i in np.flatnonzero(areas == 0)]
    small = (SMALL_SIDE * max(size)) ** 2
    if ((areas > 0) & (areas < small)).any():
        warnings.append(
            "Small objects are less exact: crop the picture around them for a better mask."
        )
    return tuple(warnings)
