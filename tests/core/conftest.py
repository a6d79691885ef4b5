"""What several parts of core are tested with: a small sticker world, a tiny RobustSAM."""

from __future__ import annotations

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
from core.stickers.atlas import PHOTO_SIDE, SPRITE_SIDE, Atlas, SpriteInfo
from core.training.clip_scenes import known_objects

ROBUST_FILE = Path(__file__).parents[1] / "data" / "golden" / "robustsam_case1.npz"


@pytest.fixture(scope="session")
def robust_golden() -> dict[str, np.ndarray]:
    """The published code run on a tiny RobustSAM with seeded random weights.

    cfg/* sizes, w/* weights, then groups of outputs.
    """
    with np.load(ROBUST_FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def robust_golden_config(robust_golden) -> Callable[[str], RobustSamConfig]:
    """The golden model's configuration with the given statistics."""
    cfg = {n[4:]: value.tolist() for n, value in robust_golden.items() if n.startswith("cfg/")}
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
    return lambda norm_stats: RobustSamConfig(
        sam=sam, early_dim=cfg["vit_dim"], norm_stats=norm_stats
    )


@pytest.fixture(scope="session")
def robust_golden_weights(robust_golden) -> dict[str, torch.Tensor]:
    return {
        name[2:]: torch.from_numpy(np.asarray(array)).to(
            torch.float32 if array.dtype == np.float16 else torch.int64
        )
        for name, array in robust_golden.items()
        if name.startswith("w/")
    }


@pytest.fixture(scope="session")
def golden_robust(robust_golden_config, robust_golden_weights) -> Callable[[str], Sam]:
    """The golden model with the given statistics, its weights loaded strictly."""

    def build(norm_stats: str) -> Sam:
        sam = build_robust_sam(robust_golden_config(norm_stats))
        load_weights(sam, robust_golden_weights, name="golden")
        return accelerate(sam.eval().requires_grad_(False))

    return build


@pytest.fixture(scope="session")
def small_atlas() -> Atlas:
    """Twelve sprites (even: discs, odd: bars), each in two parts, and six photographs."""
    random = torch.Generator().manual_seed(7)
    y, x = torch.meshgrid(torch.arange(SPRITE_SIDE), torch.arange(SPRITE_SIDE), indexing="ij")
    disc = ((y - 63.5) ** 2 + (x - 63.5) ** 2 < 60**2).float()
    bar = ((y - 63.5).abs() < 25).float()
    shapes = torch.stack([disc, bar]).repeat(6, 1, 1)
    colours = torch.rand(12, 3, 1, 1, generator=random) * 200 + 55
    sprites = torch.cat([colours * shapes[:, None], 255 * shapes[:, None]], dim=1)
    parts = torch.where(shapes > 0, 1 + (x > 63).float(), 0.0)
    styles = ("fluent_3d", "twemoji", "noto")
    infos = tuple(
        SpriteInfo(styles[i % 3], f"{0x1F340 + i:x}", f"thing {i}", "test" if i > 7 else "train")
        for i in range(12)
    )
    photos = torch.randint(256, (6, 3, PHOTO_SIDE, PHOTO_SIDE), generator=random)
    regions = torch.arange(PHOTO_SIDE).div(80, rounding_mode="floor").expand(6, PHOTO_SIDE, -1)
    return Atlas(
        sprites=sprites.to(torch.uint8),
        parts=parts.to(torch.uint8),
        infos=infos,
        photos=photos.to(torch.uint8),
        regions=regions.to(torch.uint8),
        photo_is_test=torch.tensor([False] * 4 + [True] * 2),
    )


@pytest.fixture(scope="session")
def named_atlas(small_atlas: Atlas) -> Atlas:
    """The small atlas, its sprites renamed to known objects, the last one to a test object."""
    known = [item.code_point for item in known_objects()]
    infos = tuple(
        SpriteInfo(info.style, known[i % 6], "", "train")
        for i, info in enumerate(small_atlas.infos)
    )
    infos = (*infos[:-1], SpriteInfo(infos[-1].style, "1f34b", "lemon", "test"))
    return Atlas(**{**small_atlas.__dict__, "infos": infos})
