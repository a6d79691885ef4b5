"""What is said of sticker scenes: the texts that the embedded CLIP learns from.

``python -m core.training.clip_words`` writes the merges of its tokenizer: those of CLIP's own byte
pairs that spell the words below, so that every other text is still read, in smaller pieces.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable
from functools import cache

from core.car.config import EMBEDDED_BACKGROUND
from core.clip.build import MERGES
from core.stickers.colours import COLOURS
from core.stickers.objects import ObjectType, load_attributes, load_objects, pluralise

# The first ones are CaR's own (spec of its classifier); the others are for stickers.
TEMPLATES = (
    "a clean origami {}.",
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a large {} in the scene.",
    "a picture of a {}",
    "a drawing of the {}",
    "an image of a {}",
    "the {}",
)
CAPTIONS = ("{}", "a photo of {}", "there is {} in the picture", "a picture with {}", "{} here")
OTHER_WORDS = (
    "a an the and or of in on with no two three four five six seven one left right upper lower top "
    "bottom middle centre center front behind next to above below between largest smallest bigger "
    "smaller thing object something anything kind piece that which is are can for used photo "
    "photos picture pictures image images drawing scene sticker icon person people man woman "
    "child hand face red-haired bright dark light colourful colorful color colour gray beige cyan"
)
RAW_SHARE = 0.35  # of texts without a template, as a visitor types them
SYNONYM_SHARE = 0.4
PLURAL_SHARE = 0.1


def spell(item: ObjectType, draw: random.Random) -> str:
    """Name an object: most often by its name, else by a synonym or in the plural."""
    chance = draw.random()
    if chance < PLURAL_SHARE:
        return item.plural
    if chance < PLURAL_SHARE + SYNONYM_SHARE:
        return draw.choice(item.synonyms)
    return item.name


def put_into_words(noun: str, draw: random.Random) -> str:
    """Put a noun into a template, or leave it alone."""
    return noun if draw.random() < RAW_SHARE else draw.choice(TEMPLATES).format(noun)


def describe(nouns: Iterable[str], draw: random.Random) -> str:
    """Caption a scene by its nouns: "a photo of a red apple and a dog"."""
    phrases = [_with_article(noun) for noun in nouns]
    joined = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return draw.choice(CAPTIONS).format(joined)


def _with_article(noun: str) -> str:
    known = _articles().get(noun)
    article = ("an" if noun[:1] in "aeiou" else "a") if known is None else known
    return f"{article} {noun}".strip()


@cache
def _articles() -> dict[str, str]:
    return {item.name: item.article for item in load_objects().values()}


def all_words() -> set[str]:
    """Every word of the table and of the texts around it, in lower case."""
    texts = [*TEMPLATES, *EMBEDDED_BACKGROUND, *CAPTIONS, *COLOURS, OTHER_WORDS]
    texts += [attribute.phrase for attribute in load_attributes().values()]
    for item in load_objects().values():
        texts += [item.name, item.plural, item.category, pluralise(item.category), *item.synonyms]
        texts += [pluralise(synonym) for synonym in item.synonyms]
    return {word for text in texts for word in text.lower().replace("{}", " ").split()}


def needed_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return those of CLIP's merges that spelling ``words`` takes, in CLIP's order."""
    from open_clip.tokenizer import SimpleTokenizer

    full = SimpleTokenizer()
    needed: set[tuple[str, str]] = set()
    for word in words:
        for token in full.pat.findall(word):
            letters = [full.byte_encoder[byte] for byte in token.encode()]
            pieces = [*letters[:-1], f"{letters[-1]}</w>"]
            while len(pieces) > 1:
                pairs = zip(pieces, pieces[1:], strict=False)
                first = min(pairs, key=lambda pair: full.bpe_ranks.get(pair, len(full.bpe_ranks)))
                if first not in full.bpe_ranks:
                    break
                needed.add(first)
                pieces = _merge(pieces, first)
    return sorted(needed, key=full.bpe_ranks.__getitem__)


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] = "".join(pair)
        else:
            merged.append(piece)
    return merged


def write_merges() -> int:
    """Write the tokenizer's file; return the size of its vocabulary."""
    merges = needed_merges(sorted(all_words()))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    MERGES.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return 2 * 256 + len(merges) + 2


if __name__ == "__main__":
    print(f"{write_merges()} tokens")
