"""Text queries on an engine's models: which CLIPs, which settings, and SAM's masks to snap to.

Pages and endpoints call these; each takes everything it needs and keeps nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from core.car import crf
from core.car.choices import CLIPS, DEFAULT_PRESETS, config_of, unknown_words
from core.car.config import CarConfig
from core.car.pipeline import segment_phrases, segment_text
from core.car.queries import Words
from core.car.recurrence import Progress
from core.car.results import CarResult
from core.car.sam_ensemble import snap_masks
from core.clip.build import with_tokenizer
from core.engine.timing import StageTimer
from core.errors import NothingFound
from core.images import fit_within
from core.results import Segmentation
from core.sam.pipeline import segment_all

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine

SAM_SIDE = 1024  # px; SAM's masks and the words' are matched at this size, which bounds the memory


@dataclass(frozen=True, eq=False)
class TextAnswer:
    """CaR's result, and what it was before its last stages.

    Args:
        result: with the final masks.
        without_crf: bool (n, h, w) in the size that was worked on, for the words that
            ``result.steps[-1]`` kept; None where no CRF ran.
        before_sam: the masks that SAM's replaced; None where SAM was not asked.
    """

    result: CarResult
    without_crf: NDArray[np.bool_] | None = None
    before_sam: Segmentation | None = None


def find_words(
    engine: Engine,
    model_set: str,
    image: NDArray[np.uint8],
    words: Words,
    config: CarConfig | None = None,
    *,
    phrases: bool = False,
    sam: str | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> TextAnswer:
    """Find which of some words are in a picture, and where.

    Args:
        model_set: "embedded" or "full": whose CLIPs.
        image: RGB uint8 (H, W, 3).
        words: as ``Queries.parse`` takes them.
        config: None: the set's own preset.
        phrases: each by itself, as referring expressions.
        sam: a SAM of the catalogue, whose masks the words' are snapped to.

    Raises:
        PromptError: there is no word, or one is empty.
        ImageError: no RGB picture.
        ModelUnavailable: a model is not here.
        Cancelled: on request.
    """
    if config is None:
        config = config_of(DEFAULT_PRESETS[model_set], model_set)
    generator_id, classifier_id = CLIPS[model_set]
    segment = segment_phrases if phrases else segment_text
    with (
        engine.model(generator_id, cancel, progress) as generator,
        engine.model(classifier_id, cancel, progress) as classifier,
        engine.out_of_memory_guard(),
    ):
        result = segment(
            with_tokenizer(engine.entry(generator_id), generator),
            with_tokenizer(engine.entry(classifier_id), classifier),
            image,
            words,
            config,
            cancel=cancel,
            progress=progress,
        )
    if model_set == "embedded":
        result = _with_warnings(result, _unknown(result))
    answer = TextAnswer(result, _without_crf(result) if result.post_process == "crf" else None)
    if sam is None or not len(result.segmentation):
        return answer
    snapped = _snap(engine, sam, image, result, cancel, progress)
    return replace(
        answer,
        result=replace(result, segmentation=snapped),
        before_sam=result.segmentation,
    )


def is_phrases(result: CarResult) -> bool:
    """Whether each word was looked for by itself."""
    return result.segmentation.method == "car_refer"


def resize_masks(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring masks (N, H, W) to another size by nearest neighbour."""
    if masks.shape[1:] == tuple(size) or not len(masks):
        return masks if len(masks) else np.zeros((0, *size), bool)
    return np.stack(
        [
            cv2.resize(mask.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
            for mask in masks
        ]
    )


def _without_crf(result: CarResult) -> NDArray[np.bool_]:
    """What the maps alone would give: each pixel to the highest of background and maps."""
    maps, image = result.maps(), result.image
    plain = replace(result.config, use_crf=False)
    if not len(maps):
        return np.zeros(maps.shape, bool)
    if is_phrases(result):
        return np.stack([crf.label_pixels(image, one[None], plain) == 1 for one in maps])
    labels = crf.label_pixels(image, maps, plain)
    return np.asarray(labels == np.arange(1, len(maps) + 1)[:, None, None])


def _snap(
    engine: Engine,
    sam: str,
    image: NDArray[np.uint8],
    result: CarResult,
    cancel: CancelToken | None,
    progress: Progress | None,
) -> Segmentation:
    """Replace masks by SAM's where these match."""
    found, matching = result.segmentation, result.config.sam
    timer = StageTimer(engine.device)
    worked = fit_within(image, SAM_SIDE)
    with timer.stage("sam"):
        try:
            everything = segment_all(engine, sam, worked, cancel=cancel, progress=progress)
        except NothingFound:
            return _told(found, "SAM found no mask in this picture, so none was replaced.")
        own = resize_masks(found.masks, everything.size)
        snapped = snap_masks(own, everything.masks, matching)
        replaced = (snapped != own).any(axis=(1, 2))
        masks = np.where(replaced[:, None, None], resize_masks(snapped, found.size), found.masks)
    return replace(
        found,
        masks=masks,
        parameters={**found.parameters, "sam": asdict(matching), "sam_model": sam},
        seconds={
            **found.seconds,
            "sam": timer.seconds["sam"],
            "total": found.seconds["total"] + timer.seconds["sam"],
        },
    )


def _unknown(result: CarResult) -> str:
    words = unknown_words(result.queries.words)
    if not words:
        return ""
    named = ", ".join(f"“{word if len(word) <= 24 else word[:23] + '…'}”" for word in words[:5])
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return f"The embedded CLIP never learned {named}{more}: what it says of that means little."


def _with_warnings(result: CarResult, text: str) -> CarResult:
    return replace(result, segmentation=_told(result.segmentation, text)) if text else result


def _told(found: Segmentation, text: str) -> Segmentation:
    return replace(found, warnings=(*found.warnings, text))
