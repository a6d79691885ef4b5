"""A Stable Diffusion of some thousand random weights, and pictures to teach it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.dreambooth.build import (
    UNET_FILE,
    build_pipeline,
    byte_pair_tokenizer,
    embedded_pipeline_config,
    save_model,
)
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.model import DiffusionModel
from core.dreambooth.subjects import SubjectPicture
from core.dreambooth.trainer import Training
from core.engine import Engine
from core.models.catalogue import parse_entry
from tests.core.persam.conftest import CONFIG as SAM_CONFIG
from tests.core.persam.conftest import GOLDEN_FILE

SIDE = 32
SUBJECT = Subject("sks", "clock")
FAST = DreamBoothConfig(
    rank=2,
    learning_rate=1e-2,
    steps=4,
    prior=False,
    crops_per_picture=2,
    sample_steps=None,
    checkpoint_steps=2,
    gradient_checkpointing=False,
    inference_steps=2,
    guidance_scale=2.0,
)


def tiny_config(prediction_type: str = "v_prediction") -> dict:
    """The embedded model's configuration, shrunk: two levels, latents of a fourth of the side."""
    config = embedded_pipeline_config()
    config["vae"] |= {
        "block_out_channels": [4, 4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "latent_channels": 4,
        "norm_num_groups": 2,
    }
    config["unet"] |= {
        "sample_size": SIDE // 4,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 8],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    config["text_encoder"] |= {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config["scheduler"] |= {"prediction_type": prediction_type}
    return config


def build_tiny(tokenizer, prediction_type: str = "v_prediction") -> DiffusionModel:
    """Frozen, some thousand parameters, always the same ones."""
    config = tiny_config(prediction_type)
    config["text_encoder"]["max_position_embeddings"] = tokenizer.model_max_length
    return build_pipeline(config, tokenizer, id="tiny").requires_grad_(False)


def make_picture(number: int, size: tuple[int, int] = (40, 56)) -> SubjectPicture:
    """A noisy picture with a square subject somewhere, and its mask, accepted."""
    random = np.random.default_rng(number)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    mask = np.zeros(size, bool)
    top, left = (int(random.integers(0, side - 16)) for side in size)
    mask[top : top + 16, left : left + 16] = True
    image[mask] = (200, 30, 30)
    return SubjectPicture(f"photo-{number}", image, mask, "persam_f").accept()


def make_training(model, folder, config=FAST, pictures=None, **kwargs) -> Training:
    pictures = pictures or [make_picture(k) for k in range(3)]
    return Training(model, SUBJECT, pictures, config, folder, **kwargs)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A handful of byte pairs."""
    path = tmp_path_factory.mktemp("words") / "merges.txt.gz"
    path.write_bytes(gzip.compress(b"#version: 0.2\no c\noc k</w>\nc l"))
    return byte_pair_tokenizer(path, context_length=24)


@pytest.fixture(scope="session")
def model(tokenizer) -> DiffusionModel:
    return build_tiny(tokenizer)


@pytest.fixture(scope="session")
def trained(model, tmp_path_factory) -> Path:
    """The folder of a finished training of four steps."""
    folder = tmp_path_factory.mktemp("trained")
    list(make_training(model, folder).run())
    return folder


@pytest.fixture(scope="session")
def engine(model, tmp_path_factory) -> Engine:
    """An engine with the tiny model as "tiny", and PerSAM's golden SAM as "sam"."""
    folder = tmp_path_factory.mktemp("models")
    files = save_model(model, folder / "tiny", dtype=torch.float32)
    with np.load(GOLDEN_FILE) as golden:
        weights = {k[3:]: torch.from_numpy(v) for k, v in golden.items() if k.startswith("sd.")}
    save_file(weights, folder / "sam.safetensors")
    card = folder / "tiny" / "card.json"
    card.write_text(json.dumps({"files": files, "sha256": files[UNET_FILE]}))
    common = {"set": "embedded", "note": "", "license": "", "source": "", "memory_mib": 50}
    records = [
        common
        | {
            "id": "tiny",
            "method": "dreambooth",
            "title": "Tiny",
            "file": str(folder / "tiny" / UNET_FILE),
            "card": str(card),
            "builder": "core.dreambooth.build:build_from_entry",
        },
        common
        | {
            "id": "sam",
            "method": "sam",
            "title": "SAM",
            "file": str(folder / "sam.safetensors"),
            "builder": "core.sam.build:build_from_entry",
            "config": vars(SAM_CONFIG),
        },
    ]
    entries = {record["id"]: parse_entry(record, Path("/")) for record in records}
    return Engine(device="cpu", models=entries)
