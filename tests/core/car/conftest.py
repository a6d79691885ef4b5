"""Two tiny CLIPs with known outputs: tests/data/golden/car_case1.npz.

The published functions run on seeded random image towers (``gen.*``, ``cls.*``) and unit vectors
as text features, so the text tower here is a table from strings to vectors.
"""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)

# isort: split
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import QuickGELU
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import nn

from core.car.config import CarConfig
from core.clip.model import ClipModel

GOLDEN_FILE = Path(__file__).parents[2] / "data" / "golden" / "car_case1.npz"


class TableClip(nn.Module):
    """An image tower, and texts that are looked up; ``texts`` counts what is encoded."""

    def __init__(self, visual: VisionTransformer, scale: float, table: torch.Tensor) -> None:
        super().__init__()
        self.visual = visual
        self.logit_scale = nn.Parameter(torch.tensor(scale).log())
        self.table = nn.Parameter(table)
        self.texts = 0

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        self.texts += len(tokens)
        return self.table[tokens[:, 0]]


class TableTokenizer:
    """Each known string is one token; there are no others."""

    def __init__(self, names: list[str]) -> None:
        self.ids = {name: index for index, name in enumerate(names)}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[self.ids[text], 0] for text in texts])


class HashClip(nn.Module):
    """An image tower, and for any string a unit vector that only its own spelling decides."""

    def __init__(self, visual: VisionTransformer, scale: float) -> None:
        super().__init__()
        self.visual = visual
        self.logit_scale = nn.Parameter(torch.tensor(scale).log())
        self.texts = 0

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        self.texts += len(tokens)
        random = (torch.Generator().manual_seed(seed) for seed in tokens[:, 0].tolist())
        return torch.stack([torch.randn(self.visual.output_dim, generator=one) for one in random])


def hash_tokenizer(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[zlib.crc32(text.encode()), 0] for text in texts])


def hash_model(visual: VisionTransformer, name: str, scale: float = 20.0) -> ClipModel:
    clip = HashClip(visual, scale).eval().requires_grad_(False)
    return ClipModel(clip, hash_tokenizer, id=name)


def build_tower(sizes: dict[str, int], weights: dict[str, torch.Tensor]) -> VisionTransformer:
    visual = VisionTransformer(
        image_size=sizes["image_size"],
        patch_size=sizes["patch"],
        width=sizes["width"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        mlp_ratio=4,
        output_dim=sizes["embed"],
        act_layer=QuickGELU,
    )
    visual.load_state_dict(weights)
    return visual.eval().requires_grad_(False)


def table_model(
    visual: VisionTransformer, scale: float, table: dict[str, np.ndarray], name: str
) -> ClipModel:
    rows = torch.from_numpy(np.stack(list(table.values())))
    clip = TableClip(visual, scale, rows).eval().requires_grad_(False)
    return ClipModel(clip, TableTokenizer(list(table)), id=name)


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN_FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_json(golden) -> dict:
    return json.loads(str(golden["config_json"]))


@pytest.fixture(scope="session")
def golden_config(golden_json) -> CarConfig:
    return CarConfig.parity(
        mask_threshold=golden_json["eta"],
        confidence_threshold=golden_json["theta"],
        box_threshold=golden_json["lam"],
        visual_prompts=tuple(golden_json["visual_prompt"]),
        templates=tuple(golden_json["templates"]),
        background_queries=tuple(golden_json["background"]),
        cam_template=golden_json["cam_text_template"],
    )


def weights_of(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {
        name[len(prefix) :]: torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith(prefix)
    }


@pytest.fixture(scope="session")
def generator(golden, golden_json) -> ClipModel:
    names, template = golden_json["names"], golden_json["cam_text_template"]
    table = dict(zip(names, golden["text_raw"], strict=True))
    for name, row in zip(names, golden["text_origami"], strict=True):
        table[template.format(name)] = row
    for name, row in zip(golden_json["background"], golden["text_bg"], strict=True):
        table[template.format(name)] = row
    visual = build_tower(golden_json["generator"], weights_of(golden, "gen."))
    return table_model(visual, float(golden["gen_logit_scale_exp"]), table, "generator")


@pytest.fixture(scope="session")
def classifier_model(golden, golden_json) -> ClipModel:
    table = {
        template.format(name): golden["text_cls"][t, n]
        for t, template in enumerate(golden_json["templates"])
        for n, name in enumerate(golden_json["names"])
    }
    for name, row in zip(golden_json["names"], golden["refer_text_cls"], strict=True):
        table[golden_json["cam_text_template"].format(name)] = row
    random = np.random.default_rng(3)
    for name in golden_json["background"]:
        row = random.standard_normal(golden_json["classifier"]["embed"]).astype(np.float32)
        table[golden_json["templates"][0].format(name)] = row / np.linalg.norm(row)
    visual = build_tower(golden_json["classifier"], weights_of(golden, "cls."))
    return table_model(visual, float(golden["cls_logit_scale_exp"]), table, "classifier")


@pytest.fixture
def any_words(generator, classifier_model) -> tuple[ClipModel, ClipModel]:
    """Generator and classifier of the golden case that know any word; new ones for each test."""
    return (
        hash_model(generator.visual, "generator"),
        hash_model(classifier_model.visual, "classifier"),
    )


@pytest.fixture
def picture() -> np.ndarray:
    """RGB (90, 132): 6 x 9 patches, none of the sides a multiple of one."""
    random = np.random.default_rng(5)
    coarse = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((132, 90), Image.Resampling.BICUBIC))


@pytest.fixture
def needs_crf() -> None:
    """Skip where pydensecrf, which has to be compiled, is not installed."""
    pytest.importorskip("pydensecrf.densecrf")
