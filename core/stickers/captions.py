"""Say in words what a scene shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from core.stickers.objects import find_object, pluralise


def caption(names: Iterable[str]) -> str:
    """Describe a scene by its objects' names, in their order: "two apples and a clock".

    Names of the object table take its articles and plurals, others regular ones.
    """
    counts = Counter(names)
    return _join([_phrase(name, count) for name, count in counts.items()]) or "nothing"


def _phrase(name: str, count: int) -> str:
    known = find_object(name)
    if count == 1:
        if known is not None:
            return known.with_article
        return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
    number = ("two", "three", "four", "five", "six")[count - 2] if count <= 6 else str(count)
    return f"{number} {known.plural if known is not None else pluralise(name)}"


def _join(phrases: list[str]) -> str:
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
