"""What a question is answered with: words, spans, masks, and what went wrong on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.pixellm.conversation import Turn
from core.pixellm.phrases import Span
from core.results import Segmentation

# Why writing ended: by itself, at the limit of tokens or targets, or on request.
Ending = Literal["end", "length", "targets", "stopped"]

# What came of it. "no_group": words alone, among them "there is no such thing"; "broken_group": a
# mask was begun and not finished; "empty_mask": masks came, and no pixel is in any.
Outcome = Literal["masks", "no_group", "broken_group", "empty_mask"]


@dataclass(frozen=True, eq=False)
class Target:
    """One thing that an answer means.

    Args:
        number: stays the same through the conversation; the first one is 1.
        position: where in the answer's text its group of codebook tokens stood.
        mask: bool (H, W).
        score: mean probability of the mask's pixels, 0 if it is empty.
        logits: fused mask logits, float32 (h, w) of the padded square.
        scale_logits: those of each scale, float32 (h_l, w_l).
    """

    number: int
    position: int
    mask: NDArray[np.bool_]
    score: float
    logits: NDArray[np.float32]
    scale_logits: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class Answer:
    """An answer in words.

    Args:
        text: without codebook tokens. It is the model's own and may contain anything: show it as
            text, never as markup.
        spans: which characters mean which targets, by their numbers.
        raw: the text with every token shown.
        ending: why writing ended.
        broken_groups: runs of codebook tokens that are no target.
    """

    text: str
    spans: tuple[Span, ...]
    raw: str
    ending: Ending = "end"
    broken_groups: int = 0


@dataclass(frozen=True, eq=False)
class PixelLMResult:
    """An answer with its masks.

    Args:
        segmentation: targets with a pixel; the others are ``dropped``. Its ids are the targets'
            numbers; it carries no scores, as the published model predicts none (see ``Target``).
        targets: all of this answer, empty masks too.
        turn: question and ids, as a saved conversation keeps them.
    """

    answer: Answer
    segmentation: Segmentation
    targets: tuple[Target, ...]
    turn: Turn

    @property
    def outcome(self) -> Outcome:
        """What came of the question, for a sentence beside an answer without masks."""
        if len(self.segmentation):
            return "masks"
        if self.targets:
            return "empty_mask"
        return "broken_group" if self.answer.broken_groups else "no_group"


@dataclass(frozen=True)
class TextPiece:
    """More of the answer's text; the pieces together are ``Answer.text``."""

    text: str


@dataclass(frozen=True, eq=False)
class TargetFound:
    """A target, as soon as its group of codebook tokens is complete.

    Args:
        span: the words before it that mean it, None if there are none; a list such as "a cat and
            a dog are" is told apart at the end only.
    """

    target: Target
    span: Span | None


@dataclass(frozen=True, eq=False)
class Finished:
    """The last event of an answer."""

    result: PixelLMResult


Event = TextPiece | TargetFound | Finished
