"""Construct Stable Diffusions: the published one, and the embedded one with its tokenizer.

Both are folders as diffusers saves them (``unet``, ``vae``, ``text_encoder``, ``tokenizer``,
``scheduler``). The catalogue names one file, so it names the U-Net's, by far the largest, which
the engine downloads, checks and reads; the builder takes the other parts from the folders beside
it. The engine holds all of it as one module, a ``DiffusionModel``.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.dreambooth.model import DiffusionModel
from core.errors import ModelUnavailable
from core.models.loading import file_sha256, find_local, load_weights
from core.settings import settings

if TYPE_CHECKING:
    from core.models.catalogue import Entry

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"  # what the catalogue's entry names
OTHER_FILES = (
    "unet/config.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*",
    "scheduler/scheduler_config.json",
)
CONTEXT_LENGTH = 32  # tokens of an embedded prompt, as of the embedded CLIP
START, END = "<|startoftext|>", "<|endoftext|>"


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> DiffusionModel:
    """Build the catalogue's ``entry`` (eval mode, CPU, float32, frozen).

    Its ``file`` is the U-Net's in a folder as diffusers saves them. An embedded model's card
    lists the checksums of the other files as "files". The published safety checker is not loaded:
    whoever opens the full model to the public has to judge pictures by other means.

    Raises:
        ModelUnavailable: a file is missing, damaged or of another model.
    """
    from diffusers import UNet2DConditionModel

    folder = _folder_of(entry)
    _check_files(folder, entry.read_card().get("files", {}))
    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(_read_json(folder / "unet" / "config.json"))
        parts = _load_parts(folder)
    except ModelUnavailable:
        raise
    except Exception as error:  # parsers raise nearly anything on damaged files
        raise ModelUnavailable(
            f"{entry.title} is damaged: delete its folder and get it again."
        ) from error
    unet.to_empty(device="cpu")
    load_weights(unet, state_dict, name=entry.id)
    model = DiffusionModel(
        unet=unet, **parts, id=entry.id, sha256=entry.sha256 or "", model_set=entry.set
    )
    return model.float().eval().requires_grad_(False)


def embedded_pipeline_config() -> dict[str, dict[str, Any]]:
    """Configurations of the embedded model's parts: 8 M parameters, for 64 to 128 px.

    Latents have an eighth of the picture's side and 8 channels, so that a step of the U-Net costs
    a fourth of what it would with cells of 4 px, and most of its weights work at half of that
    again. The text encoder has the shape of the embedded CLIP's text tower and its tokens, so that
    it may begin with those weights.
    """
    return {
        "vae": {
            "sample_size": 64,
            "block_out_channels": [16, 24, 48, 96],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 1,
            "latent_channels": 8,
            "norm_num_groups": 8,
            "scaling_factor": 1.0,  # set by the training, so that latents have unit deviation
        },
        "unet": {
            "sample_size": 8,
            "in_channels": 8,
            "out_channels": 8,
            "block_out_channels": [96, 144],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "cross_attention_dim": 128,
            "attention_head_dim": 4,  # heads, by the name that diffusers kept
            "norm_num_groups": 16,
        },
        "text_encoder": {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT_LENGTH,
            "hidden_act": "gelu",
        },
        "scheduler": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "prediction_type": "v_prediction",
            "clip_sample": False,
            "steps_offset": 1,
            "timestep_spacing": "trailing",  # a picture begins as noise, so at the last step
        },
    }


def build_pipeline(
    config: dict[str, dict[str, Any]], tokenizer: Any, *, seed: int = 0, id: str = ""
) -> DiffusionModel:
    """Build a model of any size with freshly initialised weights.

    Args:
        config: as ``embedded_pipeline_config`` returns it.
        tokenizer: whose size the text encoder's table takes.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    words = CLIPTextConfig(
        **config["text_encoder"],
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionModel(
            vae=AutoencoderKL(**config["vae"]),
            text_encoder=CLIPTextModel(words),
            unet=UNet2DConditionModel(**config["unet"]),
            tokenizer=tokenizer,
            scheduler=DDPMScheduler(**config["scheduler"]),
            id=id,
        ).eval()


