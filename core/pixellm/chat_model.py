"""A PixelLM as the pipeline takes it: the network, its tokenizer, its name."""

from __future__ import annotations

from dataclasses import dataclass

from core.models.catalogue import ModelSet
from core.pixellm.config import PixelLMConfig
from core.pixellm.conversation import TEMPLATES, Template
from core.pixellm.model import PixelLM
from core.pixellm.tokenizer import ChatTokenizer


@dataclass(frozen=True, eq=False)
class ChatModel:
    """One PixelLM with everything that belongs to it; holds nothing of a visitor.

    Args:
        network: in eval mode; its language model and tower may be in half precision.
        id: of the catalogue.
        model_set: whose weights: "full" are published ones.
    """

    network: PixelLM
    tokenizer: ChatTokenizer
    id: str = "pixellm"
    model_set: ModelSet = "embedded"

    @property
    def config(self) -> PixelLMConfig:
        return self.network.config

    @property
    def template(self) -> Template:
        return TEMPLATES[self.config.template]
