"""Conversations as tensors: all those about one picture in one sequence.

The picture comes first and is read once; behind it stand the conversations one after the other,
each of which sees the picture and itself. Their positions count as if each were alone, so the
language model learns exactly what it will be asked to do later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.pixellm.codebook import IMAGE_TOKEN
from core.pixellm.config import PixelLMConfig
from core.pixellm.conversation import TEMPLATES, Question, Template, first_prompt, next_prompt
from core.pixellm.losses import IGNORED
from core.pixellm.tokenizer import ChatTokenizer
from core.training.pixellm_questions import SEG, Exchange


@dataclass(frozen=True)
class Batch:
    """Conversations about B pictures, T positions each.

    Args:
        ids: int64 (B, T), any id where the picture is and behind the end.
        labels: int64 (B, T), tokens to be predicted at the position before; else ``IGNORED``.
        positions: int64 (B, T).
        speakers: int64 (B, T), which conversation, 0 the common beginning, -1 nothing.
        picture: positions of the picture.
        scene: int64 (K,), picture of each target.
        question: int64 (K,), number of the question that it answers.
        thing: int64 (K,), the target's number in its scene.
        states: int64 (K, L·N), positions whose hidden states make the target.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    speakers: Tensor
    picture: slice
    scene: Tensor
    question: Tensor
    thing: Tensor
    states: Tensor

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """What is added to attention logits: 0 or the lowest number, (B, 1, T, T)."""
        own = self.speakers[:, None, :] == self.speakers[:, :, None]
        seen = (own | (self.speakers == 0)[:, None, :]).tril()
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]

    def to(self, device: torch.device) -> Batch:
        moved = {k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        return Batch(**{**self.__dict__, **moved})


@dataclass
class _Sequence:
    """What is said about one picture."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    speakers: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], speaker: int, *, start: int, said: bool = False) -> None:
        self.ids += ids
        self.labels += ids if said else [IGNORED] * len(ids)
        self.positions += range(start, start + len(ids))
        self.speakers += [speaker] * len(ids)


class Packer:
    """Writes conversations as token ids, as the pipeline writes them."""

    def __init__(self, tokenizer: ChatTokenizer, config: PixelLMConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.template: Template = TEMPLATES[config.template]
        self.group = " ".join(tokenizer.decode_raw([i]).strip() for i in tokenizer.codebook.ids)

    def pack(self, scenes: Sequence[Sequence[tuple[Exchange, ...]]]) -> Batch:
        """Pack the conversations about each of some pictures."""
        sequences, targets = [], []
        questions = 0
        for b, conversations in enumerate(scenes):
            sequence = self._start()
            common = len(sequence.ids)
            for speaker, conversation in enumerate(conversations, 1):
                start = common
                for turn, exchange in enumerate(conversation):
                    asked = self._asked(exchange, first=turn == 0)
                    said = self.answer_ids(exchange)
                    sequence.add(asked, speaker, start=start)
                    for number, states in zip(
                        exchange.targets, self._states(said, len(sequence.ids)), strict=True
                    ):
                        targets.append((b, questions, number, states))
                    sequence.add(said, speaker, start=start + len(asked), said=True)
                    start += len(asked) + len(said)
                    questions += 1
            sequences.append(sequence)
        return self._stack(sequences, targets)

    def answer_ids(self, exchange: Exchange) -> list[int]:
        """An answer with its groups and the end token."""
        text = exchange.answer.replace(SEG, self.group)
        return [*self.tokenizer.encode(text), self.tokenizer.eos_id]

    def _start(self) -> _Sequence:
        """What every first prompt begins with, up to the token behind the picture."""
        ids = first_prompt(Question("?"), self.template, self.tokenizer).ids
        place = ids.index(IMAGE_TOKEN)
        picture = [self.tokenizer.eos_id] * self.config.image_tokens
        sequence = _Sequence()
        sequence.add([*ids[:place], *picture, ids[place + 1]], 0, start=0)
        return sequence

    def _asked(self, exchange: Exchange, *, first: bool) -> list[int]:
        question = Question.parse(exchange.question)
        if not first:
            return list(next_prompt(question, self.template, self.tokenizer).ids)
        ids = first_prompt(question, self.template, self.tokenizer).ids
        return list(ids[ids.index(IMAGE_TOKEN) + 2 :])

    def _states(self, said: Sequence[int], start: int) -> list[list[int]]:
        """For each group of an answer that begins at ``start``: the positions before its tokens."""
        size, first = len(self.tokenizer.codebook), self.tokenizer.codebook.ids[0]
        begins = [start + k for k, token in enumerate(said) if token == first]
        return [list(range(begin - 1, begin - 1 + size)) for begin in begins]

    def _stack(
        self, sequences: Sequence[_Sequence], targets: Sequence[tuple[int, int, int, list[int]]]
    ) -> Batch:
        longest = max(len(one.ids) for one in sequences)

        def rows(name: str, filler: int) -> Tensor:
            lists = [getattr(one, name) for one in sequences]
            return torch.tensor([own + [filler] * (longest - len(own)) for own in lists])

        scene, question, thing, states = zip(*targets, strict=True) if targets else ((),) * 4
        begin = first_prompt(Question("?"), self.template, self.tokenizer).ids.index(IMAGE_TOKEN)
        return Batch(
            ids=rows("ids", self.tokenizer.eos_id),
            labels=rows("labels", IGNORED),
            positions=rows("positions", 0),
            speakers=rows("speakers", -1),
            picture=slice(begin, begin + self.config.image_tokens),
            scene=torch.tensor(scene, dtype=torch.long),
            question=torch.tensor(question, dtype=torch.long),
            thing=torch.tensor(thing, dtype=torch.long),
            states=torch.tensor(states, dtype=torch.long).reshape(-1, len(self.tokenizer.codebook)),
        )
