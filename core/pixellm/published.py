"""Load the published PixelLM-7B and 13B, in half precision or quantised, if there is room.

The files are transformers' layout of a folder: config.json, one or more shards of weights, the
tokenizer. Nothing in them is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from core.engine.device import MIB, describe, free_memory_mib, pick_device
from core.errors import ModelUnavailable
from core.models.loading import read_state_dict
from core.pixellm.build import (
    build_on_meta,
    config_of_published,
    entry_config,
    map_published,
    restore_buffers,
)
from core.pixellm.chat_model import ChatModel
from core.pixellm.config import PixelLMConfig
from core.pixellm.model import PixelLM
from core.pixellm.tokenizer import load_tokenizer
from core.settings import settings

if TYPE_CHECKING:
    from core.models.catalogue import Entry

Size = Literal["7B", "13B"]
Quantization = Literal["8bit", "4bit"]

REPOSITORIES: dict[Size, str] = {"7B": "maverickrzw/PixelLM-7B", "13B": "maverickrzw/PixelLM-13B"}
SUBFOLDER = "hf_model"  # the repository itself has no config.json
CLIP_REPOSITORY = "openai/clip-vit-large-patch14-336"

# Kept in float32: small, and half precision shows in the masks.
FLOAT32_PARTS = (
    "text_hidden_fcs",
    "image_feature_neck",
    "prompt_encoder",
    "mask_decoder",
    "fusion",
)
# Of the language model only linear layers of its blocks are quantised.
BITS: dict[Quantization, float] = {"8bit": 8.0, "4bit": 4.127}
WORKING_MIB = 2048  # cache of a long conversation, activations


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> PixelLM:
    """Load the catalogue's ``entry``, a published model, onto the device of the settings.

    Quantised as little as its memory allows; what is missing is downloaded once that is known.

    Args:
        state_dict: not used; the entry's file is config.json, and there are many others.

    Raises:
        ModelUnavailable: there is too little memory, or a file cannot be had.
    """
    device = pick_device(settings.device)
    quantization = check_entry(entry, device)
    size = next(size for size, repository in REPOSITORIES.items() if repository == entry.repo)
    folder, clip_file = download_published(size)
    return load_published(folder, clip_file, device=device, quantization=quantization).network


def check_entry(entry: Entry, device: torch.device) -> Quantization | None:
    """How an entry is to be quantised here. Raises ModelUnavailable if it is too large."""
    config = entry_config(entry)
    quantization = least_quantization(config, device)
    check_memory(entry.title, config, device, dtype=torch.bfloat16, quantization=quantization)
    return quantization


def least_quantization(config: PixelLMConfig, device: torch.device) -> Quantization | None:
    """The least quantisation with which a model fits; None also where none can be had."""
    if device.type != "cuda" or find_spec("bitsandbytes") is None:
        return None
    free = free_memory_mib(device)
    kinds: tuple[Quantization | None, ...] = (None, "8bit", "4bit")
    fitting = (kind for kind in kinds if memory_mib(config, torch.bfloat16, kind) <= free)
    return next(fitting, None)


def load_published(
    folder: Path,
    clip_file: Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    quantization: Quantization | None = None,
) -> ChatModel:
    """Load a published model from files on this machine.

    Args:
        folder: hf_model of the published repository.
        clip_file: weights of CLIP ViT-L/14-336.
        dtype: of tower, projectors and language model: bfloat16 or float16 (a GPU), or float32.
        quantization: of the language model's blocks, with bitsandbytes on a GPU.

    Raises:
        ModelUnavailable: files are missing or of another model, there is too little memory, or
            quantisation cannot be had here.
    """
    config = config_of_published(_read_json(folder / "config.json"))
    name = f"PixelLM ({folder.name})"
    tokenizer = load_tokenizer(folder, config)
    check_quantization(quantization, device)
    check_memory(name, config, device, dtype=dtype, quantization=quantization)
    state_dict = map_published(_read_shards(folder), read_state_dict(clip_file), config)
    network = fill(config, state_dict, dtype=dtype, name=name)
    if quantization:
        quantize(network.language_model.model.layers, quantization, dtype)
    return ChatModel(network.to(device), tokenizer, id=folder.name, model_set="full")


def fill(
    config: PixelLMConfig, state_dict: dict[str, Tensor], *, dtype: torch.dtype, name: str
) -> PixelLM:
    """Build a network around given tensors, without a second copy of those that have its dtype.

    Raises:
        ModelUnavailable: names or shapes do not fit.
    """
    network = build_on_meta(config)
    check_shapes(network, state_dict, name)
    with torch.no_grad():
        cast = {
            key: value.to(torch.float32 if key.startswith(FLOAT32_PARTS) else dtype)
            for key, value in state_dict.items()
        }
        network.load_state_dict(cast, assign=True)
    restore_buffers(network)
    return network.eval().requires_grad_(False)


def check_shapes(network: nn.Module, state_dict: dict[str, Tensor], name: str) -> None:
    """Raise ModelUnavailable unless names and shapes agree; nothing is loaded."""
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state_dict.items()}
    wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if wrong:
        key = wrong[0]
        raise ModelUnavailable(
            f"The weights do not fit {name}: {len(wrong)} parameters differ, the first is {key} "
            f"({given.get(key, 'missing')} for {own.get(key, 'none')}). Get the files that belong "
            "to this model."
        )


def memory_mib(
    config: PixelLMConfig, dtype: torch.dtype, quantization: Quantization | None = None
) -> int:
    """Memory that a model takes while it works, MiB: weights, cache and activations."""
    network = build_on_meta(config)
    blocks = [
        layer.weight.numel()
        for layer in network.language_model.model.layers.modules()
        if isinstance(layer, nn.Linear)
    ]
    precise = sum(
        value.numel() for k, value in network.state_dict().items() if k.startswith(FLOAT32_PARTS)
    )
    others = sum(value.numel() for value in network.state_dict().values()) - sum(blocks) - precise
    bits = BITS[quantization] if quantization else 8.0 * dtype.itemsize
    total = sum(blocks) * bits / 8 + others * dtype.itemsize + precise * 4
    return round(total / MIB) + WORKING_MIB


def check_memory(
    name: str,
    config: PixelLMConfig,
    device: torch.device,
    *,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
) -> None:
    """Raise ModelUnavailable if a model does not fit, with what is missing and what would fit."""
    needed, free = memory_mib(config, dtype, quantization), free_memory_mib(device)
    if needed <= free:
        return
    smaller: list[Quantization] = ["8bit", "4bit"] if quantization is None else ["4bit"]
    fitting = [
        f"{kind} ({memory_mib(config, dtype, kind)} MiB)"
        for kind in smaller
        if kind != quantization
        and device.type == "cuda"
        and memory_mib(config, dtype, kind) <= free
    ]
    advice = f"load it in {' or '.join(fitting)}, or " if fitting else ""
    raise ModelUnavailable(
        f"{name} needs about {needed} MiB on {describe(device)} and {free} MiB are free, so "
        f"{needed - free} MiB are missing: {advice}use the embedded model."
    )


def check_quantization(quantization: Quantization | None, device: torch.device) -> None:
    """Raise ModelUnavailable if a model cannot be quantised on this machine."""
    if quantization is None:
        return
    if quantization not in BITS:
        raise ModelUnavailable(
            f"The quantisation {quantization!r} is not known: use 8bit, 4bit or none."
        )
    if device.type != "cuda":
        raise ModelUnavailable(
            f"Weights of {quantization} need an NVIDIA GPU and this is {describe(device)}: load "
            "the model without quantisation, or use the embedded one."
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(
            f"Weights of {quantization} need the package bitsandbytes: install it with "
            "`pip install bitsandbytes`, or load the model without quantisation."
        ) from error


def quantize(blocks: nn.Module, quantization: Quantization, dtype: torch.dtype) -> None:
    """Replace linear layers in place by bitsandbytes' own, which pack on the way to the GPU.

    4-bit: nf4 with double quantisation. The published code also quantises projectors and
    decoder, which saves little and shows in the masks.
    """
    for parent in list(blocks.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, _quantized_linear(layer, quantization, dtype))


def download_published(size: Size) -> tuple[Path, Path]:
    """Fetch a published model into the Hugging Face cache; (folder, CLIP's file).

    Raises:
        ModelUnavailable: there is no network, or not enough disk space.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        here = not settings.allow_download
        root = snapshot_download(
            REPOSITORIES[size], allow_patterns=[f"{SUBFOLDER}/*"], local_files_only=here
        )
        clip_file = hf_hub_download(CLIP_REPOSITORY, "pytorch_model.bin", local_files_only=here)
    except Exception as error:  # those of httpx, hf_xet and the file system
        raise ModelUnavailable(
            f"PixelLM-{size} could not be downloaded ({type(error).__name__}): check network and "
            "disk space and try again, or use the embedded model."
        ) from error
    return Path(root) / SUBFOLDER, Path(clip_file)


def _quantized_linear(layer: nn.Linear, quantization: Quantization, dtype: torch.dtype) -> Any:
    import bitsandbytes as bnb

    shape = (layer.in_features, layer.out_features)
    if quantization == "8bit":
        small = bnb.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False, threshold=6.0)
        small.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False)
        return small
    small = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=dtype, quant_type="nf4")
    small.weight = bnb.nn.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    return small


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"The file {path.name} of PixelLM is missing or damaged: get the published folder "
            f"{SUBFOLDER} again."
        ) from error


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder; safetensors are preferred where there are both forms."""
    state_dict: dict[str, Tensor] = {}
    for path in _shards(folder):
        state_dict |= read_state_dict(path)
    return state_dict


def _shards(folder: Path) -> Iterable[Path]:
    for index_name, pattern in (
        ("model.safetensors.index.json", "model*.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        if (folder / index_name).is_file():
            names = set(_read_json(folder / index_name)["weight_map"].values())
            return [folder / Path(name).name for name in sorted(names)]
        if found := sorted(folder.glob(pattern)):
            return found
    raise ModelUnavailable(
        f"There are no weights of PixelLM in {folder.name}: get the published folder {SUBFOLDER}."
    )
