"""DreamBooth's benchmark on a model small enough for a test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.benchmark import dreambooth
from core.benchmark.harness import OutputsDiffer
from tests.core.dreambooth.conftest import model, tokenizer  # noqa: F401  (fixtures)


@pytest.fixture
def small(model, monkeypatch, one_warm_up):  # noqa: F811
    monkeypatch.setattr(dreambooth, "embedded_model", lambda device: (model, "random"))
    monkeypatch.setattr(dreambooth, "OTHER", 3)
    monkeypatch.setattr(dreambooth, "STEPS", 1)
    monkeypatch.setattr(dreambooth, "CHECKED_STEPS", 3)
    return model


def test_the_example_computes_what_ours_does(small, tmp_path):
    """Written anew from the example's steps, so that equality means something."""
    assert dreambooth.loss_difference(small, tmp_path) < 1e-5


def test_another_loss_is_no_equal_output(small, tmp_path, monkeypatch):
    honest = dreambooth.example_of

    def other(own, config):
        return honest(own, replace(config, prior_weight=0.5))

    monkeypatch.setattr(dreambooth, "example_of", other)
    with pytest.raises(OutputsDiffer, match="losses differ by"):
        dreambooth.loss_difference(small, tmp_path)


def test_all_figures(small, monkeypatch):
    memory = {"loaded": 100.0, "ours": 120.0, "example": 160.0}
    monkeypatch.setattr(dreambooth, "measure_memory", lambda: memory)
    report = dreambooth.run(limit=1)
    assert report.figures.keys() == {
        "step_speedup",
        "steps_per_second",
        "example_steps_per_second",
        "loss_difference",
        "memory_ratio",
        "added_memory_ratio",
        "saved_mib",
    }
    assert report.figures["memory_ratio"] == pytest.approx(160 / 120)
    assert report.figures["added_memory_ratio"] == 3 and report.figures["saved_mib"] == 40
    assert report.details["bars"]["step_speedup"] == 1.3
    assert "random" in report.models[0]


@pytest.mark.parametrize("side", ["loaded", "ours", "example"])
def test_one_run_for_a_fresh_process(small, side, monkeypatch):
    held = []
    monkeypatch.setattr(dreambooth, "hold_allocator", lambda: held.append(side))
    monkeypatch.setattr(dreambooth, "pick_device", lambda name: torch.device("cpu"))
    dreambooth.train_once(side)
    assert held == [side]


def test_memory_is_asked_for_each_side(monkeypatch):
    asked = []
    monkeypatch.setattr(
        dreambooth, "peak_memory_mib", lambda target, side: asked.append(side) or 1.0
    )
    assert dreambooth.measure_memory() == {"loaded": 1.0, "ours": 1.0, "example": 1.0}
    assert asked == ["loaded", "ours", "example"]


def test_pictures_are_seeded_and_differ():
    first, again = (dreambooth.pictures(3, 5, 32) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != first[1]).any() and first[0].shape == (32, 32, 3)
