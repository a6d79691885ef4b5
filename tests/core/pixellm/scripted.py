"""A PixelLM of random weights that writes given answers with given masks, for tests of its users.

Everything but the choice of tokens and the masks' logits is the network's own: prompts, cache,
groups, spans, post-processing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.models.catalogue import PROJECT
from core.pixellm import generation, pipeline, serving
from core.pixellm.chat_model import ChatModel
from core.pixellm.config import LanguageConfig
from core.pixellm.model import PixelLM
from core.pixellm.tokenizer import load_tokenizer
from tests.core.pixellm.conftest import GROUP, small_config

TOKENIZER = PROJECT / "assets" / "models" / "pixellm_tokenizer.json"
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of the square input


@dataclass(frozen=True)
class Line:
    """An answer: "{seg}" in its text stands for a mask's group, "{half}" for an incomplete one.

    Args:
        boxes: of its masks; an empty one (x0 = x1) gives an empty mask.
        pause: seconds before each token.
    """

    text: str
    boxes: Sequence[Box] = ()
    pause: float = 0.0


@dataclass
class Script:
    """Which question gets which answer; ``asked`` is what the model was asked, in order."""

    lines: Mapping[str, Line]
    other: Line = field(default_factory=lambda: Line("There is no such thing here."))
    asked: list[str] = field(default_factory=list)

    def line(self, prompt: str) -> Line:
        """The answer to the last question of a prompt."""
        self.asked.append(prompt)
        found = (line for question, line in self.lines.items() if question in prompt)
        return next(found, self.other)


def scripted_model(model_id: str = "pixellm_embedded") -> ChatModel:
    """A small network with the embedded model's tokenizer."""
    import tokenizers

    size = tokenizers.Tokenizer.from_file(str(TOKENIZER)).get_vocab_size()
    language = LanguageConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=24,
        num_layers=1,
        num_heads=2,
        max_position_embeddings=512,
    )
    vision = replace(small_config().vision, image_size=128, trained_size=128)
    config = small_config(language=language, vision=vision)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PixelLM(config).eval().requires_grad_(False)
    return ChatModel(network, load_tokenizer(Path(TOKENIZER), config), id=model_id)


@contextmanager
def scripted(script: Script, model: ChatModel | None = None) -> Iterator[ChatModel]:
    """Let every chat of the process be one with the scripted model."""
    chat = model or scripted_model()
    with pytest.MonkeyPatch.context() as patch:
        install(patch, script, chat)
        yield chat


def install(patch: pytest.MonkeyPatch, script: Script, chat: ChatModel) -> None:
    """Replace the choice of tokens, the masks' logits, and where models come from."""
    tokens: list[int] = []
    boxes: list[Box] = []
    pause = [0.0]
    generate = generation.generate

    def begin(network: Any, decoding: Any, prompt: Sequence[int], *others: Any) -> Any:
        line = script.line(chat.tokenizer.decode([one for one in prompt if one >= 0]))
        text = line.text.replace("{seg}", GROUP).replace("{half}", GROUP.rpartition(" [")[0])
        tokens[:] = [*chat.tokenizer.encode(text), chat.tokenizer.eos_id]
        boxes[:] = line.boxes
        pause[0] = line.pause
        return generate(network, decoding, prompt, *others)

    def choose(*_: Any) -> int:
        time.sleep(pause[0])
        return tokens.pop(0)

    def logits(states: Any, features: Any) -> list[torch.Tensor]:
        side = chat.config.mask_size
        x0, y0, x1, y1 = (round(side * value) for value in boxes.pop(0))
        large = torch.full((1, 1, side, side), -8.0)
        large[..., y0:y1, x0:x1] = 8.0
        return [large[..., ::2, ::2], large]

    @contextmanager
    def borrow(engine: Any, model_id: str, *_: Any, **__: Any) -> Iterator[ChatModel]:
        yield chat

    patch.setattr(pipeline, "generate", begin)
    patch.setattr(generation, "choose_token", choose)
    patch.setattr(chat.network, "scale_logits", logits, raising=False)
    patch.setattr(serving, "borrow", borrow)


def picture(size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A grey picture with a red square, RGB uint8 (H, W, 3)."""
    image = np.full((*size, 3), 170, np.uint8)
    image[20:60, 30:80] = (200, 40, 40)
    return image
