"""What a visitor has in the chat tab: the picture, the turns, the answer that is being written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apps.suite.canvas import View
from apps.suite.models import default_model
from apps.suite.notices import Notice
from apps.suite.segment.patch import Patch, stack
from apps.suite.segment.session import SegmentSession
from core.errors import NothingFound
from core.settings import settings

if TYPE_CHECKING:
    from core.engine import CancelToken
    from core.pixellm.phrases import Span
    from core.pixellm.results import Outcome, PixelLMResult, Target

STYLES = {
    "as_asked": "As asked",
    "mask": "Ask for masks",
    "explain": "Ask for masks and reasons",
}
NO_PICTURE = "Drop a picture into the frame, or choose an example."
NO_TURN = "Nothing was said yet: ask something about the picture."


class Asked(NamedTuple):
    """How answers are made, as the page's fields hold it, in the order of the fields."""

    style: str = "as_asked"
    tokens: float = settings.max_new_tokens
    temperature: float = 0.0
    seed: float = 0
    threshold: float = 0.0


@dataclass(frozen=True)
class SaidMask:
    """One thing that an answer means.

    Args:
        number: goes on through the conversation; its colour follows from it.
        position: in the answer's text, where its codebook tokens stood.
        mask, shown: at the picture's size, and as the browser shows it; None without a pixel.
    """

    number: int
    position: int
    mask: Patch | None
    shown: Patch | None

    @classmethod
    def of(cls, target: Target, view: View) -> SaidMask:
        """Reduce a target to what the page shows of it."""
        if not target.mask.any():
            return cls(target.number, target.position, None, None)
        mask, shown = Patch.of(target.mask), Patch.of(view.mask(target.mask))
        return cls(target.number, target.position, mask, shown)


@dataclass(frozen=True)
class Said:
    """A question and its answer, or what there is of one.

    Args:
        spans: which characters of the text mean which masks.
        masks: in the order of the text.
    """

    question: str
    text: str = ""
    spans: tuple[Span, ...] = ()
    masks: tuple[SaidMask, ...] = ()

    @property
    def shown(self) -> dict[int, Patch]:
        """The shown masks that have pixels, by number."""
        return {one.number: one.shown for one in self.masks if one.shown is not None}


@dataclass(frozen=True, eq=False)
class Told:
    """A finished answer as a session keeps it: masks cut out, maps in half precision.

    Args:
        labels: of the masks that have pixels, by number.
        result: without masks; take it from ``whole``.
    """

    said: Said
    labels: dict[int, str]
    outcome: Outcome
    result: PixelLMResult

    @classmethod
    def of(cls, result: PixelLMResult, masks: tuple[SaidMask, ...]) -> Told:
        """Reduce a result whose masks were reduced while it streamed."""
        answer, found = result.answer, result.segmentation
        said = Said(result.turn.question.text, answer.text, answer.spans, masks)
        labels = dict(zip(found.numbers, found.labels, strict=True))
        targets = tuple(_without_mask(target) for target in result.targets)
        kept = replace(result, targets=targets, segmentation=found.select([]))
        return cls(said, labels, result.outcome, kept)

    def whole(self) -> PixelLMResult:
        """The result with its masks, as files are made of it."""
        found = self.result.segmentation
        patches = {one.number: one.mask for one in self.said.masks if one.mask is not None}
        segmentation = replace(
            found,
            masks=stack(list(patches.values()), found.size),
            labels=tuple(self.labels[number] for number in patches),
            scores=np.full(len(patches), np.nan, np.float32),
            ids=tuple(patches),
        )
        return replace(self.result, segmentation=segmentation)


@dataclass(frozen=True)
class Failed:
    """A question that got no answer, and why."""

    question: str
    reason: str


Look = tuple[int, tuple[int, ...]]  # index of a turn, and the numbers of masks that are alone


class ChatSession(SegmentSession):
    """One visitor's chat tab. A new picture ends the conversation and keeps the settings."""

    def __init__(self) -> None:
        super().__init__()
        self.model = default_model("embedded", "pixellm")

    def forget_picture(self) -> None:
        super().forget_picture()
        self.questions: tuple[str, ...] = ()  # that an example suggests
        self.former: tuple[Told, ...] = ()  # what Clear took away
        self.forget_turns()
        self.notice = Notice("hint", NO_PICTURE)

    def forget_turns(self) -> None:
        """Drop the conversation; the picture stays."""
        self.turns: tuple[Told, ...] = ()
        self.live: Said | None = None  # what is being written
        self.failed: Failed | None = None
        self.chosen = 0  # index of the turn whose masks are shown
        self.alone: Look | None = None  # chosen by a click
        self.peek: Look | None = None  # while a pointer is over a phrase
        self.waiting: CancelToken | None = None  # of the question that is not answered yet
        self.sent = False  # the question box's text was taken just now

    def need_turns(self) -> tuple[Told, ...]:
        """Return the conversation. Raises NothingFound if nothing was said yet."""
        if not self.turns:
            raise NothingFound(NO_TURN)
        return self.turns

    @property
    def shown(self) -> dict[int, Patch]:
        """The masks that are to be drawn, by number."""
        if look := self.peek or self.alone:
            index, numbers = look
            masks = self.live.shown if index == len(self.turns) and self.live else {}
            if index < len(self.turns):
                masks = self.turns[index].said.shown
            return {number: mask for number, mask in masks.items() if number in numbers}
        if self.live is not None:
            return self.live.shown
        return self.turns[self.chosen].said.shown if self.turns else {}


def _without_mask(target: Target) -> Target:
    """A target without its mask, its logits in half precision."""
    return replace(
        target,
        mask=np.zeros((0, 0), bool),
        logits=np.zeros((0, 0), np.float32),
        scale_logits=tuple(one.astype(np.float16) for one in target.scale_logits),  # type: ignore
    )
