"""Personalized segmentation from pictures to results, on an engine's models.

``learn`` an object from one or more pictures and masks, ``find`` it in any other picture,
``correct`` the answer. Each takes everything it needs and keeps nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.engine.timing import StageTimer
from core.errors import PromptError
from core.masks import iou
from core.persam.config import FitConfig, PersamConfig
from core.persam.instances import Found, compete, correct_instance, find_instances
from core.persam.profile import MAX_REFERENCES, Profile, draw_thumbnail
from core.persam.scale import Fit, fit_scale_weights
from core.persam.similarity import SimilarityMap, choose_points
from core.persam.target import Reference, Target, pool_target
from core.prompts import Points
from core.results import Dropped, Segmentation
from core.sam.predictor import ImageEmbedding, Predictor

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine

# Called with the finished fraction in [0, 1] and a sentence.
Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Learned:
    """A personal object, and how it was learned.

    Args:
        fit: of PerSAM-F's weights, with its loss curve; None for PerSAM alone.
        warnings: sentences for the visitor.
        seconds: by stage: encode, fit, total.
    """

    profile: Profile
    fit: Fit | None
    warnings: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class Trace:
    """How one object was looked for: its similarity map, and one or more answers.

    The first answer is there also when it was not accepted, for the page to show why.
    """

    profile: Profile
    similarity: SimilarityMap
    found: tuple[Found, ...]


@dataclass(frozen=True, eq=False)
class PersamResult:
    """What was found of the personal objects in one picture, and how it got there.

    Args:
        segmentation: accepted instances; objects that are not in the picture are ``dropped``.
        traces: one for each object, in the order given.
        config: the settings it was made with.
    """

    segmentation: Segmentation
    traces: tuple[Trace, ...]
    config: PersamConfig

    def find(self, number: int) -> tuple[Trace, Found]:
        """The answer of a number. Raises PromptError if there is none such."""
        for trace in self.traces:
            for found in trace.found:
                if found.number == number:
                    return trace, found
        raise PromptError(f"There is no instance {number} in this result.")


def learn(
    engine: Engine,
    model_id: str,
    references: Sequence[Reference],
    *,
    name: str = "my object",
    config: PersamConfig | None = None,
    fit: FitConfig | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Learn one object from one or more pictures of it.

    Args:
        config: of PerSAM-F, for the point that its readings are taken at; None: as published.
        fit: how to fit PerSAM-F's two weights, on all references together; None: PerSAM alone,
            which has nothing to train.

    Raises:
        PromptError: no reference, or too many.
        Cancelled: on request.
    """
    if not 1 <= len(references) <= MAX_REFERENCES:
        raise PromptError(
            f"There are {len(references)} reference pictures: give 1 to {MAX_REFERENCES}."
        )
    config = config or PersamConfig.persam_f()
    with _borrowed(engine, model_id, cancel, progress) as (predictor, timer):
        embeddings = []
        for n, reference in enumerate(references):
            if cancel is not None:
                cancel.raise_if_cancelled(f"after {n} of {len(references)} references")
            with timer.stage("encode"):
                embeddings.append(predictor.encode(reference.image))
        pooled = [
            pool_target(predictor, embedding, reference.mask, config)
            for embedding, reference in zip(embeddings, references, strict=True)
        ]
        target = Target.merge([target for target, _ in pooled])
        fitted = None
        if fit is not None:
            with timer.stage("fit"):
                fitted = fit_weights(predictor, embeddings, references, target, config, fit)
    entry = engine.entry(model_id)
    profile = Profile(
        name=name,
        model_id=model_id,
        model_sha256=entry.sha256 or "",
        target=target,
        scale_weights=fitted.weights if fitted else None,
        thumbnail=draw_thumbnail(references[0]),
    )
    warnings = dict.fromkeys(text for _, texts in pooled for text in texts)
    return Learned(profile, fitted, tuple(warnings), timer.seconds)


def fit_weights(
    predictor: Predictor,
    embeddings: Sequence[ImageEmbedding],
    references: Sequence[Reference],
    target: Target,
    config: PersamConfig,
    fit: FitConfig,
) -> Fit:
    """Fit PerSAM-F's weights on the references' own readings, decoded once each."""
    readings = []
    for embedding in embeddings:
        similarity = SimilarityMap.of(embedding, target.feature(config.pooling))
        points = choose_points(similarity.full(), similarity.cell_side, config)
        prediction = predictor.predict(
            embedding, point_coords=points.coords, point_labels=points.labels
        )
        readings.append(prediction.mask_logits()[0])
    return fit_scale_weights(readings, [reference.mask for reference in references], fit)


