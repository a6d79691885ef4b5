"""Words to masks: ``segment_text``, ``segment_phrases``, two passes, clips.

Each takes two CLIPs (the mask proposal generator and the mask classifier, which may be the same
one), a picture and words, and keeps nothing but text features. Words that are not in the picture
are an answer, no error: they are listed in ``segmentation.dropped``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from core.car import crf
from core.car.cam import EncodedImage, encode_image, grid_of
from core.car.config import CarConfig, VisualPrompt
from core.car.queries import Queries, Words, length_warnings
from core.car.recurrence import Progress, Step, encode_words, recur
from core.car.referring import clean_phrase, merge_phrases
from core.car.results import (
    CarResult,
    Picture,
    PostProcess,
    TwoPassResult,
    combine,
    final_maps,
    to_segmentation,
)
from core.car.sam_ensemble import snap_masks
from core.car.visual_prompts import VisualPrompter
from core.clip.model import ClipModel
from core.engine.timing import StageTimer
from core.errors import ImageError
from core.images import fit_within

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken


def prepare(generator: ClipModel, image: NDArray[np.uint8], config: CarConfig) -> Picture:
    """Encode a picture for the proposals, once for all words.

    Args:
        image: RGB uint8 (H, W, 3).

    Raises:
        ImageError: another shape or type, or no pixels.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ImageError(
            f"A picture of type {image.dtype} and shape {image.shape} cannot be searched; "
            "give RGB uint8 of shape (H, W, 3)."
        )
    size = (image.shape[0], image.shape[1])
    worked = image if config.max_side is None else fit_within(image, config.max_side)
    encoded = encode_image(
        generator,
        worked,
        max_tokens=config.max_tokens,
        half_positions=config.published.half_positions,
    )
    warnings = _size_warnings(generator, size, worked, encoded)
    return Picture(np.ascontiguousarray(worked), size, encoded, warnings)


