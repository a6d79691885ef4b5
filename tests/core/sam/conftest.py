"""A tiny SAM with known outputs: how tests/data/golden/sam_case1.npz was made.

Seeded random weights in segment_anything's own classes, run by its SamPredictor in float32 on a
CPU: 256 px, window 7 on a 16 x 16 grid, so that windows are padded.
"""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)

# isort: split
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.sam.fast_encoder import accelerate
from core.sam.predictor import Predictor

GOLDEN_FILE = Path(__file__).parents[2] / "data" / "golden" / "sam_case1.npz"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN_FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_sam(golden: dict[str, np.ndarray]) -> Sam:
    """The golden model by the package's own encoder."""
    config = SamConfig.from_dict(json.loads(bytes(golden["config"])))
    sam = build_sam(config)
    weights = {
        name[2:]: torch.from_numpy(array).float()
        for name, array in golden.items()
        if name.startswith("w:")
    }
    sam.load_state_dict(weights)
    return sam.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def fast_golden_sam(golden_sam: Sam) -> Sam:
    return accelerate(golden_sam)


@pytest.fixture(scope="session")
def predictor(fast_golden_sam: Sam) -> Predictor:
    return Predictor(fast_golden_sam, model_id="golden")
