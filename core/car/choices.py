"""What a visitor chooses from: presets of settings, ready lists of words. Free of torch, for pages.

The embedded CLIP knows the objects of this project's table that are no test objects; the
published one knows the world, so that the benchmarks' own class names serve as lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from core.car.config import CarConfig
from core.car.presets import COCO_OBJECT, PRESETS, VOC
from core.errors import PromptError
from core.stickers.objects import find_object, load_objects

# Of each set: the CLIP that makes the maps, and the one that judges them.
CLIPS = {
    "embedded": ("clip_embedded", "clip_embedded"),
    "full": ("clip_vit_b_16", "clip_vit_l_14"),
}
OWN = "embedded"  # the preset of this project's own CLIP
DEFAULT_PRESETS = {"embedded": OWN, "full": "voc"}  # by model set
_ALIASES = {"context": "pascal_context"}

_MIXED = (
    "dog cat elephant penguin butterfly apple banana pizza hamburger car bus bicycle airplane "
    "guitar umbrella key balloon sunflower laptop candle"
).split()

_CATEGORIES = {
    "animals": ("mammal", "bird", "reptile or amphibian", "sea animal", "bug"),
    "food": ("fruit", "vegetable", "prepared food", "drink"),
    "vehicles": ("vehicle",),
    "home": ("furniture", "household"),
    "leisure": ("instrument", "sport and toy"),
    "clothing": ("clothing",),
}


def preset_titles(model_set: str) -> dict[str, str]:
    """Titles of the presets by name, the set's own first."""
    titles = {OWN: "Our own CLIP"} if model_set == "embedded" else {}
    return titles | {name: preset.title for name, preset in PRESETS.items()}


def config_of(preset: str, model_set: str) -> CarConfig:
    """Settings of a preset, at the size that a set's CLIP works at.

    Args:
        preset: "embedded", or a name of ``core.car.presets.PRESETS``.

    Raises:
        PromptError: there is no such preset.
    """
    name = _ALIASES.get(preset, preset)
    if name != OWN and name not in PRESETS:
        raise PromptError(
            f"There is no preset {name[:30]!r}; use one of {', '.join([OWN, *PRESETS])}."
        )
    config = CarConfig.embedded() if name == OWN else PRESETS[name].config
    sizes = CarConfig.embedded() if model_set == "embedded" else CarConfig()
    return replace(
        config,
        square_side=sizes.square_side,
        max_side=sizes.max_side,
        max_tokens=sizes.max_tokens,
    )


def change(config: CarConfig, **values: Any) -> CarConfig:
    """Replace some settings. Raises PromptError on one out of its range."""
    try:
        return replace(config, **values)
    except ValueError as error:
        raise PromptError(f"The setting {error}.") from None


@dataclass(frozen=True)
class WordList:
    """Some words with a title."""

    title: str
    words: tuple[str, ...]


@cache
def word_lists(model_set: str) -> Mapping[str, WordList]:
    """The ready lists of a model set ("embedded" or "full") by name."""
    if model_set == "full":
        lists = {
            "voc": WordList("Pascal VOC, 20 names", VOC),
            "coco": WordList("COCO, 80 names", COCO_OBJECT),
        }
    else:
        titles = {name: name.capitalize() for name in _CATEGORIES}
        lists = {"mixed": WordList("20 things of the sticker world", tuple(_MIXED))}
        lists |= {
            name: WordList(titles[name], _names(categories))
            for name, categories in _CATEGORIES.items()
        }
    return MappingProxyType(lists)


def unknown_words(words: Iterable[str]) -> tuple[str, ...]:
    """Those of some words or phrases that the embedded CLIP never learned."""
    return tuple(word for word in words if not _is_known(word))


def _names(categories: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        item.name
        for item in load_objects().values()
        if item.category in categories and item.split == "train"
    )


def _is_known(text: str) -> bool:
    """An object or a category, with an article and colours before it or not."""
    words = text.casefold().split()
    while words:
        noun = " ".join(words)
        item = find_object(noun)
        if (item is not None and item.split == "train") or noun in _all_categories():
            return True
        if words[0] not in {"a", "an", "the", *_all_colours()}:
            return False
        words = words[1:]
    return False


@cache
def _all_categories() -> frozenset[str]:
    return frozenset(item.category for item in load_objects().values())


@cache
def _all_colours() -> frozenset[str]:
    return frozenset(colour for item in load_objects().values() for colour in item.colours)
