"""Words to look for: read, each once, and found again under every position they were given at."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.clip.model import ClipModel
from core.clip.text import fill_template, truncated_texts
from core.errors import PromptError
from core.prompts import TextQueries

Words = str | Sequence[str] | TextQueries


@dataclass(frozen=True)
class Queries:
    """The words of one request.

    Args:
        words: distinct words in the order of their first appearance.
        positions: for each word as given, its index in ``words``.
        warnings: sentences for the visitor.
    """

    words: tuple[str, ...]
    positions: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Words) -> Queries:
        """Read words or phrases, which may contain commas; a string holds one in each line.

        Words that differ only in case, width or white space count as one: the text tower would
        read the same, and two of them would share one probability.

        Raises:
            PromptError: there is no word, one is empty, or one is not text.
        """
        words: list[str] = []
        indices: dict[str, int] = {}
        positions = []
        for text in _texts(value):
            word = " ".join(text.split())
            if not word:
                raise PromptError("A query is empty; type a word to look for, or remove it.")
            index = indices.setdefault(key_of(word), len(words))
            if index == len(words):
                words.append(word)
            positions.append(index)
        if not words:
            raise PromptError("There is no query; type at least one word to look for.")
        return cls(tuple(words), tuple(positions), tuple(_repeated(words, positions)))


def key_of(word: str) -> str:
    """What two spellings of one word have in common."""
    return unicodedata.normalize("NFKC", word).casefold()


def without_asked(background: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Background words that are not looked for, each once."""
    asked = {key_of(word) for word in words}
    return tuple(one for one in dict.fromkeys(background) if key_of(one) not in asked)


def length_warnings(
    words: Sequence[str], read_by: Sequence[tuple[ClipModel, str]]
) -> tuple[str, ...]:
    """Name the words whose end a text tower cannot read.

    Args:
        read_by: each model, with the longest template that it reads the words in.
    """
    cut: dict[str, None] = {}
    for model, template in read_by:
        filled = {fill_template(template, word): word for word in words}
        cut |= {filled[text]: None for text in truncated_texts(model, list(filled))}
    return tuple(
        f"“{word if len(word) <= 24 else word[:23] + '…'}” is longer than the model reads; "
        "its end is ignored, so shorten it."
        for word in cut
    )


def _texts(value: Words) -> list[str]:
    if isinstance(value, str):
        return [line for line in value.splitlines() if line.strip()]
    texts = list(value.queries if isinstance(value, TextQueries) else value)
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise PromptError(f"A query is {wrong!r:.40}; each must be text.")
    return texts


def _repeated(words: Sequence[str], positions: Sequence[int]) -> list[str]:
    return [
        f"“{words[index]}” was given {times} times and is looked for once."
        for index, times in sorted(Counter(positions).items())
        if times > 1
    ]
