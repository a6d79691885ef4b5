"""A few seconds of real training: it learns, stops in time, resumes, and exports what loads."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.errors import ModelUnavailable
from core.models.loading import file_sha256
from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.stickers.atlas import Atlas
from core.training import prompting
from core.training import sam as training
from core.training.run import RunConfig

SMALL = training.SamTraining(
    scenes_per_step=2, targets_per_scene=2, pool_size=8, fresh_per_step=2, max_rounds=3
)


@pytest.fixture
def small_world(small_atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "load_atlas", lambda folder: small_atlas)
    halves = {info.object_id: "ab"[i % 2] for i, info in enumerate(small_atlas.infos)}
    monkeypatch.setattr(training, "categories", lambda folder, atlas: halves)


@pytest.mark.usefixtures("small_world")
def test_trains_resumes_and_exports(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path, minutes=0.05, device="cpu", log_steps=1)
    path = training.train(config, tmp_path, SMALL)
    card = json.loads(path.with_suffix(".json").read_text())
    state = load_file(path)
    restored = build_sam(SamConfig.from_dict(card["config"]))
    restored.load_state_dict(state)
    assert card["bytes"] == path.stat().st_size
    assert card["parameters"] == sum(v.numel() for v in state.values()) < 8_000_000

    training.train(replace(config, minutes=0.1, resume=True), tmp_path, SMALL)
    resumed = json.loads(path.with_suffix(".json").read_text())
    assert resumed["training"]["steps"] > card["training"]["steps"]
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)), "the curve goes on where it stopped"


@pytest.mark.usefixtures("small_world")
def test_starts_from_exported_weights(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path / "first", minutes=0.02, device="cpu", learning_rate=0)
    first = training.train(config, tmp_path, SMALL)
    config = replace(config, out=tmp_path / "second", start_from=first)
    second = training.train(config, tmp_path, replace(SMALL, seed=1))
    before, after = load_file(first), load_file(second)
    assert all(torch.equal(before[name], after[name]) for name in before)
    card = json.loads(second.with_suffix(".json").read_text())
    assert card["training"]["started_from"] == file_sha256(first)

    missing = replace(config, start_from=tmp_path / "none.safetensors")
    with pytest.raises(ModelUnavailable, match="none.safetensors is missing"):
        training.train(missing, tmp_path, SMALL)


def test_prompt_tokens_equal_the_prompt_encoders() -> None:
    """Clicks, boxes and both, mixed in rows, embed as PromptEncoder embeds them."""
    torch.manual_seed(0)
    model = training.TrainableSam(SamConfig.embedded(), 4).eval()
    encoder = model.sam.prompt_encoder
    coords = torch.rand(2, 2, 2)
    clicks = (coords[:, :1] * 256 - 0.5, torch.tensor([[1], [0]]))
    expected, _ = encoder(points=clicks, boxes=None, masks=None)
    labels = torch.tensor([[1, -1], [0, -1]])
    got, _ = prompting.embed_prompts(model.sam, coords, labels)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)

    boxes, _ = encoder(points=None, boxes=coords.flatten(1) * 256 - 0.5, masks=None)
    labels = torch.tensor([[2, 3], [2, 3]])
    got, _ = prompting.embed_prompts(model.sam, coords, labels)
    torch.testing.assert_close(got, boxes, atol=1e-4, rtol=0)


def test_every_part_of_the_model_learns(small_atlas: Atlas) -> None:
    torch.manual_seed(0)
    model = training.TrainableSam(SamConfig.embedded(), 4)
    generator = training.SceneGenerator(small_atlas, small_atlas.training_sprites(), seed=1)
    scenes = training.PairedScenes(generator, {}, seed=0).batch(4)
    objective = training.SamObjective(model, SMALL)
    for _ in range(4):  # rounds are drawn: some pass has more than one
        loss, _ = objective(scenes, progress=0.9)
        loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent


@pytest.mark.parametrize("axis", [-1, -2])
def test_letterbox_pads_as_the_predictor_does(small_atlas: Atlas, axis: int) -> None:
    scenes = training.SceneGenerator(small_atlas, small_atlas.training_sprites()).batch(2)
    before = scenes.images.clone()
    cut = training.letterbox(scenes, 0.6, axis=axis)
    assert torch.equal(scenes.images, before), "the pool's own scenes stay"
    start = round(0.6 * 256)
    assert torch.equal(cut.images.narrow(axis, 0, start), before.narrow(axis, 0, start))
    model = training.TrainableSam(SamConfig.embedded(), 4)
    padded = cut.images.narrow(axis, start, 256 - start).float()
    assert ((padded - model.sam.pixel_mean) / model.sam.pixel_std).abs().max() < 0.01
    for ids in (cut.instance_ids, cut.part_ids, cut.region_ids):
        assert not ids.narrow(axis, start, 256 - start).any()
