"""The PerSAM benchmark on a model small enough for a test."""

import numpy as np
import pytest

from core.benchmark import persam
from core.benchmark.harness import OutputsDiffer
from tests.core.benchmark.tiny import tiny_sam


@pytest.fixture
def small(one_warm_up, monkeypatch):
    monkeypatch.setattr(persam, "embedded_sam", lambda: (tiny_sam(), "random, for a test"))
    monkeypatch.setattr(persam, "SIZE", (48, 64))
    monkeypatch.setattr(persam, "PICTURES", 2)
    monkeypatch.setattr(persam, "STEPS", 4)


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