def byte_pair_tokenizer(merges: Path, context_length: int = CONTEXT_LENGTH) -> Any:
    """A CLIPTokenizer of a list of byte pairs, such as the embedded CLIP's.

    It gives the tokens that open_clip's tokenizer gives with the same list, but for the padding.

    Args:
        merges: gzipped text: a title line, then a pair a line.
    """
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(merges.read_bytes()).decode("utf-8").splitlines()[1:]
    pairs: Any = [tuple(line.split()) for line in lines if line]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs), START, END]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=pairs,
        model_max_length=context_length,
    )


def text_weights_of_clip(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a text tower of open_clip to a CLIPTextModel's own, for training to begin with.

    Args:
        state_dict: of a whole CLIP, such as the embedded one's weights.
    """
    names = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    renamed = {names[key]: value for key, value in state_dict.items() if key in names}
    for key, value in state_dict.items():
        if not key.startswith("transformer.resblocks."):
            continue
        number, _, rest = key.removeprefix("transformer.resblocks.").partition(".")
        part, _, kind = rest.rpartition(".")
        layer = f"encoder.layers.{number}"
        if part == "attn":  # in_proj_weight, in_proj_bias: queries, keys and values in one
            for name, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{layer}.self_attn.{name}_proj.{kind.removeprefix('in_proj_')}"] = third
        else:
            renamed[f"{layer}.{parts[part]}.{kind}"] = value
    return renamed


def save_model(
    model: DiffusionModel, folder: Path, *, dtype: torch.dtype = torch.float16
) -> dict[str, str]:
    """Write a model as the folder that ``build_from_entry`` reads, and plain diffusers too.

    Args:
        dtype: of the weights on the disk.

    Returns:
        SHA-256 of each file by its path in the folder, for the card.
    """
    from diffusers import StableDiffusionPipeline

    from core.dreambooth.model import private_copy

    # Not the model's own pipeline: its scheduler is the sampler, and this one is for training.
    pipeline: Any = StableDiffusionPipeline(
        vae=private_copy(model.vae, dtype=dtype),
        text_encoder=private_copy(model.text_encoder, dtype=dtype),
        tokenizer=model.tokenizer,
        unet=private_copy(model.unet, dtype=dtype),
        scheduler=model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != "card.json"
    )
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def _folder_of(entry: Entry) -> Path:
    """The folder of an entry's parts; those of a published model are fetched if they are missing.

    The engine has located the U-Net's file before, and so downloaded it if need be.
    """
    path = find_local(entry)
    if path is None:
        raise ModelUnavailable(f"{entry.title} is not on this machine: get it from {entry.source}.")
    if entry.set == "full":
        return _fetch_others(entry)
    return path.parents[1]


def _fetch_others(entry: Entry) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(entry.repo),
                revision=entry.revision,
                allow_patterns=list(OTHER_FILES),
                local_files_only=not settings.allow_download,
            )
        )
    except Exception as error:  # those of httpx, hf_xet and the file system
        raise ModelUnavailable(
            f"The parts of {entry.title} beside its U-Net could not be downloaded "
            f"({type(error).__name__}): check network and disk space and try again, or use the "
            "embedded model."
        ) from error


def _load_parts(folder: Path) -> dict[str, Any]:
    from diffusers import AutoencoderKL, DDPMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    kind: Any = {"use_safetensors": True, "local_files_only": True}
    return {
        "vae": AutoencoderKL.from_pretrained(folder / "vae", **kind),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", **kind),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        "scheduler": DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
    }


def _check_files(folder: Path, files: dict[str, str]) -> None:
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise ModelUnavailable(
                f"The file {name} of the diffusion model is missing or not the expected one: "
                "restore it from the project."
            )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"The file {path.parent.name}/{path.name} of the diffusion model is missing or "
            "damaged: get the model again."
        ) from error
