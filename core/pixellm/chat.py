"""A visitor's conversation about one picture; belongs into the visitor's session."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from core.errors import PromptError
from core.pixellm.chat_model import ChatModel
from core.pixellm.codebook import find_groups
from core.pixellm.conversation import (
    MAX_TURNS,
    Prompt,
    Question,
    Turn,
    first_prompt,
    next_prompt,
)
from core.pixellm.generation import Decoding
from core.pixellm.model import PictureFeatures

LEAST_ANSWER = 16  # tokens that have to be free for an answer


class Conversation:
    """The picture's features, the turns, and how far the language model has read.

    Args:
        use_cache: False reads everything again for each token, as the published code does.
    """

    def __init__(
        self, model: ChatModel, picture: PictureFeatures, *, use_cache: bool = True
    ) -> None:
        self.picture = picture
        self.decoding = Decoding(model.network, picture, use_cache=use_cache)
        self.turns: list[Turn] = []
        self.targets = 0  # of all turns
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take the conversation for one question.

        Raises:
            PromptError: another question is being answered.
        """
        if not self._lock.acquire(blocking=False):
            raise PromptError("The last question is still being answered: wait for it, or stop it.")
        try:
            yield
        finally:
            self._lock.release()

    def prompt(self, model: ChatModel, question: Question) -> Prompt:
        """Write the next question as token ids.

        Raises:
            PromptError: no room is left for an answer, or there are too many turns.
        """
        write = next_prompt if self.turns else first_prompt
        prompt = write(question, model.template, model.tokenizer)
        limit = model.config.language.max_position_embeddings
        if self.room(model, prompt) < LEAST_ANSWER or len(self.turns) >= MAX_TURNS:
            raise PromptError(
                f"The conversation is too long: the limits are {MAX_TURNS} questions and {limit} "
                "tokens, so start a new one or ask a shorter question."
            )
        return prompt

    def room(self, model: ChatModel, prompt: Prompt) -> int:
        """Tokens that an answer to a prompt may have."""
        picture = 0 if self.turns else len(self.picture.image_tokens) - 1
        used = self.decoding.length + len(prompt.ids) + picture
        return model.config.language.max_position_embeddings - used

    def close_turn(self, model: ChatModel, turn: Turn) -> None:
        """Keep a finished turn; an answer that was cut gets the end that it lacks."""
        eos_id = model.tokenizer.eos_id
        if turn.answer_ids[-1:] != (eos_id,):
            self.decoding.pending.append(eos_id)
        self.turns.append(turn)
        groups = find_groups(
            turn.answer_ids, model.tokenizer.codebook, unchecked=model.config.unchecked_groups
        )
        self.targets += len(groups.complete)

    def replay(self, model: ChatModel, history: Sequence[Any]) -> None:
        """Take up a saved conversation, ``Turn.to_json`` values in order.

        Raises:
            PromptError: it cannot be read, or is too long.
        """
        for value in history:
            turn = Turn.parse(value, model.tokenizer, model.config.language.vocab_size)
            prompt = self.prompt(model, turn.question)
            if self.room(model, prompt) <= len(turn.answer_ids):
                raise PromptError("The conversation is too long for the model: start a new one.")
            self.decoding.pending += [*prompt.ids, *turn.answer_ids]
            self.close_turn(model, turn)

    def history(self) -> list[dict[str, Any]]:
        """JSON values from which ``replay`` goes on."""
        return [turn.to_json() for turn in self.turns]
