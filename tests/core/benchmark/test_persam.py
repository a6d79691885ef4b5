"""The PerSAM benchmark on a model small enough for a test."""

import numpy as np
import pytest
import torch

from core.benchmark import harness, persam
from core.benchmark.harness import OutputsDiffer
from core.sam.build import build_sam
from core.sam.config import SamConfig


def tiny_sam():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build_sam(
            SamConfig(
                image_size=64,
                embed_dim=32,
                depth=1,
                num_heads=2,
                window_size=0,
                global_attn_indexes=(0,),
                out_chans=32,
                decoder_mlp_dim=16,
                iou_head_hidden_dim=16,
            )
        )
    return model.eval().requires_grad_(False), "random, for a test"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(persam, "embedded_sam", tiny_sam)
    monkeypatch.setattr(persam, "SIZE", (48, 64))
    monkeypatch.setattr(persam, "PICTURES", 2)
    monkeypatch.setattr(persam, "STEPS", 4)
    monkeypatch.setattr(harness, "WARM_UPS", 1)


def test_all_figures_and_rows(small):
    report = persam.run(limit=1)
    assert report.figures.keys() == {
        "one_picture_speedup",
        "twenty_pictures_speedup",
        "persam_f_fit_speedup",
        "picture_overhead",
        "picture_seconds",
    }
    assert len(report.details["rows"]) == 4
    assert "random" in report.models[0]


def test_other_masks_are_no_speedup(small, monkeypatch):
    ours_on = persam.ours_on
    monkeypatch.setattr(
        persam, "ours_on", lambda *args: [np.logical_not(mask) for mask in ours_on(*args)]
    )
    with pytest.raises(OutputsDiffer, match="IoU"):
        persam.run(limit=1)
