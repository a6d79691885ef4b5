"""What is said of the embedded diffusion model's pictures: prompts as a visitor types them."""

from __future__ import annotations

import random

from core.stickers.objects import ObjectType
from core.training.diffusion_backdrops import BACKDROPS

WORDINGS = (
    "a photo of {} on {}",
    "a photo of {} on {}",
    "{} on {}",
    "a picture of {} on {}",
    "a photo of {} in front of {}",
    "{} in front of {}",
    "a photo of {} with {} behind it",
)
PLAIN_WORDINGS = ("a photo of {}", "a picture of {}", "{}")


def prompt(
    item: ObjectType, backdrop: int | None, colour: str | None, draw: random.Random | None = None
) -> str:
    """Describe a picture: "a photo of a red alarm clock on grass".

    Args:
        backdrop: index into ``BACKDROPS``; None: nothing is said of it.
        colour: of the object; None: nothing is said of it.
        draw: chooses among the wordings; None: the first.
    """
    name = _named(item, colour)
    if backdrop is None:
        return (draw.choice(PLAIN_WORDINGS) if draw else PLAIN_WORDINGS[0]).format(name)
    wording = draw.choice(WORDINGS) if draw else WORDINGS[0]
    return wording.format(name, BACKDROPS[backdrop].words)


def _named(item: ObjectType, colour: str | None) -> str:
    if colour is None or not item.article:
        return f"{colour} {item.name}" if colour else item.with_article
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {item.name}"
