"""The subject's pictures with their masks, and what the visitor decided about each.

A picture takes part with its mask (accepted or drawn anew), as a whole, or not at all; training
begins when every picture has its decision.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import PromptError
from core.images import content_hash

Decision = Literal["accept", "redraw", "exclude", "whole"]
Source = Literal["drawn", "persam", "persam_f", "none"]

MIN_PICTURES = 3
MAX_PICTURES = 20
SMALLEST_AREA = 0.01  # of the picture: below, hardly anything of it is left in the latents
LARGEST_AREA = 0.95  # above, the mask says nothing about where the subject ends

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SubjectPicture:
    """One picture of the subject.

    Args:
        stem: name without folder and ending; one of its kind among the subject's pictures.
        image: RGB uint8 (H, W, 3), upright.
        mask: bool (H, W); None: there is none yet.
        source: who made the mask.
        decision: "accept" the mask, "redraw": the visitor drew it, "exclude" the picture, "whole":
            use it without mask; None: not decided yet.
        score: PerSAM's predicted IoU in [0, 1]; None for a drawn mask.
        presence: PerSAM's presence score in [0, 1]; None for a drawn mask.
        warnings: sentences for the visitor.

    Raises:
        PromptError: the mask is of another size than the picture.
    """

    stem: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None
    source: Source = "none"
    decision: Decision | None = None
    score: float | None = None
    presence: float | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.shape != self.image.shape[:2]:
            height, width = self.mask.shape[:2]
            raise PromptError(
                f"The mask of {self.stem} is {width}×{height} pixels and the picture is "
                f"{self.image.shape[1]}×{self.image.shape[0]}: give a mask of the picture's size."
            )

    @property
    def area_share(self) -> float:
        """Share of the picture that the mask covers, in [0, 1]; 0 without one."""
        return 0.0 if self.mask is None else float(self.mask.mean())

    @property
    def is_used(self) -> bool:
        """Whether the picture takes part in training."""
        return self.decision is not None and self.decision != "exclude"

    @property
    def training_mask(self) -> NDArray[np.bool_]:
        """Where the loss counts, bool (H, W): the mask, or everything."""
        if self.decision == "whole" or self.mask is None:
            return np.ones(self.image.shape[:2], bool)
        return self.mask

    @property
    def digest(self) -> str:
        """Hex digits that differ when the picture or what is used of it does."""
        return content_hash(self.image)[:16] + content_hash(self.training_mask.view(np.uint8))[:16]

    def accept(self) -> SubjectPicture:
        """Take the mask as it is. Raises PromptError if there is none, or an empty one."""
        if self.mask is None or not self.mask.any():
            raise PromptError(
                f"{self.stem} has no mask to accept: draw one, use the whole picture, or leave "
                "the picture out."
            )
        return replace(self, decision="accept")

    def redraw(self, mask: NDArray[np.bool_]) -> SubjectPicture:
        """Replace the mask by a drawn one, bool (H, W). Raises PromptError if it is empty."""
        if not mask.any():
            raise PromptError(f"The mask of {self.stem} is empty: paint the subject first.")
        drawn = replace(self, mask=mask.astype(bool), source="drawn", decision="redraw")
        return replace(drawn, score=None, presence=None, warnings=area_warnings(drawn.mask))

    def exclude(self) -> SubjectPicture:
        """Leave the picture out."""
        return replace(self, decision="exclude")

    def use_whole(self) -> SubjectPicture:
        """Let all of the picture count, its background included."""
        return replace(self, decision="whole")


def area_warnings(mask: NDArray[np.bool_] | None) -> tuple[str, ...]:
    """What is odd about a mask's size, as sentences for the visitor."""
    share = 0.0 if mask is None else float(mask.mean())
    if share < SMALLEST_AREA:
        return (
            f"The mask covers {share:.2%} of the picture: a closer picture of the subject works "
            "better.",
        )
    if share > LARGEST_AREA:
        return (
            f"The mask covers {share:.0%} of the picture: look whether it takes in the background.",
        )
    return ()


def check_count(count: int) -> None:
    """Raise PromptError unless a subject can be learned from so many pictures."""
    if count < MIN_PICTURES:
        raise PromptError(
            f"There {'is 1 picture' if count == 1 else f'are {count} pictures'} of the subject: "
            f"give {MIN_PICTURES} to {MAX_PICTURES}, in different places and from different sides."
        )
    if count > MAX_PICTURES:
        raise PromptError(
            f"There are {count} pictures of the subject; the limit is {MAX_PICTURES}, so leave "
            "some out."
        )


def training_pictures(
    pictures: Sequence[SubjectPicture], *, allow_unmasked: bool = False
) -> list[SubjectPicture]:
    """Return the pictures to train on, and log how much of each counts.

    Args:
        allow_unmasked: pictures without mask and decision are used as a whole.

    Raises:
        PromptError: too few or too many pictures, one without decision, or one without mask.
    """
    if allow_unmasked:
        pictures = [p.use_whole() if p.mask is None and not p.decision else p for p in pictures]
    if missing := [p.stem for p in pictures if p.mask is None and not p.decision]:
        raise PromptError(
            f"{_names(missing)} no mask: make the masks first, or say that "
            "pictures without mask are to be used as a whole."
        )
    if open_ := [p.stem for p in pictures if p.decision is None]:
        raise PromptError(
            f"{_names(open_)} no decision yet: accept the mask, draw it anew, use the whole "
            "picture, or leave it out."
        )
    used = [picture for picture in pictures if picture.is_used]
    check_count(len(used))
    for picture in used:
        if not picture.training_mask.any():
            raise PromptError(f"The mask of {picture.stem} is empty: paint the subject first.")
        _log.info(
            "%s: %s, %.1f %% of the picture counts",
            picture.stem,
            "used as a whole" if picture.decision == "whole" else f"mask {picture.source}",
            100 * float(picture.training_mask.mean()),
        )
    return used


def _names(stems: Sequence[str]) -> str:
    """Name some pictures as the subject of "have" or "has"."""
    shown = ", ".join(stems[:3]) + (f" and {len(stems) - 3} more" if len(stems) > 3 else "")
    return f"{shown} {'has' if len(stems) == 1 else 'have'}"
