"""PerSAM in video: follow personal objects through a clip, frame by frame (section 4.3).

As the published video code: the target never changes, the box of the last mask leads to the next
one, and objects compete for pixels. Unlike it, every object keeps its slot when it is out of
sight, may come back, and may start later; and sizes are compared as they are (the published code
compares them modulo 256).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.engine.timing import StageTimer
from core.errors import PromptError
from core.masks import mask_to_box
from core.models.presets import calibrated_threshold
from core.persam.cascade import Stage, refine, stage_of
from core.persam.config import FitConfig, PersamConfig
from core.persam.instances import compete
from core.persam.presence import Presence, weigh
from core.persam.profile import Profile
from core.persam.scale import ScaleWeights, fit_scale_weights
from core.persam.similarity import SimilarityMap, peaks
from core.persam.target import Target, pool_target
from core.prompts import FOREGROUND, Points
from core.sam.predictor import ImageEmbedding, Predictor

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine
    from core.models.catalogue import Entry

Progress = Callable[[float, str], None]

MASK_VALUE = 215  # brightness of the first mask in the published video code
MAX_OBJECTS = 10
EMBEDDED_LOST, EMBEDDED_REENTRY = 0.68, 0.8


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Settings; the defaults are the published code's for PerSAM.

    Args:
        points: positive points from the similarity map; PerSAM-F has one.
        margin: px by which the last mask's box is widened in the first pass.
        fit: how PerSAM-F's weights are fitted on an object's first mask; None: PerSAM, whose
            first pass takes its largest reading.
        reentry: an object out of sight is taken back where its presence score reaches this share
            of what it was on its first mask.
        lost: an object in sight counts as gone below this share. (Cosines of the published models
            lie close together, and so do these two.)
        presence_threshold: the score of ``reentry`` for an object that comes from a profile.
    """

    points: int = 2
    margin: float = 10.0
    fit: FitConfig | None = None
    reentry: float = 0.97
    lost: float = 0.9
    presence_threshold: float = 0.8

    @classmethod
    def persam_f(cls) -> VideoConfig:
        """PerSAM-F as published for video: one point, 800 steps of at most 4e-4."""
        return cls(points=1, fit=FitConfig(steps=800, learning_rate=4e-4))

    @classmethod
    def for_model(cls, entry: Entry, *, learned: bool) -> VideoConfig:
        """What suits a model of the catalogue; ``learned`` for PerSAM-F."""
        config = cls.persam_f() if learned else cls()
        threshold = calibrated_threshold(entry)
        if threshold is not None:
            config = replace(config, presence_threshold=threshold)
        if entry.set == "embedded":
            # Chosen on clips of training objects; its cosines spread wider.
            config = replace(config, lost=EMBEDDED_LOST, reentry=EMBEDDED_REENTRY)
        return config


