"""The words of a PixelLM: any of transformers' tokenizers, with what a chat asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import ModelUnavailable
from core.pixellm.codebook import Codebook, token_names
from core.pixellm.config import PixelLMConfig

IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"  # around the picture in a prompt


class ChatTokenizer:
    """A tokenizer whose vocabulary has the codebook and the two tokens around a picture.

    Args:
        tokenizer: one of transformers'.
        config: of the network it belongs to.

    Raises:
        ModelUnavailable: a token is missing, shares its id with another one, or is beyond the
            network's vocabulary; or there is no token that ends an answer.
    """

    def __init__(self, tokenizer: Any, config: PixelLMConfig) -> None:
        self._tokenizer = tokenizer
        names = (*token_names(config), IMAGE_START, IMAGE_END)
        ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
        unknown = tokenizer.unk_token_id
        size = config.language.vocab_size
        wrong = [
            name
            for name, token in zip(names, ids, strict=True)
            if token is None or token == unknown or token >= size or ids.count(token) > 1
        ]
        if wrong or tokenizer.eos_token_id is None:
            raise ModelUnavailable(
                f"The tokenizer does not fit the model: {', '.join(wrong) or 'an end token'} is "
                f"missing or not among its {size} ids. Get the tokenizer that belongs to it."
            )
        blanks = {*tokenizer(" ", add_special_tokens=False)["input_ids"]}
        blanks.add(tokenizer.convert_tokens_to_ids("▁"))
        self.codebook = Codebook(
            tuple(ids[:-2]), config.scales, frozenset(blanks - {unknown, None})
        )
        self.image_start_id, self.image_end_id = ids[-2:]
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int = tokenizer.eos_token_id
        self.unk_id: int | None = unknown

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that only the network and the prompt's frame may write, never a visitor."""
        ids = {*self.codebook.ids, self.image_start_id, self.image_end_id, self.eos_id}
        return frozenset(ids if self.bos_id is None else ids | {self.bos_id})

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without a start token; named tokens in it become their ids."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids without control tokens, white space collapsed, none in front."""
        words = [token for token in ids if token not in self.control_ids]
        text = self._tokenizer.decode(words, clean_up_tokenization_spaces=False)
        collapsed = " ".join(text.split())
        return collapsed + " " if collapsed and text[-1].isspace() else collapsed

    def decode_raw(self, ids: Sequence[int]) -> str:
        """The text of ids with every token shown, as the published demo prints it."""
        return self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def load_tokenizer(path: Path, config: PixelLMConfig) -> ChatTokenizer:
    """Read a tokenizer from a folder in transformers' layout, or from a tokenizers JSON file.

    A file has to name its special tokens "<s>", "</s>" and "<unk>", where it has them.

    Raises:
        ModelUnavailable: missing, unreadable, or of another model.
    """
    try:
        tokenizer = _read_folder(path, config) if path.is_dir() else _read_file(path)
    except Exception as error:  # tokenizers' Rust part raises plain Exception
        raise ModelUnavailable(
            f"The tokenizer {path.name} is missing or damaged, or the package sentencepiece, "
            "which reads published ones, is not installed: get it again."
        ) from error
    return ChatTokenizer(tokenizer, config)


def _read_file(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _read_folder(path: Path, config: PixelLMConfig) -> Any:
    """Read a published tokenizer so that it splits texts as the one of the training did.

    That was the slow tokenizer of transformers 4.31, which began a word after each named token
    ("legacy") and swallowed white space around the tokens that PixelLM adds, the line break
    behind the picture included.
    """
    from transformers import AddedToken, AutoTokenizer, LlamaTokenizer

    if not (path / "tokenizer.model").is_file():
        return AutoTokenizer.from_pretrained(str(path))
    tokenizer = LlamaTokenizer.from_pretrained(str(path), legacy=True)
    known = tokenizer.get_vocab()
    names = [n for n in (*token_names(config), IMAGE_START, IMAGE_END) if n in known]
    tokenizer.add_tokens([AddedToken(n, lstrip=True, rstrip=True, normalized=False) for n in names])
    return tokenizer
