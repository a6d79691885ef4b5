"""The embedded PixelLM's tokenizer: ``python -m core.training.pixellm_tokenizer`` writes its file.

One token for every word of the object table and of the questions and answers, with and without a
capital; any other text is spelled in letters, and letters that are unknown in bytes. So a text of
what the model knows is short, and no text is unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.models.catalogue import PROJECT
from core.pixellm.codebook import token_names
from core.pixellm.config import PixelLMConfig
from core.pixellm.tokenizer import IMAGE_END, IMAGE_START, ChatTokenizer, load_tokenizer
from core.stickers.colours import COLOURS
from core.stickers.objects import load_attributes, load_objects, pluralise
from core.training import pixellm_words as words

FILE = PROJECT / "assets" / "models" / "pixellm_tokenizer.json"
SPACE = "▁"  # in front of a word's first piece
MARKS = ".,?!:;'\"()-"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
FRAME = "USER ASSISTANT"  # of the template
OTHERS = (
    "the a an another more one no and but nothing is are it they that those other true of not "
    "left right upper lower top bottom in on at the middle colour color gray grey"
)
# Log-probabilities: a word is cheaper than any spelling of it.
WORD, PIECE = -8.0, -12.0


def all_words() -> list[str]:
    """Every word that training writes, sorted; those of questions also with a small letter."""
    texts = [*words.all_forms(), *words.GREETINGS, *words.NUMBERS, *COLOURS, OTHERS, FRAME]
    texts += ["Please output segmentation mask and explain why", "There is one but nothing"]
    for ways in (words.EXTREMES, words.SIDES):
        texts += [text for several in ways.values() for text in several]
    texts += [*words.LARGEST, *words.SMALLEST, *words.LARGER, *words.SMALLER]
    texts += [noun for pair in words.CATEGORIES.values() for noun in pair]
    texts += [attribute.phrase for attribute in load_attributes().values()]
    for item in load_objects().values():
        texts += [item.name, item.plural, item.category, *item.synonyms]
        texts += [pluralise(text) for text in item.synonyms]
    found = {word for text in texts for word in split(text)}
    found |= {word.lower() for word in found} | {word[0].upper() + word[1:] for word in found}
    return sorted(found)


def split(text: str) -> list[str]:
    """Words of a text, without its slots and the marks around them."""
    bare = (word.strip(MARKS) for word in text.split() if not word.startswith("{"))
    return [word for word in bare if word]


def build(known: Iterable[str]) -> Any:
    """Make a tokenizer of transformers' that knows some words."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers.pre_tokenizers import Metaspace

    special = ["<unk>", "<s>", "</s>", *token_names(PixelLMConfig.embedded())]
    special += [IMAGE_START, IMAGE_END]
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
    vocabulary += [(mark, WORD) for mark in MARKS]
    vocabulary += [(piece, PIECE) for piece in (SPACE, *LETTERS)]
    vocabulary += [(SPACE + word, WORD) for word in known if len(word) > 1 or word in "aIA"]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = Metaspace(SPACE, prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # A group's tokens swallow the space before them, so that they are six in a row.
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=token.startswith("["), normalized=False) for token in special]
    )
    return tokenizer


def embedded_tokenizer(path: Path = FILE) -> ChatTokenizer:
    """The tokenizer of the embedded model."""
    return load_tokenizer(path, embedded_config(path))


def word_pieces(path: Path = FILE) -> dict[int, str]:
    """The words of the embedded model's vocabulary, by their ids."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(path)).get_vocab()
    found = {token: piece.removeprefix(SPACE) for piece, token in vocabulary.items()}
    return {token: word for token, word in sorted(found.items()) if word[:1].isalpha()}


def embedded_config(path: Path = FILE) -> PixelLMConfig:
    """The embedded model's configuration with its tokenizer's vocabulary.

    Raises:
        ModelUnavailable: the tokenizer's file is missing or damaged.
    """
    from tokenizers import Tokenizer

    return PixelLMConfig.embedded(Tokenizer.from_file(str(path)).get_vocab_size())


def main() -> None:
    tokenizer = build(all_words())
    tokenizer.save(str(FILE), pretty=False)
    print(f"{tokenizer.get_vocab_size()} tokens, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