@dataclass(frozen=True, eq=False)
class VideoObject:
    """An object to follow: from a mask in one frame, from a saved profile, or from both.

    Args:
        start: the frame from which it is looked for; that of the mask, if there is one.
        mask: bool (H, W) in frame ``start``.

    Raises:
        PromptError: neither mask nor profile, or an empty mask.
    """

    name: str
    start: int = 0
    mask: NDArray[np.bool_] | None = None
    profile: Profile | None = None

    def __post_init__(self) -> None:
        if self.mask is None and self.profile is None:
            raise PromptError(f"'{self.name}' has neither a mask nor a profile: give one of them.")
        if self.mask is not None and not self.mask.any():
            raise PromptError(f"The mask of '{self.name}' is empty: paint the object first.")


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One frame: label map uint8 (H, W), value k for object number k, 0 for none.

    Args:
        scores: presence score of each object; not-a-number where it was not looked for.
    """

    index: int
    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VideoResult:
    """All frames that were done; ``complete`` unless it was cancelled."""

    frames: tuple[FrameResult, ...]
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    complete: bool
    seconds: dict[str, float]


@dataclass
class _Slot:
    """What is known of one object while the clip runs; it keeps its number for good."""

    source: VideoObject
    target: Target | None = None
    weights: ScaleWeights | None = None
    own_score: float = 0.0  # presence score on its first mask
    mask: NDArray[np.bool_] | None = field(default=None)  # of the last frame; None: out of sight


def follow(
    engine: Engine,
    model_id: str,
    frames: Sequence[NDArray[np.uint8]],
    objects: Sequence[VideoObject],
    config: VideoConfig | None = None,
    *,
    numbers: Sequence[int] | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> VideoResult:
    """Follow objects through a clip; cancelling keeps the frames that are done.

    Args:
        frames: RGB uint8 (H, W, 3), all of one size.
        numbers: of the objects in the label maps, 1 to 255; 1, 2, 3 and so on if not given.

    Raises:
        PromptError: no object, too many, one that starts outside of the clip, a mask of another
            size, or a profile of another model.
    """
    config = config or VideoConfig()
    _check(engine, model_id, frames, objects, config)
    done: list[FrameResult] = []
    with engine.model(model_id, cancel, progress) as sam, engine.out_of_memory_guard():
        # No cache: a clip's frames would push everybody else's pictures out.
        predictor = Predictor(sam, model_id=model_id)
        timer = StageTimer(predictor.device)
        steps = track(predictor, frames, objects, config)
        while len(done) < len(frames) and not (cancel is not None and cancel.cancelled):
            with timer.stage("predict"):
                done.append(next(steps))
            if progress is not None:
                progress(len(done) / len(frames), f"Frame {len(done)} of {len(frames)}")
    numbers = tuple(numbers or range(1, len(objects) + 1))
    value = np.array([0, *numbers], np.uint8)
    return VideoResult(
        frames=tuple(replace(frame, labels=value[frame.labels]) for frame in done),
        names=tuple(source.name for source in objects),
        numbers=numbers,
        complete=len(done) == len(frames),
        seconds=timer.seconds,
    )


def track(
    predictor: Predictor,
    frames: Sequence[NDArray[np.uint8]],
    objects: Sequence[VideoObject],
    config: VideoConfig,
) -> Iterator[FrameResult]:
    """Yield the frames' results, one after the other; each frame is encoded once."""
    slots = [_Slot(source) for source in objects]
    for index, frame in enumerate(frames):
        embedding = predictor.encode(frame)
        stages: dict[int, Stage] = {}
        given: dict[int, NDArray[np.bool_]] = {}
        scores = np.full(len(slots), np.nan, np.float32)
        for k, slot in enumerate(slots):
            if index < slot.source.start:
                continue
            if slot.target is None:
                _begin(predictor, embedding, slot, config)
                if slot.mask is not None:
                    given[k], scores[k] = slot.mask, 1.0
                    continue
            stage, presence = _step(predictor, embedding, slot, config)
            scores[k] = presence.score
            share = config.reentry if slot.mask is None else config.lost
            if stage.mask.any() and presence.score >= share * slot.own_score:
                stages[k] = stage
        masks = dict(zip(stages, compete(list(stages.values()), frame.shape[:2]), strict=True))
        labels = np.zeros(frame.shape[:2], np.uint8)
        for k, mask in (masks | given).items():  # a given mask is the truth and comes last
            labels[mask] = k + 1
        for k, slot in enumerate(slots):
            seen = labels == k + 1
            slot.mask = seen if seen.any() else None
        yield FrameResult(index, labels, scores)


def _begin(
    predictor: Predictor, embedding: ImageEmbedding, slot: _Slot, config: VideoConfig
) -> None:
    """Take an object's target from its profile or its first mask."""
    source = slot.source
    settings = PersamConfig.persam_f(mask_value=MASK_VALUE)
    if source.profile is not None:
        slot.target = source.profile.target
        slot.weights = source.profile.scale_weights if config.fit else None
        slot.own_score = config.presence_threshold / config.reentry
    if source.mask is None:
        return
    slot.mask = source.mask
    if slot.target is None:
        slot.target, _ = pool_target(predictor, embedding, source.mask, settings)
    _, presence = _step(predictor, embedding, slot, config)
    slot.own_score = presence.score
    if config.fit is not None and slot.weights is None:
        points, box, _ = _prompt(embedding, slot, config)
        prediction = predictor.predict(
            embedding, point_coords=points.coords, point_labels=points.labels, box=box
        )
        readings = prediction.mask_logits()[0]
        slot.weights = fit_scale_weights([readings], [source.mask], config.fit).weights


