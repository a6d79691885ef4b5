"""The recurrence (CaR, section 3.1 and algorithm 1): look for the words, drop some, look again.

The hidden state is the set of live words, the input the same picture at each step, the output the
maps of the words that stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.car.cam import EncodedImage, gradcam, min_max
from core.car.classifier import Scores, encode_pictures, score_pictures
from core.car.config import CarConfig
from core.car.queries import without_asked
from core.car.refinement import box_masks, refine_maps, resize_map
from core.car.visual_prompts import VisualPrompter
from core.clip.model import ClipModel
from core.clip.text import encode_templates, encode_texts

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken

Progress = Callable[[float, str], None]

# A map whose sum over the picture is not above this is not shown to the classifier.
LEAST_MAP_SUM = 1.0


@dataclass(frozen=True, eq=False)
class Texts:
    """Text features of all N words of a request, encoded once.

    Args:
        first, later: (N, E) for the maps of step 1 and of the steps after it.
        background: (B, E) for the maps.
        words: (T, N, C) for the classifier.
        classifier_background: (B, C); (0, C) without the presence check.
    """

    first: Tensor
    later: Tensor
    background: Tensor
    words: Tensor
    classifier_background: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the recurrence: n live words, maps of h×w patches.

    Args:
        live: their indices among all words, (n,).
        cams: float32 (n, h, w), gradCAM before the refinement.
        boxes: float32 (n, h, w), 0 or 1, what the refinement drew from.
        maps: float32 (n, h, w) in [0, 1], the proposals Y before they are enlarged.
        scores: None if no map had anything in it, so that nothing was scored.
        reasons: why each word was dropped, None for a kept one.
    """

    live: tuple[int, ...]
    cams: NDArray[np.float32]
    boxes: NDArray[np.float32]
    maps: NDArray[np.float32]
    scores: Scores | None
    reasons: tuple[str | None, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Words that stay, as indices among all words."""
        return tuple(self.live[row] for row in self.kept_rows)

    @property
    def kept_rows(self) -> list[int]:
        """Rows of this step's arrays whose words stay."""
        return [row for row, reason in enumerate(self.reasons) if reason is None]

    def proposal(self, row: int, size: tuple[int, int]) -> NDArray[np.float32]:
        """A word's map at a picture's size (H, W)."""
        return resize_map(self.maps[row], size)

    def mark(self, row: int, prompter: VisualPrompter, threshold: float) -> NDArray[np.uint8]:
        """The picture that the classifier saw for a word, RGB uint8 (H, W, 3).

        Args:
            threshold: η.
        """
        proposal = self.proposal(row, prompter.image.shape[:2])
        if proposal.sum() <= LEAST_MAP_SUM:
            return prompter.image
        return prompter.draw(proposal > threshold)


def encode_words(
    generator: ClipModel, classifier: ClipModel, words: Sequence[str], config: CarConfig
) -> Texts:
    """Encode words and background for both models."""
    background = config.background_queries
    if not config.published.shared_background:
        background = without_asked(background, words)
    cam_template = (config.cam_template,)
    templates = config.templates or cam_template
    later = encode_templates(generator, words, cam_template)[0]
    checked = background if config.presence_threshold is not None else ()
    return Texts(
        first=encode_texts(generator, words) if config.published.raw_first_step else later,
        later=later,
        background=encode_templates(generator, background, cam_template)[0],
        words=encode_templates(classifier, words, templates),
        # One template: this many texts in all of them would take a CPU a minute.
        classifier_background=encode_templates(classifier, checked, templates[:1])[0],
    )


def recur(
    encoded: EncodedImage,
    prompter: VisualPrompter,
    classifier: ClipModel,
    texts: Texts,
    config: CarConfig,
    *,
    alone: bool = False,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Iterator[Step]:
    """Run the recurrence until a step drops no word, at most N + 1 steps.

    The published code compares counts of words and so takes two steps at least; the second is
    left out here where it would repeat the first, word for word.

    Args:
        prompter: holds the picture.
        alone: as in ``gradcam``.

    Raises:
        Cancelled: on request, between batches of marked pictures.
    """
    count = texts.words.shape[1]
    live = tuple(range(count))
    before: Step | None = None
    for number in itertools.count(1):
        if progress is not None:
            progress(number / (number + 2), f"Step {number}: {len(live)} of {count} words")
        features = texts.first if before is None else texts.later
        step = propose(encoded, features, texts.background, live, config, alone=alone)
        if before is not None and not step.maps.any():
            step = replace(step, maps=before.maps[before.kept_rows])
        if step.maps.any():
            step = judge(score(step, prompter, classifier, texts, config, cancel), config)
        yield step
        repeats = before is not None or not config.published.raw_first_step
        if not step.kept or not config.recurrence or (step.kept == live and repeats):
            return
        live, before = step.kept, step


def propose(
    encoded: EncodedImage,
    features: Tensor,
    background: Tensor,
    live: Sequence[int],
    config: CarConfig,
    *,
    alone: bool = False,
) -> Step:
    """Make the maps of the live words; until they are scored, all count as dropped."""
    cams = gradcam(
        encoded,
        features[list(live)],
        background,
        alone=alone,
        query_batch=config.query_batch,
    )
    boxes = box_masks(cams, config.box_threshold, short_boxes=config.published.short_boxes)
    maps = cams
    if config.refine:
        refined = refine_maps(encoded.affinity, cams, boxes)
        maps = min_max(refined.flatten(1)).reshape(cams.shape)
    return Step(
        live=tuple(live),
        cams=cams.cpu().numpy(),
        boxes=boxes.cpu().numpy(),
        maps=maps.cpu().numpy(),
        scores=None,
        reasons=("no part of the picture answers to it",) * len(live),
    )


def score(
    step: Step,
    prompter: VisualPrompter,
    classifier: ClipModel,
    texts: Texts,
    config: CarConfig,
    cancel: CancelToken | None = None,
) -> Step:
    """Show each map to the classifier and add the scores."""
    marked = (step.mark(row, prompter, config.mask_threshold) for row in range(len(step.live)))
    scores = score_pictures(
        encode_pictures(classifier, marked, config, cancel),
        texts.words[:, list(step.live)],
        texts.classifier_background,
        classifier.scale,
        ensemble=bool(config.templates),
    )
    return replace(step, scores=scores)


def judge(step: Step, config: CarConfig) -> Step:
    """Say which words are dropped, and why.

    Where none passes the threshold the best one stays, as in the published code (the paper would
    drop all), unless it fails the presence check.
    """
    assert step.scores is not None
    own, presence = step.scores.own, step.scores.presence
    if not config.recurrence:
        return replace(step, reasons=(None,) * len(own))
    absent = np.zeros(len(own), bool)
    if presence is not None and config.presence_threshold is not None:
        absent = presence <= np.float32(config.presence_threshold)
    dropped = absent | (own <= np.float32(config.confidence_threshold))
    if dropped.all() and not absent.all():
        dropped[np.where(absent, -np.inf, own).argmax()] = False
    reasons = [
        None if not dropped[row] else _reason(step.scores, row, bool(absent[row]), config)
        for row in range(len(own))
    ]
    return replace(step, reasons=tuple(reasons))


def _reason(scores: Scores, row: int, absent: bool, config: CarConfig) -> str:
    if absent and scores.presence is not None:
        return (
            "not in this picture: against the background words it reaches "
            f"{scores.presence[row]:.2f}, and more than {config.presence_threshold:.2f} is needed"
        )
    return (
        f"other words fit better: its score is {scores.own[row]:.2f}, and more than "
        f"{config.confidence_threshold:.2f} is needed"
    )
