"""Which words of an answer mean which mask.

The model writes a group of codebook tokens behind the words for a thing. The words are found by
rules on English noun phrases: back from the group to a punctuation mark, a verb, a conjunction or
the group before, at most eight words. "A cat and a dog are ⟨1⟩ and ⟨2⟩" is linked by order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_WORDS = 8

_WORD = re.compile(r"[^\s.,;:!?()\"“”]+")
_BREAK = re.compile(r"[.,;:!?()\"“”]")
_SENTENCE = re.compile(r"[.;:!?]\s*")
_BETWEEN = re.compile(r"[\s,;:]*(?:and)?[\s,;:]*", re.IGNORECASE)  # between groups of one list
_LIST = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+", re.IGNORECASE)
_RESULT = re.compile(r"^(?:the\s+)?(?:segmentation\s+)?(?:results?|masks?)\s+(?:of|for)\s+", re.I)
_ARTICLE = re.compile(r"^(?:the|an?|this|that|these|those)\s+(?=\S)", re.IGNORECASE)

_COPULAS = frozenset("is are was were".split())
_DETERMINERS = frozenset(
    "a an the this that these those your my his her its our their some any both each every another "
    "one two three four five six several all no".split()
)
_PREPOSITIONS = frozenset(
    "of on in at with by from near behind under above below beside beneath between inside over "
    "left right next to front for".split()
)
_PRONOUNS = frozenset("it they he she we i you there here them this that these those".split())
_EMPTY = frozenset("the this segmentation result results mask masks".split())  # name nothing
_STOPS = (
    _COPULAS
    | frozenset("it they he she we i you there here them him us me who which where".split())
    | frozenset("and or but so because sure yes no ok okay well then also as if while than".split())
    | frozenset(
        "be been being am has have had do does did can could will would shall should may might "
        "must use uses using used see sees need needs take find choose pick get grab try want wear "
        "show shows shown mean means meant called labelled segment segmented result results".split()
    )
)

_ASKED = (
    re.compile(
        r"\b(?:segment|identify|delineate|pinpoint|highlight|discern|isolate|show me|find)"
        r"\s+(.+?)(?:\s+in (?:this|the) (?:image|picture|photo))?\s*[.?!]*$",
        re.I,
    ),
    re.compile(r"\bwhat (?:is|are)\s+(.+?)\s+in (?:this|the) (?:image|picture|photo)\b", re.I),
    re.compile(
        r"\bwhere (?:is|are)\s+(.+?)(?:\s+in (?:this|the) (?:image|picture|photo))?"
        r"\s*[.?!]*$",
        re.I,
    ),
)


@dataclass(frozen=True)
class Span:
    """Characters start to end of the answer, and the numbers of the targets that they mean."""

    start: int
    end: int
    targets: tuple[int, ...]


def link_phrases(text: str, positions: Sequence[int], numbers: Sequence[int]) -> list[Span]:
    """Link targets to the words before them.

    Args:
        positions: where in ``text`` each target's group stood, ascending.
        numbers: of the targets.

    Returns:
        Spans in the order of the text, none overlapping; targets without words of their own, as
        in "It is ⟨1⟩.", are in none.
    """
    spans: list[Span] = []
    start = 0
    for group in _cluster(text, positions):
        end = positions[group[0]]
        spans += _link_cluster(text, start, end, [numbers[index] for index in group])
        start = positions[group[-1]]
    return spans


def objects_in_question(question: str) -> list[str]:
    """What a question asks to segment: "the cat and a dog" in "Please segment the cat and a dog
    in this image."; [] where it asks otherwise."""
    for pattern in _ASKED:
        if match := pattern.search(question):
            return [item for item in _LIST.split(match[1]) if item]
    return []