def _step(
    predictor: Predictor, embedding: ImageEmbedding, slot: _Slot, config: VideoConfig
) -> tuple[Stage, Presence]:
    """Segment one object in one frame by three passes."""
    assert slot.target is not None
    points, box, peak = _prompt(embedding, slot, config)
    prediction = predictor.predict(
        embedding, point_coords=points.coords, point_labels=points.labels, box=box
    )
    if slot.weights is not None:
        weights = torch.from_numpy(slot.weights.vector).to(prediction.low_res_logits)
        weighted = torch.einsum("m,mhw->hw", weights, prediction.low_res_logits[0])
        first = stage_of("first", prediction, None, weighted, box)
        if not first.mask.any():
            first = stage_of("first", prediction, int(prediction.best()[0]), box=box)
    else:
        areas = prediction.masks()[0].sum(axis=(1, 2), dtype=np.int64)
        first = stage_of("first", prediction, int(areas.argmax()), box=box)
    second = refine(
        "refinement_1", predictor, embedding, points, first, use_box=slot.weights is not None
    )
    third = refine("refinement_2", predictor, embedding, points, second, use_box=True)
    return third, weigh(embedding, slot.target, peak, (first, second, third))


def _prompt(
    embedding: ImageEmbedding, slot: _Slot, config: VideoConfig
) -> tuple[Points, NDArray[np.float32] | None, float]:
    """Points of the similarity map, with the last mask's widened box and its centre if any."""
    assert slot.target is not None
    similarity = SimilarityMap.of(embedding, slot.target.feature("mean_max"))
    full: Tensor = similarity.full()
    coords = peaks(full, config.points, similarity.cell_side if config.points > 1 else 0.0)
    box = None
    if slot.mask is not None:
        box = widened_box(slot.mask, config.margin)
        coords = np.concatenate([coords, [(box[:2] + box[2:]) / 2]]).astype(np.float32)
    own = SimilarityMap.of(embedding, slot.target.feature("mean")).full()
    x, y = peaks(full, 1, 0.0)[0].astype(int)
    return Points(coords, np.full(len(coords), FOREGROUND, np.int64)), box, float(own[y, x])


def widened_box(mask: NDArray[np.bool_], margin: float) -> NDArray[np.float32]:
    """Bounds (4,) of a mask, ``margin`` px wider on each side, within the picture."""
    height, width = mask.shape
    x0, y0, x1, y1 = mask_to_box(mask).astype(np.float32)
    box = [x0 - margin, y0 - margin, x1 - 1 + margin, y1 - 1 + margin]
    limits = [width - 1, height - 1] * 2
    return np.clip(np.array(box, np.float32), 0, np.array(limits, np.float32))


def _check(
    engine: Engine,
    model_id: str,
    frames: Sequence[NDArray[np.uint8]],
    objects: Sequence[VideoObject],
    config: VideoConfig,
) -> None:
    if not 1 <= len(objects) <= MAX_OBJECTS:
        raise PromptError(f"There are {len(objects)} objects to follow: give 1 to {MAX_OBJECTS}.")
    for source in objects:
        if not 0 <= source.start < len(frames):
            raise PromptError(
                f"'{source.name}' starts at frame {source.start} and the clip has {len(frames)}: "
                "choose a frame of the clip."
            )
        if source.mask is not None and source.mask.shape != frames[source.start].shape[:2]:
            raise PromptError(f"The mask of '{source.name}' is not of the clip's size.")
        if source.profile is not None:
            source.profile.check_model(engine.entry(model_id))
            if config.fit and source.mask is None and source.profile.scale_weights is None:
                raise PromptError(
                    f"The profile '{source.name}' has no learned mask weights: use PerSAM, or "
                    "learn it again with PerSAM-F."
                )
