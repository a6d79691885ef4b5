"""A few seconds of real training of what RobustSAM adds: SAM stays, the file fits its base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from core.degradations import KINDS
from core.errors import ModelUnavailable
from core.models.catalogue import catalogue
from core.models.loading import load_weights, read_state_dict
from core.robustsam import build
from core.robustsam.config import RobustSamConfig
from core.robustsam.predictor import RobustPredictor
from core.sam.predictor import Predictor
from core.stickers.atlas import Atlas
from core.stickers.scenes import SceneGenerator
from core.training import robust_pairs, robust_start
from core.training import robustsam as training
from core.training.run import RunConfig

SMALL = training.RobustTraining(
    targets_per_scene=2,
    pairs=robust_pairs.PairConfig(scenes_per_step=3, pool_size=6, fresh_per_step=2),
    start=robust_start.StartConfig(token_scenes=16, token_steps=60),
)


@pytest.fixture
def small_world(small_atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "load_atlas", lambda folder: small_atlas)


def begun():
    """The embedded RobustSAM as its training begins."""
    torch.manual_seed(0)
    sam = build.build_robust_sam(RobustSamConfig.embedded())
    base = read_state_dict(Path(catalogue()[training.BASE].file))
    added = robust_start.begin(sam, base, SMALL.start)
    state = base | {f"mask_decoder.{name}": value for name, value in added.items()}
    load_weights(sam, state, name="begun")
    return sam


@pytest.mark.usefixtures("small_world")
def test_trains_the_added_parameters_only_and_exports_them(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path, minutes=0.08, device="cpu", log_steps=1)
    path = training.train(config, tmp_path, SMALL)
    card = json.loads(path.with_suffix(".json").read_text())
    state = load_file(path)
    assert set(state) == set(begun().mask_decoder.added_parameters())
    assert card["config"]["base"] == training.BASE
    assert card["bytes"] == path.stat().st_size < 5_000_000
    entry = replace(catalogue()["robustsam_embedded"], config=card["config"])
    sam = build.build_from_entry(entry, state)
    sams_own = read_state_dict(Path(catalogue()[training.BASE].file))
    assert all(torch.equal(sam.state_dict()[name], value) for name, value in sams_own.items())

    config = replace(config, out=tmp_path / "second", start_from=path, learning_rate=0)
    again = load_file(training.train(config, tmp_path, SMALL))
    weight = "custom_robust_token.weight"
    torch.testing.assert_close(again[weight], state[weight], rtol=1e-3, atol=1e-3)


def test_it_begins_with_sams_own_features() -> None:
    """Where AOTG is skipped, the robust path's masks are SAM's, pixel for pixel."""
    sam = begun().eval()
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    predictor = RobustPredictor(sam)
    embedding = predictor.encode(image)
    own = Predictor(sam).predict(
        embedding, point_coords=[[128, 128]], point_labels=[1], multimask_output=False
    )
    sam.mask_decoder.hyper_weights = lambda tokens: (sam.mask_decoder.robust_mlp(tokens), tokens)
    robust = predictor.predict(
        embedding, point_coords=[[128, 128]], point_labels=[1], multimask_output=False
    )
    agreement = (own.low_res_logits > 0) == (robust.low_res_logits > 0)
    assert agreement.float().mean() > 0.999


def test_the_warm_up_brings_the_masks_close_to_sams(small_atlas: Atlas) -> None:
    generator = SceneGenerator(small_atlas, torch.arange(8), seed=1)
    random = torch.Generator().manual_seed(0)
    before, after = begun(), begun()
    robust_start.learn_tokens(after, generator, SMALL.start, SMALL.seed)
    tokens, features, truth = robust_start._sams_masks(before, generator.batch(4), random)

    def loss(sam) -> float:
        weights, _ = sam.mask_decoder.hyper_weights(tokens)
        logits = torch.einsum("btc,bchw->bthw", weights, features.float())
        return float(F.binary_cross_entropy_with_logits(logits, truth.float()))

    assert loss(after) < loss(before) / 2


def test_pairs_repeat_by_seed_and_leave_unseen_kinds_out(small_atlas: Atlas) -> None:
    def draw() -> list[str]:
        generator = SceneGenerator(small_atlas, torch.arange(8), seed=1)
        pairs = robust_pairs.DegradedPairs(begun(), generator, SMALL.pairs, SMALL.seed)
        names = []
        for _ in range(12):
            scenes, clear, degraded = pairs.batch()
            assert len(scenes.images) == len(clear.embedding) == len(degraded)
            names += [one.parameters["name"] for one in degraded]
        return names

    names = draw()
    assert names == draw()
    assert "clear" in names and not set(names) & set(robust_pairs.UNSEEN)
    assert set(robust_pairs.SEEN) | set(robust_pairs.UNSEEN) | {"clear"} == set(KINDS)


def test_weights_of_another_sam_are_refused() -> None:
    with pytest.raises(ModelUnavailable, match="trained on other weights of sam_embedded"):
        build.add_to_base({}, training.BASE, "0" * 64)
