"""SAM and RobustSAM side by side: the same picture, the same prompts.

Pages and endpoints call these; each takes everything it needs and keeps nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam

from core.degradations import Degraded, degrade
from core.errors import NothingFound
from core.masks import iou
from core.prompts import Boxes, Points
from core.results import Segmentation
from core.robustsam.build import compared_sam
from core.robustsam.predictor import RobustPredictor
from core.sam.candidates import Progress
from core.sam.pipeline import DecoderPath, SamResult, encode, segment, segment_all
from core.sam.predictor import ImageEmbedding, Predictor

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine
    from core.models.presets import EverythingConfig

ROBUST_PATH = DecoderPath("robustsam", RobustPredictor)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both models' answers to the same prompts on one picture; None where one found nothing.

    Args:
        sam, robust: the answers.
        agreement: IoU of the two, over all instances together; None if only one was asked.
    """

    sam: SamResult | None
    robust: SamResult | None
    agreement: float | None

    def ious(self, truth: NDArray[np.bool_]) -> tuple[float, float]:
        """IoU of each model's masks, united, with one mask (H, W)."""
        return iou(union_of(self.sam, truth.shape), truth), iou(
            union_of(self.robust, truth.shape), truth
        )


@dataclass(frozen=True, eq=False)
class SweepStep:
    """One degradation of a clear picture, and what both models make of it."""

    name: str
    severity: int
    degraded: Degraded
    comparison: Comparison
    sam_iou: float
    robust_iou: float


def compare(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    *,
    points: Points | None = None,
    boxes: Boxes | None = None,
    multimask: bool | None = None,
    threshold: float = 0.0,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Answer the same prompts by SAM and by RobustSAM; the picture is encoded once for both.

    Args:
        model_id: a RobustSAM of the catalogue; its entry names the SAM it is compared with.
        others: as ``core.sam.pipeline.segment`` takes them.

    Raises:
        PromptError: there is no prompt.
        NothingFound: neither model's mask has a pixel.
        Cancelled: on request.
    """
    asked: dict[str, Any] = {
        "points": points,
        "boxes": boxes,
        "multimask": multimask,
        "threshold": threshold,
        "cancel": cancel,
        "progress": progress,
    }
    robust = _or_nothing(engine, model_id, image, ROBUST_PATH, asked)
    sam_id = compared_sam(engine.entry(model_id))
    with engine.model(model_id, cancel, progress) as module:
        source = RobustPredictor(module, model_id=model_id, cache=engine.embeddings)
        path = DecoderPath("sam", partial(SharedEncoding, source=source))
        sam = _or_nothing(engine, sam_id, image, path, asked)
    if isinstance(robust, NothingFound) and isinstance(sam, NothingFound):
        raise robust
    answers = [None if isinstance(one, NothingFound) else one for one in (sam, robust)]
    agreement = iou(*(union_of(one, image.shape[:2]) for one in answers))
    return Comparison(answers[0], answers[1], agreement)


def segment_robust(
    engine: Engine, model_id: str, image: NDArray[np.uint8], **asked: Any
) -> SamResult:
    """RobustSAM's answer alone; arguments and errors as of ``core.sam.pipeline.segment``."""
    return segment(engine, model_id, image, path=ROBUST_PATH, **asked)


def encode_robust(
    engine: Engine, model_id: str, image: NDArray[np.uint8], **options: Any
) -> dict[str, float]:
    """Encode a picture for both models ahead of its first prompt; returns seconds."""
    return encode(engine, model_id, image, path=ROBUST_PATH, **options)


def segment_all_robust(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    config: EverythingConfig | None = None,
    **options: Any,
) -> Segmentation:
    """Everything mode on the robust path, the largest mask first."""
    return segment_all(engine, model_id, image, config, path=ROBUST_PATH, **options)


def sweep(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    steps: Sequence[tuple[str, int]],
    truth: NDArray[np.bool_] | None = None,
    *,
    seed: int = 0,
    cancel: CancelToken | None = None,
    **asked: Any,
) -> Iterator[SweepStep]:
    """Degrade one clear picture in several ways and compare the models on each.

    Args:
        image: the clear picture.
        steps: name and severity of each degradation.
        truth: (H, W) mask that IoU is measured with, moved along where pixels are moved; None:
            what SAM makes of the clear picture by the same prompts.
        asked: as ``compare`` takes it.

    Raises:
        PromptError: there is no prompt, or no such degradation.
        NothingFound: SAM finds nothing in the clear picture.
        Cancelled: on request, between two steps.
    """
    if truth is None:
        truth = clear_mask(engine, model_id, image, cancel=cancel, **asked)
    for name, severity in steps:
        if cancel is not None:
            cancel.raise_if_cancelled()
        degraded = degrade(image, name, severity=severity, seed=seed)
        try:
            comparison = compare(engine, model_id, degraded.image, cancel=cancel, **asked)
        except NothingFound:
            comparison = Comparison(None, None, 1.0)
        ious = comparison.ious(degraded.displace_mask(truth))
        yield SweepStep(name, severity, degraded, comparison, *ious)


def clear_mask(
    engine: Engine, model_id: str, image: NDArray[np.uint8], **asked: Any
) -> NDArray[np.bool_]:
    """What SAM makes of a clear picture: the mask (H, W) that degraded ones are measured with."""
    return union_of(
        segment(engine, compared_sam(engine.entry(model_id)), image, **asked), image.shape[:2]
    )


class SharedEncoding(Predictor):
    """SAM's predictor on embeddings that RobustSAM made, where both have the same encoder.

    Args:
        source: RobustSAM's predictor.
        others: as Predictor takes them.
    """

    def __init__(self, sam: Sam, *, source: RobustPredictor, **others: Any) -> None:
        super().__init__(sam, **others)
        self.source = source

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        if same_encoder(self.sam, self.source.sam):
            return self.source.encode(image)
        return super().encode(image)


_compared: weakref.WeakKeyDictionary[Sam, weakref.WeakKeyDictionary[Sam, bool]]
_compared = weakref.WeakKeyDictionary()


def same_encoder(a: Sam, b: Sam) -> bool:
    """Whether two models encode alike; their weights are compared once."""
    known = _compared.setdefault(a, weakref.WeakKeyDictionary())
    if b not in known:
        ours, theirs = a.image_encoder.state_dict(), b.image_encoder.state_dict()
        known[b] = ours.keys() == theirs.keys() and all(
            value.shape == theirs[name].shape and torch.equal(value, theirs[name])
            for name, value in ours.items()
        )
    return known[b]


def _or_nothing(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    path: DecoderPath,
    asked: dict[str, Any],
) -> SamResult | NothingFound:
    try:
        return segment(engine, model_id, image, path=path, **asked)
    except NothingFound as error:
        return error


def union_of(result: SamResult | None, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """All instances of an answer as one mask (H, W); empty where there is no answer."""
    if result is None:
        return np.zeros(size, bool)
    return np.asarray(result.segmentation.masks.any(axis=0))
