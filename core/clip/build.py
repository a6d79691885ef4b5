"""Construct CLIPs by open_clip's model names, and the embedded one's tokenizer.

The embedded CLIP's configuration is registered with open_clip like any other.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import open_clip
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from core.clip.model import ClipModel
from core.models.loading import load_weights

if TYPE_CHECKING:
    from core.models.catalogue import Entry

EMBEDDED = "segment-studio-vit-tiny"
MERGES = Path(__file__).with_name("merges.txt.gz")

open_clip.add_model_config(Path(__file__).with_name("configs"))


def build_clip(name: str = EMBEDDED) -> CLIP:
    """Build an open_clip model by its registered name, with freshly initialised weights."""
    return CLIP(**open_clip.get_model_config(name))


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> CLIP:
    """Build the catalogue's ``entry`` straight from its weights (eval mode, CPU, frozen).

    Raises:
        ModelUnavailable: names or shapes do not fit.
    """
    with torch.device("meta"):
        model = build_clip(entry.config["model"])
    model.to_empty(device="cpu")
    length = model.context_length  # the causal mask is not part of the checkpoint
    model.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
    load_weights(model, state_dict, name=entry.id)
    return model.eval().requires_grad_(False)


def with_tokenizer(entry: Entry, clip: CLIP) -> ClipModel:
    """A model of the catalogue as the methods take it."""
    tokenize = embedded_tokenizer() if entry.set == "embedded" else published_tokenizer()
    return ClipModel(clip, tokenize, id=entry.id, model_set=entry.set)


@cache
def embedded_tokenizer() -> SimpleTokenizer:
    """CLIP's byte pairs, of which only those that spell the object table's words are merged."""
    length = open_clip.get_model_config(EMBEDDED)["text_cfg"]["context_length"]
    return SimpleTokenizer(bpe_path=str(MERGES), context_length=length)


@cache
def published_tokenizer() -> SimpleTokenizer:
    """CLIP's own, for texts of up to 77 tokens."""
    return SimpleTokenizer()
