"""CaR's results: masks with their words, each step of the recurrence, and what was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.car.cam import EncodedImage
from core.car.config import CarConfig
from core.car.queries import Queries
from core.car.recurrence import Step
from core.car.visual_prompts import VisualPrompter
from core.results import Dropped, Segmentation

PostProcess = Literal["crf", "argmax"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture prepared for any number of words; keeps a graph of up to some hundred MiB alive.

    Args:
        image: RGB uint8 (h, w, 3), the size that is worked on.
        size: (H, W) of the original.
        warnings: sentences for the visitor.
    """

    image: NDArray[np.uint8]
    size: tuple[int, int]
    encoded: EncodedImage
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CarResult:
    """Which words are where, and each step on the way.

    Args:
        segmentation: words that stayed and have a pixel; the others are ``dropped``.
        queries: the distinct words, to which ``steps`` refer by index.
        steps: of the recurrence.
        image: RGB uint8 (h, w, 3), the picture in the size that was worked on.
        post_process: "crf", or "argmax" where it is switched off or not installed.
        config: the settings it was made with.
    """

    segmentation: Segmentation
    queries: Queries
    steps: tuple[Step, ...]
    image: NDArray[np.uint8]
    post_process: PostProcess
    config: CarConfig

    def masks_of_queries(self) -> NDArray[np.bool_]:
        """A mask for each word as given (repeated ones too), bool (N, H, W), empty if dropped."""
        masks = np.zeros((len(self.queries.words), *self.segmentation.size), bool)
        for word, mask in zip(self.segmentation.ids or (), self.segmentation.masks, strict=True):
            masks[word - 1] = mask
        return masks[list(self.queries.positions)]

    def scores_of_queries(self) -> NDArray[np.float32]:
        """The last step's score of each word as given, float32 (N,), 0 if dropped."""
        scores = np.zeros(len(self.queries.words), np.float32)
        last = self.steps[-1]
        if last.scores is not None:
            scores[list(last.kept)] = last.scores.own[last.kept_rows]
        return scores[list(self.queries.positions)]

    def maps(self) -> NDArray[np.float32]:
        """Final proposals Y of the words that stayed, (n, h, w) in the size worked on."""
        return final_maps(self.steps[-1], self.image.shape[:2])

    def marked(self, step: int, row: int) -> NDArray[np.uint8]:
        """The picture that a step showed to the classifier for its live word number ``row``."""
        prompter = VisualPrompter(self.image, self.config.visual_prompts)
        return self.steps[step].mark(row, prompter, self.config.mask_threshold)


@dataclass(frozen=True, eq=False)
class TwoPassResult:
    """Things and stuff of one picture; where both claim a pixel, the thing has it."""

    segmentation: Segmentation
    things: CarResult
    stuff: CarResult


def final_maps(last: Step, size: tuple[int, int]) -> NDArray[np.float32]:
    """Proposals Y of the words that stayed, float32 (n, H, W)."""
    maps = np.zeros((len(last.kept), *size), np.float32)
    for index, row in enumerate(last.kept_rows):
        maps[index] = last.proposal(row, size)
    return maps


def to_segmentation(
    masks: NDArray[np.bool_],
    queries: Queries,
    steps: Sequence[Step],
    size: tuple[int, int],
    **about: Any,
) -> Segmentation:
    """Put the words that have pixels into a result, and all others among the dropped.

    Args:
        masks: (n, H, W) of the words that stayed.
        about: the other fields of ``Segmentation``.
    """
    last = steps[-1]
    own = last.scores.own if last.scores is not None else np.zeros(len(last.live), np.float32)
    words = last.kept
    scores = own[last.kept_rows]
    filled = [row for row in range(len(words)) if masks[row].any()]
    dropped = [
        _dropped(queries.words[word], step, row, number)
        for number, step in enumerate(steps, start=1)
        for row, word in enumerate(step.live)
        if step.reasons[row] is not None
    ]
    dropped += [
        Dropped(queries.words[word], float(scores[row]), "it stayed, but got no pixel in the end")
        for row, word in enumerate(words)
        if row not in filled
    ]
    return Segmentation(
        size=size,
        masks=masks[filled],
        labels=tuple(queries.words[words[row]] for row in filled),
        scores=scores[filled].astype(np.float32),
        score_kind="clip_similarity",
        dropped=tuple(dropped),
        ids=tuple(words[row] + 1 for row in filled),
        **about,
    )


def _dropped(word: str, step: Step, row: int, number: int) -> Dropped:
    reached = None if step.scores is None else float(step.scores.own[row])
    return Dropped(word, reached, f"step {number}: {step.reasons[row]}")


def combine(things: Segmentation, stuff: Segmentation) -> Segmentation:
    """Things over stuff; stuff that is covered entirely is dropped."""
    free = ~things.masks.any(axis=0)
    uncovered = stuff.masks & free
    left = [index for index, mask in enumerate(uncovered) if mask.any()]
    covered = [
        Dropped(label, float(score), "things cover all of it")
        for index, (label, score) in enumerate(zip(stuff.labels, stuff.scores, strict=True))
        if index not in left
    ]
    seconds = {name: things.seconds[name] + stuff.seconds[name] for name in things.seconds}
    return replace(
        things,
        masks=np.concatenate([things.masks, uncovered[left]]),
        labels=things.labels + tuple(stuff.labels[index] for index in left),
        scores=np.concatenate([things.scores, stuff.scores[left]]),
        ids=None,
        dropped=(*things.dropped, *stuff.dropped, *covered),
        warnings=tuple(dict.fromkeys((*things.warnings, *stuff.warnings))),
        parameters={"things": things.parameters, "stuff": stuff.parameters},
        seconds=seconds,
    )
