"""The SAM benchmark on models small enough for a test."""

import numpy as np
import pytest
import torch

from core.benchmark import sam
from core.benchmark.harness import OutputsDiffer
from core.sam.config import SamConfig
from core.sam.everything import MaskRecord
from tests.core.benchmark.tiny import tiny_sam


@pytest.fixture
def small(one_warm_up, monkeypatch):
    monkeypatch.setattr(sam, "vit_b", tiny_sam)
    monkeypatch.setattr(sam, "embedded_sam", lambda: (tiny_sam(), "random, for a test"))
    monkeypatch.setattr(sam, "pixels", lambda device: torch.zeros(1, 3, 64, 64))
    monkeypatch.setattr(sam, "SIZES", {"256x256": (32, 32), "640x480": (30, 40)})
    monkeypatch.setattr(sam, "MEGAPIXEL", (40, 40))
    monkeypatch.setattr(sam, "MANY", 9)
    memory = {"model_mib": 1.0, "reference_mib": 9.0, "ours_mib": 3.0}
    monkeypatch.setattr(sam, "measure_encoder_memory", lambda: memory)


def test_all_figures_and_rows(small):
    report = sam.run(limit=1)
    assert report.figures.keys() == {
        "encoder_speedup",
        "batch_speedup",
        "second_click_speedup",
        "vit_b_second_click_speedup",
        "everything_speedup",
        "encoder_memory_ratio",
    }
    assert all(value > 0 for value in report.figures.values())
    assert report.figures["encoder_memory_ratio"] == 3.0
    assert "random" in " ".join(report.models)
    assert report.details["pairs_limited_to"] == 1
    assert "1 pairs" in report.data
    rows = report.details["rows"]
    assert len(rows) == 3 + 4 + 3 * 2
    assert all(row["check"] and row["pairs"] == 1 for row in rows)


def test_a_different_output_voids_the_timing(small, monkeypatch):
    other = tiny_sam()
    other.image_encoder.neck[3].bias += 0.1
    monkeypatch.setattr(sam, "accelerate", lambda model: other)
    with pytest.raises(OutputsDiffer, match="embeddings"):
        sam.run(limit=1)


def record(mask: np.ndarray) -> MaskRecord:
    return MaskRecord(mask, int(mask.sum()), (0, 0, 1, 1), 0.9, 0.9, (0, 0), (0, 0, 4, 4))


def test_records_are_compared():
    full, half = np.ones((4, 4), bool), np.tri(4, dtype=bool)
    assert sam.compare_records([record(full)], [{"segmentation": full}]) == (
        "1 masks, lowest IoU 1.0000"
    )
    with pytest.raises(OutputsDiffer, match="IoU"):
        sam.compare_records([record(full)], [{"segmentation": half}])
    with pytest.raises(OutputsDiffer, match="0 masks"):
        sam.compare_records([], [{"segmentation": half}])


def test_the_random_vit_b_has_relative_positions(monkeypatch):
    monkeypatch.setattr(
        sam, "SamConfig", type("Small", (), {"vit_b": staticmethod(lambda: SMALL_VIT)})
    )
    encoder = sam.vit_b().image_encoder
    assert all(block.attn.rel_pos_h.std() > 0.05 for block in encoder.blocks)


SMALL_VIT = SamConfig(image_size=64, embed_dim=32, depth=2, num_heads=2, global_attn_indexes=(1,))
