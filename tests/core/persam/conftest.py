"""The golden case of the published code, as tests/data/golden/persam_case1.npz holds it.

Made with the published code's model, predictor, point selection and losses in float32 on a CPU,
its guidance brought to the model's own grid; tiny random weights, striped synthetic pictures.
"""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)

# isort: split
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from core.persam.target import Reference
from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.sam.predictor import ImageEmbedding, Predictor

GOLDEN_FILE = Path(__file__).parents[2] / "data" / "golden" / "persam_case1.npz"
CONFIG = SamConfig(
    image_size=256,
    embed_dim=64,
    depth=2,
    num_heads=4,
    window_size=7,
    global_attn_indexes=(1,),
    out_chans=64,
    decoder_mlp_dim=256,
    iou_head_hidden_dim=64,
)


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN_FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_config(golden: dict[str, np.ndarray]) -> dict:
    return json.loads(str(golden["config_json"]))


@pytest.fixture(scope="session")
def sam_config() -> SamConfig:
    return CONFIG


@pytest.fixture(scope="session")
def sam(golden: dict[str, np.ndarray], sam_config: SamConfig) -> Sam:
    sam = build_sam(sam_config)
    weights = {
        name[3:]: torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("sd.")
    }
    sam.load_state_dict(weights)
    return sam.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def predictor(sam: Sam) -> Predictor:
    return Predictor(sam, model_id="golden")


@pytest.fixture(scope="session")
def reference(golden: dict[str, np.ndarray]) -> Reference:
    return Reference(golden["in.ref_image"], (golden["in.ref_mask_rgb"] > 0).any(axis=2))


@pytest.fixture(scope="session")
def reference_embedding(predictor: Predictor, reference: Reference) -> ImageEmbedding:
    return predictor.encode(reference.image)


@pytest.fixture(scope="session")
def test_embedding(predictor: Predictor, golden: dict[str, np.ndarray]) -> ImageEmbedding:
    return predictor.encode(golden["in.test_image"])