def find(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    profiles: Profile | Sequence[Profile],
    config: PersamConfig | None = None,
    *,
    numbers: Sequence[int] | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> PersamResult:
    """Find personal objects in a picture.

    Several objects, and several instances, compete for each pixel. An object whose presence
    score is below the threshold is not among the masks but among ``segmentation.dropped``; its
    trace still shows what was considered. That the objects are not there is an answer, no error.

    Args:
        image: RGB uint8 (H, W, 3).
        config: None: PerSAM as published.
        numbers: of the objects, one each; their first instances have them, so that an object's
            colour is the same in every picture. None: 1, 2, 3 and so on.

    Raises:
        PromptError: no profile, one of another model, or without the weights that the
            configuration asks for.
        Cancelled: on request.
    """
    profiles = [profiles] if isinstance(profiles, Profile) else list(profiles)
    if not profiles:
        raise PromptError("There is no object to look for: learn one, or load a profile.")
    for profile in profiles:
        profile.check_model(engine.entry(model_id))
    config = config or PersamConfig()
    with _borrowed(engine, model_id, cancel, progress) as (predictor, timer):
        with timer.stage("encode"):
            embedding = predictor.encode(image)
        with timer.stage("predict"):
            traces = [
                _look_for(predictor, embedding, profile, config, cancel=cancel)
                for profile in profiles
            ]
            traces = _settle(predictor, embedding, traces, config, cancel)
            traces = _numbered(traces, numbers or range(1, len(profiles) + 1))
            result = _result(engine, model_id, image.shape[:2], traces, config)
    return replace(result, segmentation=replace(result.segmentation, seconds=timer.seconds))


def correct(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    result: PersamResult,
    number: int,
    clicks: Points,
    *,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> PersamResult:
    """Correct one instance by clicks, merged with its personal prompt; the others keep theirs.

    Args:
        image: the picture that ``result`` is of.
        number: the instance's number; also that of an object which was not found, whose answer
            the clicks replace.

    Raises:
        PromptError: no such instance, no click, or none on an object that was not found.
        Cancelled: on request.
    """
    trace, found = result.find(number)
    trace.profile.check_model(engine.entry(model_id))
    with _borrowed(engine, model_id, cancel, progress) as (predictor, timer):
        with timer.stage("encode"):
            embedding = predictor.encode(image)
        with timer.stage("predict"):
            corrected = correct_instance(
                predictor,
                embedding,
                trace.profile.target,
                found,
                clicks,
                trace.similarity.cell_side,
                result.config,
            )
            traces = [
                replace(t, found=tuple(corrected if f is found else f for f in t.found))
                for t in result.traces
            ]
            new = _result(engine, model_id, image.shape[:2], traces, result.config)
    return replace(new, segmentation=replace(new.segmentation, seconds=timer.seconds))


@contextmanager
def _borrowed(
    engine: Engine, model_id: str, cancel: CancelToken | None, progress: Progress | None
) -> Iterator[tuple[Predictor, StageTimer]]:
    """Borrow a model, and time from there; loading is not counted."""
    with engine.model(model_id, cancel, progress) as sam, engine.out_of_memory_guard():
        predictor = Predictor(sam, model_id=model_id, cache=engine.embeddings)
        yield predictor, StageTimer(predictor.device)


def _look_for(
    predictor: Predictor,
    embedding: ImageEmbedding,
    profile: Profile,
    config: PersamConfig,
    *,
    taken: Sequence[NDArray[np.bool_]] = (),
    cancel: CancelToken | None,
) -> Trace:
    similarity, found = find_instances(
        predictor,
        embedding,
        profile.target,
        profile.scale_weights,
        config,
        taken=taken,
        cancel=cancel,
    )
    return Trace(profile, similarity, tuple(found))


def _settle(
    predictor: Predictor,
    embedding: ImageEmbedding,
    traces: list[Trace],
    config: PersamConfig,
    cancel: CancelToken | None,
) -> list[Trace]:
    """Where two objects claim the same thing, the one it resembles less looks elsewhere, once."""
    order = sorted(range(len(traces)), key=lambda k: -traces[k].found[0].presence.score)
    settled = list(traces)
    taken: list[NDArray[np.bool_]] = []
    for k in order:
        masks = [found.mask for found in settled[k].found if found.accepted]
        same = config.same_instance_iou
        if any(iou(mask, other) >= same for mask in masks for other in taken):
            settled[k] = _look_for(
                predictor, embedding, traces[k].profile, config, taken=taken, cancel=cancel
            )
        taken += [found.mask for found in settled[k].found if found.accepted]
    return settled


def _numbered(traces: Sequence[Trace], numbers: Sequence[int]) -> list[Trace]:
    """Give each object's first answer the object's number, and further instances those above."""
    free = itertools.count(max(numbers) + 1)
    return [
        replace(
            trace,
            found=tuple(
                replace(f, number=next(free) if k else number) for k, f in enumerate(trace.found)
            ),
        )
        for trace, number in zip(traces, numbers, strict=True)
    ]


def _result(
    engine: Engine,
    model_id: str,
    size: tuple[int, ...],
    traces: Sequence[Trace],
    config: PersamConfig,
) -> PersamResult:
    """Let the accepted instances compete and list the objects that are not there."""
    height, width = size
    rows = [(t, f) for t in traces for f in t.found if f.accepted]
    masks = compete([found.stages[-1] for _, found in rows], (height, width))
    left = [n for n, mask in enumerate(masks) if mask.any()]
    dropped = [_absent(t, config) for t in traces if not any(f.accepted for f in t.found)]
    dropped += [
        Dropped(trace.profile.name, found.presence.score, "another object covers all of it")
        for n, (trace, found) in enumerate(rows)
        if n not in left
    ]
    scores = [np.clip(rows[n][1].stages[-1].score, 0, 1) for n in left]
    segmentation = Segmentation(
        method="persam" if config.scale == "single" else "persam_f",
        model=model_id,
        model_set=engine.entry(model_id).set,
        size=(height, width),
        masks=masks[left],
        labels=tuple(rows[n][0].profile.name for n in left),
        scores=np.array(scores, np.float32),
        score_kind="persam_iou",
        dropped=tuple(dropped),
        parameters={**asdict(config), "objects": [trace.profile.name for trace in traces]},
        ids=tuple(rows[n][1].number for n in left),
    )
    return PersamResult(segmentation, tuple(traces), config)


def _absent(trace: Trace, config: PersamConfig) -> Dropped:
    best = trace.found[0]
    reason = "its mask is empty"
    if best.mask.any():
        reason = f"not in this picture: its presence score is below {config.presence_threshold:.2f}"
    return Dropped(trace.profile.name, best.presence.score, reason)
