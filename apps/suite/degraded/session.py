"""What a visitor has in the Degraded tab: the clear picture, what was done to it, both answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.suite.notices import Notice
from apps.suite.segment.session import SegmentSession
from core.degradations import COMBINATIONS, KINDS, Degraded
from core.errors import PromptError
from core.images import LoadedImage

if TYPE_CHECKING:
    from core.degradations.guess import Finding
    from core.robustsam.pipeline import Comparison
    from core.robustsam.priors import Restoration

CLEAR = "clear"
PANELS = ("picture", "slider", "four", "all", "restored")

NO_PICTURE = "Drop a bad picture into the frame, or a good one and degrade it here."
SMEAR = "motion_blur"
_combined = " or ".join(
    name.capitalize() for name, steps in COMBINATIONS.items() if SMEAR in dict(steps)
)
NO_SMEAR = (
    f"Only a blur that was made here is known well enough to undo it: choose {KINDS[SMEAR].title} "
    f"under Degrade it, or {_combined}."
)
NO_PRIOR = "Click an object or drag a box first: the masks are what helps."
FIRST_CLICK = "Click an object or drag a box: both models answer."


@dataclass(frozen=True)
class Choice:
    """How the picture is degraded: a kind or a combination by name, or not at all.

    Args:
        severity: 1 to 5; combinations have their own.
        seed: 0 or more.
    """

    name: str = CLEAR
    severity: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in KINDS and self.name not in COMBINATIONS:
            known = ", ".join([*KINDS, *COMBINATIONS])
            raise PromptError(f"There is no degradation {self.name[:30]!r}; use one of {known}.")
        if not 1 <= self.severity <= 5:
            raise PromptError(f"The severity is {self.severity}; choose from 1 to 5.")
        if not 0 <= self.seed < 2**31:
            raise PromptError(f"The seed is {self.seed}; it has to be 0 or more.")

    @property
    def is_clear(self) -> bool:
        return self.name == CLEAR

    @property
    def title(self) -> str:
        """'Rain, severity 3', 'Rain at night', 'As it is'."""
        if self.is_clear:
            return "As it is"
        if self.name in COMBINATIONS:
            return self.name.capitalize()
        return f"{KINDS[self.name].title}, severity {self.severity}"


@dataclass(frozen=True)
class Card:
    """One step of a sweep, without its pictures but for a small one.

    Args:
        name, severity: of the degradation.
        sam_iou, robust_iou: with the clear picture's mask.
        picture: data address of the degraded picture with RobustSAM's mask.
    """

    name: str
    severity: int
    sam_iou: float
    robust_iou: float
    picture: str


@dataclass(frozen=True, eq=False)
class Restored:
    """The picture deblurred without and with masks as a prior.

    Args:
        results: the blurred picture, then without a mask, with SAM's, with RobustSAM's.
        before: names of what was done to the picture before the blur, which is not undone.
    """

    results: tuple[Restoration, ...]
    before: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Clear:
    """A visitor's picture as it was uploaded; ``truth`` is an uploaded mask (H, W), if any."""

    loaded: LoadedImage
    truth: NDArray[np.bool_] | None = None


class DegradedSession(SegmentSession):
    """One visitor's Degraded tab. ``picture`` is the degraded picture, marked as in Segment."""

    def forget(self) -> None:
        super().forget()
        self.panel = "picture"
        self.choice = Choice()

    def forget_picture(self) -> None:
        super().forget_picture()
        self.notice = Notice("hint", NO_PICTURE)
        self.clear: Clear | None = None
        self.degraded: Degraded | None = None
        self.guesses: tuple[Finding, ...] = ()
        self.comparison: Comparison | None = None
        self.asked: Any = None  # what the comparison answers
        # What SAM makes of the clear picture, and what that answers.
        self.clear_answer: tuple[Any, NDArray[np.bool_] | None] = (None, None)
        self.ious: tuple[float, float] | None = None
        self.sheet: tuple[Card, ...] = ()  # every kind at one severity
        self.series: tuple[Card, ...] = ()  # one kind at every severity
        self.restored: Restored | None = None

    def need_clear(self) -> Clear:
        """Return the uploaded picture. Raises PromptError if there is none."""
        if self.clear is None:
            raise PromptError(NO_PICTURE)
        return self.clear

    def forget_answer(self) -> None:
        """The prompts or the picture changed: what was found is out of date."""
        self.comparison = self.ious = self.asked = None
        self.forget_measured()

    def forget_measured(self) -> None:
        """The prompts changed: what was measured by them beyond the answer is out of date."""
        self.sheet = self.series = ()
        self.restored = None

    def missing_to_restore(self) -> str:
        """Say what there has to be before the picture can be restored; "" if nothing is missing."""
        if self.clear is None:
            return NO_PICTURE
        steps = self.degraded.steps if self.degraded else []
        if not any(step["name"] == SMEAR for step in steps):
            return NO_SMEAR
        return "" if self.comparison is not None else NO_PRIOR
