"""The tab's examples: pictures of the suite, each with the degradation that it is shown with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from apps.suite.degraded.inputs import make_degraded
from apps.suite.degraded.session import Choice
from apps.suite.examples import FOLDER, THUMBNAIL_SIDE, example_button, examples, thumbnail
from core.errors import ImageError
from core.images import LoadedImage, fit_within, load

# In the order of the gallery's pictures, over and over.
SHOWN = (
    Choice("fog", 5),
    Choice("rain", 4),
    Choice("rain at night"),
    Choice("gauss_noise", 5),
    Choice("motion_blur", 4),
    Choice("brightness", 5),
    Choice("compression", 5),
    Choice("snow", 4),
)


@dataclass(frozen=True)
class DegradedExample:
    """One picture of the gallery, and what is done to it."""

    path: Path
    title: str
    credit: str
    choice: Choice


@cache
def degraded_examples(folder: Path = FOLDER) -> dict[str, DegradedExample]:
    """All examples by the picture's file name."""
    return {
        name: DegradedExample(
            one.path,
            f"{one.title} · {choice.title.split(',')[0].lower()}",
            one.credit,
            choice,
        )
        for number, (name, one) in enumerate(examples(folder).items())
        for choice in [SHOWN[number % len(SHOWN)]]
    }


def example(name: object) -> DegradedExample:
    """Return one example. Raises ImageError if there is none of that name."""
    if not isinstance(name, str) or name not in degraded_examples():
        raise ImageError("That example is not here any more; choose another one.")
    return degraded_examples()[name]


@cache
def gallery_html() -> str:
    """Write the gallery: a button for each picture as it looks degraded."""
    buttons = "".join(
        example_button(
            name,
            f"degraded_example_{number}",
            one.path,
            one.title,
            one.credit,
            picture=_thumbnail(one),
        )
        for number, (name, one) in enumerate(degraded_examples().items(), start=1)
    )
    return f'<div class="panel-title">Examples</div><div class="gallery">{buttons}</div>'


def _thumbnail(one: DegradedExample) -> str:
    small = LoadedImage(fit_within(load(one.path).image, THUMBNAIL_SIDE))
    return thumbnail(make_degraded(small, one.choice).image)
