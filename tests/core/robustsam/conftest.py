"""A tiny RobustSAM with known outputs: tests/data/golden/robustsam_case1.npz.

The published code run on seeded random weights: cfg/* sizes, w/* weights, then groups of outputs.
"""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)

# isort: split
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from core.models.loading import load_weights
from core.robustsam.build import build_robust_sam
from core.robustsam.config import RobustSamConfig
from core.sam.config import SamConfig
from core.sam.fast_encoder import accelerate

GOLDEN_FILE = Path(__file__).parents[2] / "data" / "golden" / "robustsam_case1.npz"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN_FILE) as arrays:
        return dict(arrays)


def golden_config(golden: dict[str, np.ndarray], norm_stats: str) -> RobustSamConfig:
    cfg = {name[4:]: value.tolist() for name, value in golden.items() if name.startswith("cfg/")}
    sam = SamConfig(
        image_size=cfg["img_size"],
        patch_size=cfg["patch"],
        depth=cfg["depth"],
        embed_dim=cfg["vit_dim"],
        num_heads=cfg["vit_heads"],
        global_attn_indexes=tuple(cfg["global_attn"]),
        window_size=cfg["window"],
        mlp_ratio=cfg["mlp_ratio"],
        out_chans=cfg["transformer_dim"],
        mask_in_chans=cfg["mask_in_chans"],
        decoder_mlp_dim=cfg["dec_mlp"],
        decoder_num_heads=cfg["dec_heads"],
        iou_head_hidden_dim=cfg["iou_hidden"],
    )
    return RobustSamConfig(sam=sam, early_dim=cfg["vit_dim"], norm_stats=norm_stats)


@pytest.fixture(scope="session")
def golden_weights(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {
        name[2:]: torch.from_numpy(np.asarray(array)).to(
            torch.float32 if array.dtype == np.float16 else torch.int64
        )
        for name, array in golden.items()
        if name.startswith("w/")
    }


@pytest.fixture(scope="session")
def golden_robust(golden, golden_weights) -> Callable[[str], Sam]:
    """The golden model with the given statistics, its weights loaded strictly."""

    def build(norm_stats: str) -> Sam:
        sam = build_robust_sam(golden_config(golden, norm_stats))
        load_weights(sam, golden_weights, name="golden")
        return accelerate(sam.eval().requires_grad_(False))

    return build
