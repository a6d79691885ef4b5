"""The fifteen kinds of degradation by the field's names, in the published order, and `clear`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.degradations import recipes
from core.degradations.arrays import Picture
from core.degradations.sampling import Draw
from core.errors import PromptError

Family = Literal["none", "weather", "noise", "blur", "colour", "compression", "geometric"]


@dataclass(frozen=True)
class Kind:
    """One way in which a picture can be bad.

    Args:
        name: as in the published folders and tables.
        title: for a page.
        description: one sentence.
        recipe: draws the parameters and returns the degraded picture.
        moves_pixels: a mask of the clear picture no longer fits exactly.
    """

    name: str
    title: str
    family: Family
    description: str
    recipe: Callable[[Picture, Draw], Picture]
    moves_pixels: bool = False


_ALL = (
    Kind("clear", "Clear", "none", "The picture as it is.", recipes.clear),
    Kind(
        "snow",
        "Snow",
        "weather",
        "Falling snowflakes in one to three layers, lightening what is behind them.",
        recipes.snow,
    ),
    Kind(
        "fog",
        "Fog",
        "weather",
        "Bright fog of uneven density that takes contrast and colour away.",
        recipes.fog,
    ),
    Kind(
        "rain",
        "Rain",
        "weather",
        "Falling drops, drawn out to streaks that slant by up to 15 degrees.",
        recipes.rain,
    ),
    Kind(
        "gauss_noise",
        "Gaussian noise",
        "noise",
        "Independent normal noise in every pixel and channel.",
        recipes.gauss_noise,
    ),
    Kind(
        "ISO_noise",
        "ISO noise",
        "noise",
        "Coloured grain of a sensor at high sensitivity: light and hue of each pixel change.",
        recipes.iso_noise,
    ),
    Kind(
        "impulse_noise",
        "Over-exposure",
        "noise",
        "Everything brighter by one factor and clipped; called impulse noise where published.",
        recipes.impulse_noise,
    ),
    Kind(
        "resampling_blur",
        "Low resolution",
        "blur",
        "Scaled down to a fraction of its pixels and up again.",
        recipes.resampling_blur,
    ),
    Kind(
        "motion_blur",
        "Motion blur",
        "blur",
        "Smeared along a line, as by a moving camera.",
        recipes.motion_blur,
    ),
    Kind(
        "zoom_blur",
        "Zoom blur",
        "blur",
        "Smeared away from the centre, as by a lens that zooms while exposing.",
        recipes.zoom_blur,
    ),
    Kind(
        "color_jitter",
        "Wrong colours",
        "colour",
        "Brightness, contrast, saturation and hue changed at random.",
        recipes.color_jitter,
    ),
    Kind(
        "compression",
        "JPEG compression",
        "compression",
        "Blocks and false colours of a JPEG file of very low quality.",
        recipes.compress,
    ),
    Kind(
        "elastic_transform",
        "Elastic warp",
        "geometric",
        "Bent smoothly, as through uneven glass or hot air.",
        recipes.elastic_transform,
        moves_pixels=True,
    ),
    Kind(
        "frosted_glass_blur",
        "Frosted glass",
        "blur",
        "Every pixel copied from a random neighbour.",
        recipes.frosted_glass_blur,
        moves_pixels=True,
    ),
    Kind(
        "brightness",
        "Low light",
        "colour",
        "Everything darker by one factor.",
        recipes.brightness,
    ),
    Kind(
        "contrast",
        "Hard contrast",
        "colour",
        "Dark parts black and bright parts white.",
        recipes.contrast,
    ),
)
KINDS = {kind.name: kind for kind in _ALL}
DEGRADATIONS = tuple(name for name in KINDS if name != "clear")
FAMILIES: dict[str, tuple[str, ...]] = {
    family: tuple(kind.name for kind in _ALL if kind.family == family)
    for family in ("weather", "noise", "blur", "colour", "compression", "geometric")
}


def find_kind(name: str) -> Kind:
    """Return the kind of a name.

    Raises:
        PromptError: there is none; the message lists the names.
    """
    if name not in KINDS:
        raise PromptError(f"There is no degradation {name!r}; choose one of {', '.join(KINDS)}.")
    return KINDS[name]
