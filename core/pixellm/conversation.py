"""What is written around a visitor's questions: templates, turns, the picture's place.

The first question carries the picture; later ones go on from there. Old answers go back to the
model as the ids it wrote, never as text, because a codebook group survives no second tokenising.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import PromptError
from core.pixellm.codebook import IMAGE_TOKEN
from core.pixellm.tokenizer import IMAGE_END, IMAGE_START, ChatTokenizer

MAX_QUESTION_CHARS = 1000
MAX_TURNS = 50
UNKNOWN_SHARE = 0.5  # of a question's tokens, from which the visitor is told

AnswerStyle = Literal["as_asked", "mask", "explain"]

# What training put behind questions to ask for masks (utils of the published code).
STYLE_SUFFIXES: dict[AnswerStyle, str] = {
    "as_asked": "",
    "mask": " Please output segmentation mask.",
    "explain": " Please output segmentation mask and explain why.",
}


@dataclass(frozen=True)
class Template:
    """The frame of a dialogue; an answer ends with the tokenizer's end token."""

    system: str
    user: str
    assistant: str


TEMPLATES = {
    "llava_v1": Template(
        system="A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. ",
        user="USER: ",
        assistant=" ASSISTANT:",
    ),
    "plain": Template(system="", user="USER: ", assistant=" ASSISTANT:"),
}


@dataclass(frozen=True)
class Question:
    """A visitor's question, cleaned.

    Args:
        text: one line.
        style: what is asked for behind it.
    """

    text: str
    style: AnswerStyle = "as_asked"

    @classmethod
    def parse(cls, value: str | None, style: AnswerStyle = "as_asked") -> Question:
        """Read a question in any script; white space is collapsed, control characters dropped.

        Raises:
            PromptError: empty, not text, too long, or an unknown style.
        """
        if not isinstance(value, str | None):
            raise PromptError(f"The question is {value!r:.40}; it must be text.")
        kept = (c for c in value or "" if c.isspace() or unicodedata.category(c) not in _CONTROLS)
        text = " ".join("".join(kept).split())
        if not text:
            raise PromptError("There is no question; ask something about the picture.")
        if len(text) > MAX_QUESTION_CHARS:
            raise PromptError(
                f"The question has {len(text)} characters; the limit is {MAX_QUESTION_CHARS}, so "
                "shorten it."
            )
        if style not in STYLE_SUFFIXES:
            raise PromptError(
                f"The answer style {style!r} is not known; use one of {', '.join(STYLE_SUFFIXES)}."
            )
        return cls(text, style)

    @property
    def prompt(self) -> str:
        """The text as the model gets it."""
        return self.text + STYLE_SUFFIXES[self.style]


@dataclass(frozen=True)
class Prompt:
    """A question as token ids, with what the visitor should know about it.

    Args:
        ids: the picture is ``IMAGE_TOKEN`` among them.
        warnings: one sentence each.
    """

    ids: tuple[int, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One question and the ids that answered it, the end token included where there is one."""

    question: Question
    answer_ids: tuple[int, ...]

    @classmethod
    def parse(cls, value: Any, tokenizer: ChatTokenizer, vocab_size: int) -> Turn:
        """Read a turn of a saved conversation, {"question", "style", "answer_ids"}.

        Raises:
            PromptError: it is no such mapping, or an id is none of an answer.
        """
        ids = value.get("answer_ids") if isinstance(value, Mapping) else None
        if not isinstance(ids, list | tuple) or len(ids) > _MAX_IDS:
            raise PromptError(
                "The conversation cannot be read; give the history as it was returned."
            )
        forbidden = tokenizer.control_ids - {*tokenizer.codebook.ids, tokenizer.eos_id}
        for token in ids:
            if type(token) is not int or not 0 <= token < vocab_size or token in forbidden:
                raise PromptError(
                    f"The conversation contains the token id {token!r:.20}, which no answer has; "
                    "give the history as it was returned."
                )
        question = Question.parse(value.get("question"), value.get("style", "as_asked"))
        return cls(question, tuple(ids))

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``parse`` reads."""
        return {
            "question": self.question.text,
            "style": self.question.style,
            "answer_ids": list(self.answer_ids),
        }


def first_prompt(question: Question, template: Template, tokenizer: ChatTokenizer) -> Prompt:
    """The question that brings the picture with it."""
    before = tokenizer.encode(template.system + template.user + IMAGE_START)
    after = tokenizer.encode(f"{IMAGE_END}\n{question.prompt}{template.assistant}")
    words, warnings = _clean(after[1:], tokenizer)
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return Prompt((*start, *before, IMAGE_TOKEN, after[0], *words), warnings)


def next_prompt(question: Question, template: Template, tokenizer: ChatTokenizer) -> Prompt:
    """A further question about the same picture."""
    ids = tokenizer.encode(template.user + question.prompt + template.assistant)
    words, warnings = _clean(ids, tokenizer)
    return Prompt(tuple(words), warnings)


_CONTROLS = ("Cc", "Cs")
_MAX_IDS = 4096


def _clean(ids: list[int], tokenizer: ChatTokenizer) -> tuple[list[int], tuple[str, ...]]:
    """Take control tokens out of what a visitor wrote; warn of them and of unknown words."""
    words = [token for token in ids if token not in tokenizer.control_ids]
    warnings = []
    if len(words) < len(ids):
        warnings.append(
            "The question contains tokens that only the model may write; they were left out."
        )
    unknown = sum(token == tokenizer.unk_id for token in words)
    if tokenizer.unk_id is not None and unknown > UNKNOWN_SHARE * len(words):
        warnings.append(
            "Most words of the question are unknown to this model: ask in English and in plain "
            "words."
        )
    return words, tuple(warnings)
