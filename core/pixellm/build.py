"""Construct a PixelLM from the catalogue's weights or from the published checkpoints.

Published weights come in two parts: a folder with the language model and everything PixelLM adds,
and the image tower of CLIP ViT-L/14 at 336 px, whose position table is resized here. Their names
are mapped one to one; a name that belongs nowhere is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.errors import ModelUnavailable
from core.models.loading import find_local, load_weights
from core.pixellm.chat_model import ChatModel
from core.pixellm.config import LanguageConfig, PixelLMConfig, VisionConfig
from core.pixellm.model import PixelLM
from core.pixellm.tokenizer import load_tokenizer
from core.pixellm.vision import resize_position_table

if TYPE_CHECKING:
    from core.models.catalogue import Entry

ADDED_PARTS = (
    "mm_projector",
    "out_mm_projector",
    "text_hidden_fcs",
    "image_feature_neck",
    "prompt_encoder",
    "mask_decoder",
)
LANGUAGE_PARTS = ("embed_tokens", "layers", "norm")
POSITIONS = "vision_tower.clip.embeddings.position_embedding.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> PixelLM:
    """Build the catalogue's ``entry`` and fill in its weights (eval mode, CPU, frozen).

    Its configuration is what ``PixelLMConfig.from_dict`` reads, with the file name of the
    tokenizer beside the weights as "tokenizer". A tied head may be missing from the file.

    Raises:
        ModelUnavailable: names or shapes do not fit.
    """
    config = entry_config(entry)
    network = build_empty(config)
    if config.language.tie_word_embeddings and EMBEDDING in state_dict:
        state_dict = {**state_dict, HEAD: state_dict[EMBEDDING]}
    load_weights(network, state_dict, name=entry.id)
    return network.eval().requires_grad_(False)


def with_tokenizer(entry: Entry, network: PixelLM) -> ChatModel:
    """A model of the catalogue as the pipeline takes it.

    Raises:
        ModelUnavailable: the tokenizer is missing or of another model.
    """
    tokenizer = load_tokenizer(_tokenizer_path(entry), network.config)
    return ChatModel(network, tokenizer, id=entry.id, model_set=entry.set)


def _tokenizer_path(entry: Entry) -> Path:
    """A file beside the weights, or the folder of a published model."""
    if "tokenizer" in entry.config:
        return Path(entry.file).with_name(entry.config["tokenizer"])
    config_file = find_local(entry)
    if config_file is None:
        raise ModelUnavailable(f"The files of {entry.title} are gone: load it again.")
    return config_file.parent


def entry_config(entry: Entry) -> PixelLMConfig:
    """The configuration of an entry of the catalogue."""
    return PixelLMConfig.from_dict({k: v for k, v in entry.config.items() if k != "tokenizer"})


def build_empty(config: PixelLMConfig) -> PixelLM:
    """Build a network with memory for its weights and nothing in it."""
    network = build_on_meta(config)
    network.to_empty(device="cpu")
    restore_buffers(network)
    return network


def build_on_meta(config: PixelLMConfig) -> PixelLM:
    """Build a network without memory, for its names and shapes."""
    with torch.device("meta"):
        return PixelLM(config)


def restore_buffers(network: PixelLM) -> None:
    """Fill the buffers that no checkpoint has, and tie what is tied, after a build on meta."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    llama = network.language_model
    llama.model.rotary_emb = LlamaRotaryEmbedding(llama.config)
    embeddings = network.vision_tower.clip.embeddings
    positions = torch.arange(embeddings.num_positions)[None]
    embeddings.register_buffer("position_ids", positions, persistent=False)
    if network.config.language.tie_word_embeddings:
        llama.lm_head.weight = llama.model.embed_tokens.weight


def map_published(
    state_dict: Mapping[str, Tensor], clip_state_dict: Mapping[str, Tensor], config: PixelLMConfig
) -> dict[str, Tensor]:
    """Rename published parameters to a ``PixelLM``'s own.

    Args:
        state_dict: of the published folder, all its shards together.
        clip_state_dict: of the image tower: a whole CLIP, or its CLIPVisionModel.

    Raises:
        ModelUnavailable: a name belongs to no part.
    """
    named = {}
    for key, value in state_dict.items():
        if not key.endswith("rotary_emb.inv_freq"):  # older transformers saved this constant
            named[published_name(key)] = value
    named |= {f"vision_tower.clip.{k}": v for k, v in clip_tower(clip_state_dict).items()}
    if POSITIONS in named:
        named[POSITIONS] = resize_position_table(
            named[POSITIONS], config.vision.grid_size, config.vision.position_table
        )
    return named


def published_name(key: str) -> str:
    """Our name of a published parameter. Raises ModelUnavailable if it belongs to no part."""
    name = key.removeprefix("model.")
    part = name.partition(".")[0]
    if name != key and part in ADDED_PARTS:
        return name
    if key == "lm_head.weight" or name != key and part in LANGUAGE_PARTS:
        return f"language_model.{key}"
    raise ModelUnavailable(
        f"The checkpoint has a parameter {key!r} that PixelLM has not: get the files of "
        "PixelLM-7B or 13B from their folder hf_model."
    )


def clip_tower(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's parameters from a whole CLIP's, or as they are if it is one already."""
    prefix = "vision_model."
    if any(key.startswith(prefix) for key in state_dict):
        state_dict = {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
    return {k: v for k, v in state_dict.items() if not k.endswith("position_ids")}


def config_of_published(values: Mapping[str, Any]) -> PixelLMConfig:
    """Read a published config.json.

    It names a model type that transformers uses for something else, so it is read as plain
    numbers. N is not always among them; the published models have 3.

    Raises:
        ModelUnavailable: a size is missing.
    """
    try:
        language = LanguageConfig(
            vocab_size=values["vocab_size"],
            hidden_size=values["hidden_size"],
            intermediate_size=values["intermediate_size"],
            num_layers=values["num_hidden_layers"],
            num_heads=values["num_attention_heads"],
            num_key_value_heads=values.get("num_key_value_heads"),
            rms_norm_eps=values.get("rms_norm_eps", 1e-6),
            rope_theta=values.get("rope_theta") or 10000.0,
            max_position_embeddings=values.get("max_position_embeddings", 2048),
        )
    except KeyError as error:
        raise ModelUnavailable(
            f"The file config.json lacks {error.args[0]!r}: get the published folder hf_model."
        ) from None
    deep = values.get("mm_vision_select_layer", VisionConfig.feature_layers[0])
    return PixelLMConfig(
        vision=VisionConfig(
            position_table="reference",
            feature_layers=(deep, VisionConfig.feature_layers[1]),
        ),
        language=language,
        tokens_per_scale=values.get("seg_token_num", 3),
    )