def label_targets(
    text: str, spans: Sequence[Span], numbers: Sequence[int], question: str
) -> list[str]:
    """Name each target: by its words, else by the question's object of its place, else by number.

    Args:
        numbers: of the answer's targets, in order.
    """
    said = {number: text[span.start : span.end] for span in spans for number in span.targets}
    asked = objects_in_question(question)
    if len(asked) == 1:
        asked *= len(numbers)
    names = dict(zip(numbers, asked, strict=True)) if len(asked) == len(numbers) else {}
    return [
        _ARTICLE.sub("", said.get(number) or names.get(number) or f"target {number}")
        for number in numbers
    ]


def _cluster(text: str, positions: Sequence[int]) -> list[list[int]]:
    """Group targets with nothing between them but commas or "and"."""
    clusters: list[list[int]] = []
    for index, position in enumerate(positions):
        if clusters and _BETWEEN.fullmatch(text, positions[index - 1], position):
            clusters[-1].append(index)
        else:
            clusters.append([index])
    return clusters


def _link_cluster(text: str, start: int, end: int, numbers: list[int]) -> list[Span]:
    """Spans for targets that stand together at ``end``; their words begin after ``start``."""
    words = list(_WORD.finditer(text, start, end))
    if words and words[-1][0].lower() in _COPULAS:
        end = words[-1].start()
        sentences = list(_SENTENCE.finditer(text, start, end))
        begin = sentences[-1].end() if sentences else start
        items = _list_items(text, begin, end)
        if not items:
            return []
        if len(items) == len(numbers):
            return [Span(*item, (n,)) for item, n in zip(items, numbers, strict=True)]
        first = items[0] if len(numbers) > 1 else items[-1]
        return [Span(first[0], items[-1][1], tuple(numbers))]
    phrase = _noun_phrase(text, start, end)
    return [Span(*phrase, tuple(numbers))] if phrase else []


def _list_items(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Ends of the things in a subject such as "Sure, a cat, a dog and a bird"."""
    items = []
    begin = start
    for match in [*_LIST.finditer(text, start, end), None]:
        stop = match.start() if match else end
        if item := _subject(text, begin, stop):
            items.append(item)
        begin = match.end() if match else end
    return items


def _subject(text: str, start: int, end: int) -> tuple[int, int] | None:
    """A subject without the words around it; None for a pronoun or a filler."""
    if prefix := _RESULT.match(text[start:end].lstrip()):
        start += len(text[start:end]) - len(text[start:end].lstrip()) + prefix.end()
    words = list(_WORD.finditer(text, start, end))
    while words and words[0][0].lower() in _STOPS - _DETERMINERS:
        words = words[1:]
    names = [word[0].lower() for word in words]
    if not set(names) - _EMPTY or names[0] in _PRONOUNS and len(names) == 1:
        return None
    words = words[-MAX_WORDS:]
    return words[0].start(), words[-1].end()


def _noun_phrase(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The noun phrase that ends at ``end``; None if there is none."""
    end = start + len(text[start:end].rstrip(" ,;:"))
    breaks = list(_BREAK.finditer(text, start, end))
    words = list(_WORD.finditer(text, breaks[-1].end() if breaks else start, end))[-MAX_WORDS:]
    names = [word[0].lower() for word in words]
    stop = max((i for i, name in enumerate(names) if name in _STOPS - _DETERMINERS), default=-1)
    words, names = words[stop + 1 :], names[stop + 1 :]
    first = _first_word(names)
    return (words[first].start(), words[-1].end()) if first < len(words) else None


def _first_word(names: list[str]) -> int:
    """Where a noun phrase begins: at its last determiner, or at an earlier one that "of", "on" or
    the like joins to it."""
    determiners = [i for i, name in enumerate(names) if name in _DETERMINERS]
    if not determiners:
        return next((i for i, name in enumerate(names) if name not in _PREPOSITIONS), len(names))
    first = determiners.pop()
    while determiners and names[first - 1] in _PREPOSITIONS:
        first = determiners.pop()
    return first
