"""Pictures of the Degraded tab: what is clicked, the two answers, the cards of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.components import Drawing
from apps.suite.degraded.session import Card, DegradedSession
from apps.suite.segment.drawing import MOST_NUMBERED, data_address, draw_prompts
from core.images import fit_within
from core.overlays import draw

if TYPE_CHECKING:
    from core.robustsam.pipeline import SweepStep
    from core.robustsam.priors import Restoration
    from core.sam.pipeline import SamResult

Image = NDArray[np.uint8]

CARD_SIDE = 260  # px
FOUR_SIDE = 480  # px


def draw_answer(view: View, answer: SamResult | None, drawing: Drawing) -> Image:
    """Draw one model's masks over the shown picture, RGB(A) uint8 (h, w, 3 or 4)."""
    if answer is None or not drawing.overlay:
        return view.image
    found = answer.segmentation
    return draw(
        view.image,
        np.stack([view.mask(mask) for mask in found.masks]),
        ids=list(found.numbers),
        opacity=drawing.opacity,
        outline=drawing.outline,
        numbers=drawing.numbers and 1 < len(found) <= MOST_NUMBERED,
        background=drawing.background,
    )


def draw_picture(session: DegradedSession) -> Image:
    """Draw the degraded picture with RobustSAM's masks and the prompts."""
    view = session.need_picture().view
    answer = session.comparison.robust if session.comparison else None
    return draw_prompts(draw_answer(view, answer, session.drawing), view, session.scene)


def draw_pair(session: DegradedSession) -> tuple[Image, Image]:
    """SAM's and RobustSAM's answers, each RGB uint8 (h, w, 3)."""
    view, found = session.need_picture().view, session.comparison
    answers = (found.sam, found.robust) if found else (None, None)
    first, second = (_opaque(draw_answer(view, one, session.drawing)) for one in answers)
    return first, second


def draw_four(session: DegradedSession) -> list[str]:
    """Clear, degraded, SAM's and RobustSAM's answer, small, as data addresses."""
    clear, picture = session.need_clear(), session.need_picture()
    pictures = (View.of(clear.loaded.image).image, picture.view.image, *draw_pair(session))
    return [data_address(fit_within(np.ascontiguousarray(one), FOUR_SIDE)) for one in pictures]


def draw_restored(results: tuple[Restoration, ...]) -> list[str]:
    """The restored pictures, small, as data addresses."""
    return [data_address(fit_within(one.image, FOUR_SIDE)) for one in results]


def draw_card(step: SweepStep) -> Card:
    """Draw one step of a sweep small: the degraded picture with RobustSAM's masks."""
    view = View.of(step.degraded.image, CARD_SIDE)
    drawn = _opaque(draw_answer(view, step.comparison.robust, Drawing(numbers=False)))
    picture = data_address(fit_within(drawn, CARD_SIDE))
    return Card(step.name, step.severity, step.sam_iou, step.robust_iou, picture)


def _opaque(picture: Image) -> Image:
    return np.ascontiguousarray(picture[:, :, :3])
