"""The table of everyday objects: names, synonyms, categories, attributes, and who is a test object.

The one source of CLIP captions, CaR queries, PixelLM questions and DreamBooth prompts. Objects are
keyed by their Unicode emoji code point (lower-case hex without fe0f, for instance "1f34e"), which
is also how the sprites of every art style are found. The data is ``objects.json`` beside this file.

An attribute of an object is true (listed in ``attributes``), arguable (``arguable``: a pumpkin
gives light only when carved; a question about it had better leave the object out of the picture),
or clearly false (listed in neither).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

TABLE = Path(__file__).with_name("objects.json")
TEST_PERCENT = 15
_CODE_POINT = re.compile(r"[0-9a-f]{4,5}")
_WORDS = re.compile(r"[a-z][a-z'’-]*( [a-z][a-z'’-]*)*")


@dataclass(frozen=True)
class Attribute:
    """A yes-or-no property; ``phrase`` is its predicate ("tells the time", "can be eaten")."""

    tag: str
    phrase: str

    @property
    def question(self) -> str:
        return f"What in the picture {self.phrase}?"


@dataclass(frozen=True, kw_only=True)
class ObjectType:
    """One row of the table.

    ``article`` is "a", "an" or "" (mass nouns such as "bread" and plural ones such as "scissors").
    ``colours`` are how most art styles draw the object, the dominant one first. ``openclipart``
    holds the file name stems of matching pictures in Debian's openclipart-png, often none.
    """

    code_point: str
    name: str
    article: str
    plural: str
    synonyms: tuple[str, ...]
    category: str
    attributes: frozenset[str]
    arguable: frozenset[str]
    colours: tuple[str, ...]
    openclipart: tuple[str, ...]

    @property
    def with_article(self) -> str:
        """Return the name as it stands in a sentence: "an apple", "bread"."""
        return f"{self.article} {self.name}".strip()

    @property
    def split(self) -> Literal["train", "test"]:
        return split_of(self.code_point)

    def has(self, tag: str) -> bool | None:
        """Return whether the attribute holds; None where people would disagree.

        Raises:
            KeyError: the tag is not in the vocabulary.
        """
        _known_tag(tag)
        return None if tag in self.arguable else tag in self.attributes


def split_of(code_point: str) -> Literal["train", "test"]:
    """Return the split of an object, whatever its art style; about 15 % are test objects.

    Works for any code point, so that sprites outside of the table are split by the same rule.
    """
    digest = blake2b(code_point.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % 100 < TEST_PERCENT else "train"


@cache
def load_objects() -> MappingProxyType[str, ObjectType]:
    """Read and validate the table: code point to object, in the order of the file.

    Raises:
        ValueError: the table contradicts itself; the message names every row at fault.
    """
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    objects = {code: _object(code, row) for code, row in table["objects"].items()}
    if problems := find_problems(table, objects.values()):
        raise ValueError(f"{TABLE.name}: {'; '.join(problems)}")
    return MappingProxyType(objects)


@cache
def load_attributes() -> MappingProxyType[str, Attribute]:
    """Read the closed vocabulary of attributes: tag to attribute."""
    phrases = json.loads(TABLE.read_text(encoding="utf-8"))["attributes"]
    return MappingProxyType({tag: Attribute(tag, phrase) for tag, phrase in phrases.items()})


def find_object(text: str) -> ObjectType | None:
    """Return the object that a name, a synonym or a plural of either means; None if unknown.

    Case, hyphens, repeated spaces and a leading article do not matter.
    """
    return _index().get(normalise(text))


def with_attribute(tag: str) -> tuple[ObjectType, ...]:
    """Return the objects that clearly have the attribute. Raises KeyError on an unknown tag."""
    return tuple(item for item in load_objects().values() if item.has(_known_tag(tag)))


def without_attribute(tag: str) -> tuple[ObjectType, ...]:
    """Return the objects that clearly lack the attribute. Raises KeyError on an unknown tag."""
    return tuple(item for item in load_objects().values() if item.has(_known_tag(tag)) is False)


def by_category() -> dict[str, tuple[ObjectType, ...]]:
    """Return the objects of each category, categories in the order of the file."""
    groups: dict[str, list[ObjectType]] = {}
    for item in load_objects().values():
        groups.setdefault(item.category, []).append(item)
    return {category: tuple(items) for category, items in groups.items()}


def normalise(text: str) -> str:
    """Bring a phrase to the form in which names are compared: "The  T-Shirt" to "t shirt"."""
    words = text.casefold().replace("’", "'").replace("-", " ").split()
    if len(words) > 1 and words[0] in {"a", "an", "the"}:
        words = words[1:]
    return " ".join(words)


def pluralise(phrase: str) -> str:
    """Return the regular English plural of a phrase; "head of garlic" to "heads of garlic"."""
    head, of, rest = phrase.partition(" of ")
    if re.search(r"[^aeiou]y$", head):
        head = head[:-1] + "ies"
    elif re.search(r"(s|x|z|ch|sh)$", head):
        head += "es"
    else:
        head += "s"
    return head + of + rest


def find_problems(table: dict[str, Any], objects: Iterable[ObjectType]) -> list[str]:
    """Return what is wrong with the objects of a table, one sentence a fault; empty if sound."""
    rows = list(objects)
    problems = [f"{item.code_point}: {fault}" for item in rows for fault in _faults(table, item)]
    # A plural may equal its own name ("sheep"), so each object counts a spelling once.
    spellings = Counter(spelling for item in rows for spelling in _spellings(item))
    problems += [f"{text!r} names several objects" for text, n in spellings.items() if n > 1]
    return problems


def _faults(table: dict[str, Any], item: ObjectType) -> list[str]:
    checks = {
        "code point is not lower-case hex": _CODE_POINT.fullmatch(item.code_point),
        f"unknown category {item.category!r}": item.category in table["categories"],
        f"unknown article {item.article!r}": item.article in ("", "a", "an"),
        "needs 2 to 4 synonyms": 2 <= len(item.synonyms) <= 4,
        "synonyms repeat each other or the name": len(item.synonyms)
        < len({normalise(text) for text in (item.name, *item.synonyms)}),
        "name, plural and synonyms are lower-case words": all(
            _WORDS.fullmatch(text) for text in (item.name, item.plural, *item.synonyms)
        ),
        "unknown attribute": item.attributes | item.arguable <= table["attributes"].keys(),
        "attribute both true and arguable": not item.attributes & item.arguable,
        "needs 1 to 3 known colours": 1 <= len(item.colours) <= 3
        and set(item.colours) <= set(table["colours"]),
    }
    return [fault for fault, sound in checks.items() if not sound]


def _spellings(item: ObjectType) -> set[str]:
    return {normalise(text) for text in (item.name, item.plural, *item.synonyms)}


@cache
def _index() -> dict[str, ObjectType]:
    objects = load_objects().values()
    index = {spelling: item for item in objects for spelling in _spellings(item)}
    for item in objects:
        for text in (item.name, *item.synonyms):
            # A spelling that is in the table wins over one made by rule.
            index.setdefault(normalise(pluralise(text)), item)
    return index


def _known_tag(tag: str) -> str:
    if tag not in load_attributes():
        raise KeyError(f"unknown attribute {tag!r}")
    return tag


def _object(code_point: str, row: dict[str, Any]) -> ObjectType:
    sets = {key: frozenset(row[key]) for key in ("attributes", "arguable")}
    tuples = {key: tuple(row[key]) for key in ("synonyms", "colours", "openclipart")}
    return ObjectType(**{**row, **sets, **tuples}, code_point=code_point)
