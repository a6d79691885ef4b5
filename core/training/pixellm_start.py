"""Where the embedded PixelLM begins: with what the embedded CLIP knows of pictures and words.

Its image tower is CLIP's; open_clip keeps a block's query, key and value weights in one matrix,
transformers' CLIPVisionModel has three. Its word embeddings are CLIP's features of the words, in
which objects lie where the tower's features can be brought to.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.clip.build import build_from_entry, with_tokenizer
from core.clip.model import ClipModel
from core.clip.text import encode_texts
from core.errors import ModelUnavailable
from core.models.catalogue import catalogue
from core.models.loading import load_weights, locate, read_state_dict
from core.pixellm.model import PixelLM
from core.pixellm.vision import resize_position_table

CLIP = "clip_embedded"
PARTS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = "transformer.resblocks."
WORD_LENGTH = 0.5  # of an embedding; as much again is drawn, times ``WORD_NOISE``
WORD_NOISE = 0.3


def embedded_clip() -> ClipModel:
    """The catalogue's embedded CLIP.

    Raises:
        ModelUnavailable: its weights are missing or damaged.
    """
    entry = catalogue()[CLIP]
    state_dict = read_state_dict(locate(entry, allow_download=False))
    return with_tokenizer(entry, build_from_entry(entry, state_dict))


def start_tower(network: PixelLM, clip: ClipModel) -> None:
    """Give a network's image tower a CLIP's weights.

    Raises:
        ModelUnavailable: they are of another size.
    """
    named = tower_weights(clip.clip.state_dict())
    table = "embeddings.position_embedding.weight"
    vision = network.config.vision
    named[table] = resize_position_table(named[table], vision.grid_size, vision.position_table)
    load_weights(network.vision_tower.clip, named, name=clip.id)


def start_words(network: PixelLM, pieces: Mapping[int, str], clip: ClipModel) -> None:
    """Make word embeddings of a CLIP's text features, brought to the embeddings' width.

    Args:
        pieces: text of each vocabulary id that is a word; the others stay as they are.
    """
    weight = network.language_model.model.embed_tokens.weight
    features = encode_texts(clip, list(pieces.values())).float()
    features = F.normalize(features - features.mean(dim=0), dim=1)
    width = min(features.shape[1], weight.shape[1])
    with torch.no_grad():
        noise = torch.randn(len(features), weight.shape[1]) * WORD_NOISE / weight.shape[1] ** 0.5
        noise[:, :width] += features[:, :width]
        weight[torch.tensor(list(pieces))] = WORD_LENGTH * noise


def tower_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's image tower in the names of transformers' CLIPVisionModel, float32.

    The projection into the common space with texts is left out.

    Raises:
        ModelUnavailable: a parameter has no place there.
    """
    named: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        name = key.removeprefix("visual.")
        if name == key or name == "proj":
            continue
        if name.startswith(BLOCK):
            named |= _block_weights(name.removeprefix(BLOCK), value.float())
        elif name in PARTS:
            named[PARTS[name]] = value.float()
        else:
            raise ModelUnavailable(f"The CLIP has a parameter {key!r} that no image tower has.")
    return named


def balance(network: PixelLM, features: list[Tensor]) -> None:
    """Scale the projectors to the tower's features, (B, n, C_v) each, so that both begin alike."""
    for projector, deviation in (
        (network.mm_projector, features[0].std()),
        (network.out_mm_projector, torch.cat([one.flatten() for one in features]).std()),
    ):
        first = projector[0]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            first.weight /= deviation


def _block_weights(name: str, value: Tensor) -> dict[str, Tensor]:
    """One parameter of a block, "0.mlp.c_fc.weight"; the attention's inputs become three."""
    number, _, rest = name.partition(".")
    block = f"encoder.layers.{number}"
    if rest.startswith("attn.in_proj_"):
        kind = rest.removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{block}.self_attn.{part}_proj.{kind}": own.clone() for part, own in parts}
    part, _, kind = rest.rpartition(".")
    if part not in BLOCK_PARTS:
        raise ModelUnavailable(f"The CLIP has a parameter {name!r} that no image tower has.")
    return {f"{block}.{BLOCK_PARTS[part]}.{kind}": value}