def segment_text(
    generator: ClipModel,
    classifier: ClipModel,
    image: NDArray[np.uint8] | Picture,
    queries: Words,
    config: CarConfig | None = None,
    *,
    sam_masks: NDArray[np.bool_] | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> CarResult:
    """Find which of some words are in a picture, and where; each pixel has one word or none.

    Args:
        image: RGB uint8 (H, W, 3), or what ``prepare`` made of it with the same generator and
            settings.
        queries: as ``Queries.parse`` takes them.
        config: None: thresholds as published for Pascal VOC.
        sam_masks: (M, H, W) of SAM's everything mode, to snap the masks to.

    Raises:
        PromptError: there is no word, or one is empty.
        ImageError: no RGB picture.
        Cancelled: on request.
    """
    return _segment(
        generator,
        classifier,
        image,
        Queries.parse(queries),
        config or CarConfig(),
        sam_masks=sam_masks,
        cancel=cancel,
        progress=progress,
    )


def segment_phrases(
    generator: ClipModel,
    classifier: ClipModel,
    image: NDArray[np.uint8] | Picture,
    phrases: Words,
    config: CarConfig | None = None,
    *,
    sam_masks: NDArray[np.bool_] | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> CarResult:
    """Find what referring expressions mean: each phrase by itself, so masks may overlap.

    Each competes with the background words only, in its map as in its CRF. Scores compare all
    phrases; arguments and errors are those of ``segment_text``.
    """
    return _segment(
        generator,
        classifier,
        image,
        Queries.parse(phrases),
        config or CarConfig(),
        alone=True,
        sam_masks=sam_masks,
        cancel=cancel,
        progress=progress,
    )


def merged_mask(result: CarResult) -> NDArray[np.bool_]:
    """One mask (H, W) for several phrases that mean the same object, as RefCOCO counts it."""
    return merge_phrases(result.masks_of_queries(), result.scores_of_queries())


def segment_things_and_stuff(
    generator: ClipModel,
    classifier: ClipModel,
    image: NDArray[np.uint8],
    things: Words,
    stuff: Words,
    config: CarConfig | None = None,
    *,
    stuff_prompts: tuple[VisualPrompt, ...] = ("blur", "gray"),
    stuff_exponent: float = 1.0,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> TwoPassResult:
    """Two passes over one picture, as published for Pascal Context and ADE20K.

    Things against the background words; then stuff against the things' names as background.

    Args:
        stuff_prompts, stuff_exponent: visual prompts and β of the second pass.
    """
    config = config or CarConfig()
    second = replace(
        config,
        background_queries=Queries.parse(things).words,
        visual_prompts=stuff_prompts,
        background_exponent=stuff_exponent,
    )
    picture = prepare(generator, image, config)
    first = segment_text(
        generator, classifier, picture, things, config, cancel=cancel, progress=progress
    )
    rest = segment_text(
        generator, classifier, picture, stuff, second, cancel=cancel, progress=progress
    )
    return TwoPassResult(combine(first.segmentation, rest.segmentation), first, rest)


def segment_frames(
    generator: ClipModel,
    classifier: ClipModel,
    frames: Iterable[NDArray[np.uint8]],
    queries: Words,
    config: CarConfig | None = None,
    *,
    segment: Callable[..., CarResult] = segment_text,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Iterator[CarResult]:
    """Segment a clip, each frame by itself; the words are encoded once.

    A word has the same id in every frame. The paper reports a video benchmark, its code has none.

    Args:
        frames: RGB uint8 (H, W, 3) each.
        segment: ``segment_text`` or ``segment_phrases``.

    Raises:
        Cancelled: on request, at the latest between two frames.
    """
    for number, frame in enumerate(frames):
        if cancel is not None:
            cancel.raise_if_cancelled(f"after {number} frames")
        yield segment(
            generator, classifier, frame, queries, config, cancel=cancel, progress=progress
        )


def _segment(
    generator: ClipModel,
    classifier: ClipModel,
    image: NDArray[np.uint8] | Picture,
    queries: Queries,
    config: CarConfig,
    *,
    alone: bool = False,
    sam_masks: NDArray[np.bool_] | None,
    cancel: CancelToken | None,
    progress: Progress | None,
) -> CarResult:
    timer = StageTimer(generator.device)
    words = [clean_phrase(word) or word for word in queries.words] if alone else queries.words
    with timer.stage("text"):
        texts = encode_words(generator, classifier, words, config)
    if cancel is not None:
        cancel.raise_if_cancelled()
    with timer.stage("encode"):
        picture = image if isinstance(image, Picture) else prepare(generator, image, config)
    prompter = VisualPrompter(picture.image, config.visual_prompts)
    with timer.stage("predict"):
        steps = tuple(
            recur(
                picture.encoded,
                prompter,
                classifier,
                texts,
                config,
                alone=alone,
                cancel=cancel,
                progress=progress,
            )
        )
    if cancel is not None:
        cancel.raise_if_cancelled(f"after {len(steps)} steps")
    with timer.stage("post_process"):
        masks = _final_masks(picture, steps[-1], config, alone)
        if sam_masks is not None:
            masks = snap_masks(masks, sam_masks, config.sam)
    longest = max(config.templates or (config.cam_template,), key=len)
    read_by = ((generator, config.cam_template), (classifier, longest))
    post_process: PostProcess = "crf" if config.use_crf and crf.is_available() else "argmax"
    segmentation = to_segmentation(
        masks,
        queries,
        steps,
        picture.size,
        method="car_refer" if alone else "car",
        model=generator.id,
        model_set=generator.model_set,
        warnings=(
            *queries.warnings,
            *length_warnings(words, read_by),
            *picture.warnings,
            *_crf_warnings(config),
        ),
        parameters={
            **asdict(config),
            "classifier": classifier.id,
            "queries": list(queries.words),
            "post_process": post_process,
            "sam": None if sam_masks is None else asdict(config.sam),
        },
        seconds=timer.seconds,
    )
    return CarResult(segmentation, queries, steps, picture.image, post_process, config)


def _final_masks(picture: Picture, last: Step, config: CarConfig, alone: bool) -> NDArray[np.bool_]:
    """Masks (n, H, W) of the words that stayed; empty ones among them."""
    maps = final_maps(last, picture.image.shape[:2])
    if not len(maps):
        return np.zeros((0, *picture.size), bool)
    if alone:
        masks = np.stack([crf.label_pixels(picture.image, one[None], config) == 1 for one in maps])
    else:
        labels = crf.label_pixels(picture.image, maps, config)
        masks = labels == np.arange(1, len(maps) + 1)[:, None, None]
    return _enlarge(masks, picture.size)


def _enlarge(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring masks to (H, W) by nearest neighbour."""
    if masks.shape[1:] == size:
        return masks
    return np.stack(
        [
            cv2.resize(mask.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
            for mask in masks
        ]
    )


def _size_warnings(
    generator: ClipModel, size: tuple[int, int], worked: NDArray[np.uint8], encoded: EncodedImage
) -> tuple[str, ...]:
    height, width = worked.shape[:2]
    warnings = []
    if (height, width) != size:
        warnings.append(
            f"The picture of {size[1]}×{size[0]} px is worked on at {width}×{height} px."
        )
    if encoded.grid != grid_of(worked.shape, generator.patch_size, None):
        rows, columns = encoded.grid
        side = generator.patch_size
        warnings.append(
            f"Maps are made at {columns * side}×{rows * side} px, which bounds the memory; fine "
            "things may be missed."
        )
    return tuple(warnings)


def _crf_warnings(config: CarConfig) -> tuple[str, ...]:
    if not config.use_crf or crf.is_available():
        return ()
    return ("pydensecrf is not installed: outlines come from the maps themselves, without a CRF.",)
