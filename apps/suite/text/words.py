"""Lists of words that a visitor edits: one word a line, each once, nothing lost on a refusal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from core.settings import Settings, settings


@dataclass(frozen=True)
class Added:
    """What became of some lines that were typed or pasted.

    Args:
        words: the list now.
        returned: the lines that were refused, to go back into the field.
        text: what is to be said, "" if everything was taken.
    """

    words: tuple[str, ...]
    returned: str = ""
    text: str = ""


def add_lines(words: tuple[str, ...], text: str, limits: Settings = settings) -> Added:
    """Add the lines of a text to a list; commas belong to the words.

    Lines that are too long go back, repeated ones are left out, and nothing is taken where the
    list would grow over its limit.
    """
    lines = [line for line in map(tidy, text.splitlines()) if line]
    long = [line for line in lines if len(line) > limits.max_query_chars]
    merged = merge([*words, *(line for line in lines if line not in long)])
    if len(merged) > limits.max_queries:
        return Added(words, "\n".join(lines), _say_many(len(merged), limits.max_queries))
    repeated = len(words) + len(lines) - len(long) - len(merged)
    said = [_say_long(line, limits.max_query_chars) for line in long[:1]]
    if repeated:
        said.append(_say_repeated(lines, repeated))
    return Added(merged, "\n".join(long), " ".join(said))


def tidy(line: str) -> str:
    """Collapse white space and drop control characters; "" if nothing of it can be seen."""
    kept = "".join(
        c for c in line if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn")
    )
    seen = any(unicodedata.category(c)[0] not in "CZ" for c in kept)
    return " ".join(kept.split()) if seen else ""


def merge(words: Iterable[str]) -> tuple[str, ...]:
    """Keep the first of words that differ in case or width only."""
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(unicodedata.normalize("NFKC", word).casefold(), word)
    return tuple(found.values())


def short(word: str, most: int = 24) -> str:
    """A word as a sentence names it."""
    return f"“{word if len(word) <= most else word[: most - 1] + '…'}”"


def _say_many(count: int, most: int) -> str:
    return (
        f"That would be {count} words; the limit is {most}. What you typed is back in the field: "
        f"take out {count - most} or more."
    )


def _say_long(line: str, most: int) -> str:
    return (
        f"The word {short(line)} has {len(line)} characters; the limit is {most}. "
        "It is back in the field: shorten it."
    )


def _say_repeated(lines: list[str], repeated: int) -> str:
    if len(lines) == 1:
        return f"{short(lines[0])} is in the list already."
    one = repeated == 1
    return f"{repeated} word{'' if one else 's'} {'was' if one else 'were'} in the list already."
