"""Write an answer token by token, with a key-value cache that lasts for a conversation.

The published code runs picture and prompt through the whole network for every new token, because
it reads hidden states of the last run. Those of the cached steps are the same: the state after
reading t - 1 tokens is the one that predicts token t, and a codebook token's vector is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.pixellm.codebook import IMAGE_TOKEN
from core.pixellm.model import PictureFeatures, PixelLM


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How an answer is written.

    Args:
        max_new_tokens: an answer is cut there.
        temperature: 0: the most probable token each time; above: drawn, with ``seed``.
        max_targets: writing stops there; a model in a loop would go on.

    Raises:
        ValueError: a number is out of its range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    max_targets: int = 20

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.max_targets < 1:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens} and max_targets {self.max_targets}; "
                "both must be at least 1"
            )
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 to 2")


@dataclass(frozen=True, eq=False)
class Step:
    """A token that was written, and the hidden state (D,) that predicted it."""

    token: int
    state: Tensor


class Decoding:
    """How far the language model has read in one conversation about one picture.

    Args:
        use_cache: keep keys and values; otherwise everything is read again at each step, as the
            published code does, with the same result.
    """

    def __init__(
        self, network: PixelLM, picture: PictureFeatures, *, use_cache: bool = True
    ) -> None:
        self._network = network
        self._picture = picture
        self._use_cache = use_cache
        self._cache: Any = None
        self.ids: list[int] = []  # read, the picture as IMAGE_TOKEN
        self.pending: list[int] = []  # written or asked, and not read yet

    @property
    def length(self) -> int:
        """Positions of the sequence, pending ones included."""
        pictures = self.ids.count(IMAGE_TOKEN) + self.pending.count(IMAGE_TOKEN)
        return len(self.ids) + len(self.pending) + pictures * (len(self._picture.image_tokens) - 1)

    @torch.no_grad()
    def read(self) -> Tensor:
        """Read what is pending and return the last position's hidden state, (D,).

        It is the language model's output after its final norm. If reading fails, nothing is
        lost: the next call reads all of it again.
        """
        cache, self._cache = self._cache, None
        if self._use_cache and cache is None:
            from transformers import DynamicCache

            cache = DynamicCache()
        seen = cache.get_seq_length() if cache is not None else 0
        ids = self.pending if seen else [*self.ids, *self.pending]
        embeds = self._network.embed(ids, self._picture.image_tokens)[None]  # (1, t, D)
        positions = torch.arange(seen, seen + embeds.shape[1], device=embeds.device)
        output = self._network.language_model.model(
            inputs_embeds=embeds,
            attention_mask=self._attention_mask(),
            # Masked positions count, as in the published code.
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=self._use_cache,
        )
        self._cache = cache
        self.ids += self.pending
        self.pending = []
        return output.last_hidden_state[0, -1]

    def forget(self) -> None:
        """Free the cache's memory; the next ``read`` makes it again."""
        self._cache = None

    def checkpoint(self) -> tuple[int, list[int]]:
        """Remember what is read and pending now, for ``roll_back``."""
        return len(self.ids), list(self.pending)

    def roll_back(self, checkpoint: tuple[int, list[int]]) -> None:
        """Return to a checkpoint; the cache is made again."""
        read, pending = checkpoint
        del self.ids[read:]
        self.pending = list(pending)
        self.forget()

    def _attention_mask(self) -> Tensor | None:
        """1 for positions that may be looked at, (1, T); None where all may."""
        token_mask = self._picture.token_mask
        if bool(token_mask.all()):
            return None
        mask = torch.ones(1, self.length, dtype=torch.long, device=token_mask.device)
        start = [*self.ids, *self.pending].index(IMAGE_TOKEN)
        mask[0, start : start + len(token_mask)] = token_mask
        return mask


def generate(
    network: PixelLM,
    decoding: Decoding,
    prompt: Sequence[int],
    eos_id: int,
    options: GenerationOptions | None = None,
) -> Iterator[Step]:
    """Write an answer to a prompt; ends after ``eos_id`` or at the limit.

    After each step its token is among ``decoding.pending``, so that the caller may stop at any
    time and go on with another prompt later.
    """
    options = options or GenerationOptions()
    random = torch.Generator().manual_seed(options.seed)
    decoding.pending += prompt
    for _ in range(options.max_new_tokens):
        state = decoding.read()
        token = choose_token(network, state, options.temperature, random)
        decoding.pending.append(token)
        yield Step(token, state)
        if token == eos_id:
            return


@torch.no_grad()
def choose_token(
    network: PixelLM, state: Tensor, temperature: float, random: torch.Generator
) -> int:
    """Take the most probable next token, or draw one."""
    logits = network.token_logits(state)  # (V,)
    if temperature == 0:
        return int(logits.argmax())
    probabilities = F.softmax(logits.cpu() / temperature, dim=0)
    return int(torch.multinomial(probabilities, 1, generator=random))
