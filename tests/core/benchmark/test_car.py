"""CaR's benchmark on a CLIP small enough for a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.benchmark import car
from core.benchmark._car_published import PublishedPath, PublishedResult, box_mask
from core.benchmark.harness import OutputsDiffer
from core.car.config import CarConfig
from core.car.pipeline import segment_text
from core.models.catalogue import Entry
from tests.core.benchmark import tiny

SIZE = (44, 60)
QUICK = CarConfig.parity(confidence_threshold=0.2, templates=("a {}", "the {}"))


def published_and_ours(config, words=5):
    model, image, asked = tiny.tiny_clip(), car.picture(SIZE), car.words_of(words)
    return (
        PublishedPath(model, model, config).segment(image, asked),
        segment_text(model, model, image, asked, config),
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"recurrence": False}, {"visual_prompts": ("gray", "contour"), "box_threshold": 0.8}],
)
def test_the_reference_computes_what_ours_does(changes):
    """Written anew from the published steps, so that equality means something."""
    published, ours = published_and_ours(replace(QUICK, **changes))
    assert "max difference" in car.check_result(ours, published)
    assert len(published.live) == (1 if "recurrence" in changes else len(ours.steps))


def test_other_maps_words_or_labels_are_no_equal_outputs():
    published, ours = published_and_ours(QUICK)
    other = [published.maps[0] + 0.01, *published.maps[1:]]
    with pytest.raises(OutputsDiffer, match="maps differ"):
        car.check_result(ours, replace(published, maps=other))
    with pytest.raises(OutputsDiffer, match="live words differ"):
        car.check_result(ours, replace(published, live=[[0]]))
    with pytest.raises(OutputsDiffer, match="labels differ in"):
        car.check_result(ours, replace(published, labels=published.labels + 1))


def test_a_map_that_is_dark_beside_the_background_is_made_without_it(monkeypatch):
    """Both sides have the rule, so a wrong one would not show in their difference."""
    model = tiny.tiny_clip()
    path = PublishedPath(model, model, QUICK)
    own, seen = path.gradcam, []

    def dark_at_first(tokens, features, background, index):
        seen.append(len(background))
        one, attention = own(tokens, features, background, index)
        return one * (len(background) == 0), attention

    monkeypatch.setattr(path, "gradcam", dark_at_first)
    maps = path.propose(car.picture(SIZE), ["cat", "dog"])
    assert seen == [23, 0, 23, 0] and maps.any()


def test_boxes_leave_the_last_row_and_column_out():
    one = np.zeros((5, 6), np.float32)
    one[3:, 4:] = 1
    mask = box_mask(one, 0.4)
    assert np.flatnonzero(mask.any(axis=1)).tolist() == [3]
    assert np.flatnonzero(mask.any(axis=0)).tolist() == [4]
    assert not box_mask(np.zeros((5, 6), np.float32), 0.4).any()


@pytest.fixture
def small(one_warm_up, monkeypatch):
    monkeypatch.setattr(car, "embedded_clip", lambda device: (tiny.tiny_clip(), "random"))
    monkeypatch.setattr(car, "SIZE", SIZE)
    monkeypatch.setattr(car, "SMALL_SIZE", (32, 32))
    monkeypatch.setattr(car, "WORDS", 4)
    monkeypatch.setattr(car, "FEW_WORDS", 2)
    monkeypatch.setattr(car, "CONFIG", QUICK)


def test_all_figures_and_rows(small, monkeypatch):
    memory = {"ours_20_words": 300.0, "ours_200_words": 312.0, "reference_20_words": 600.0}
    memory |= {"resident_20_words": 320.0, "resident_200_words": 350.0}
    monkeypatch.setattr(car, "measure_memory", lambda: memory)
    report = car.run(limit=1)
    assert report.figures.keys() == {
        "car_speedup",
        "car_256_known_words_speedup",
        "car_256_speedup",
        "car_256_few_words_speedup",
        "car_256_one_step_speedup",
        "memory_growth_mib",
        "memory_growth_resident_mib",
        "memory_ratio",
    }
    assert report.figures["memory_growth_mib"] == 12 and report.figures["memory_ratio"] == 2
    assert report.figures["memory_growth_resident_mib"] == 30
    assert [row["pairs"] for row in report.details["rows"]] == [1] * 5
    assert "random" in report.models[0]
    assert report.details["bars"]["car_speedup"] == 5


@pytest.mark.parametrize("side", ["ours", "resident", "reference"])
def test_one_run_for_a_fresh_process(small, side, monkeypatch):
    held = []
    monkeypatch.setattr(car, "hold_allocator", lambda: held.append(side))
    monkeypatch.setattr(car, "pick_device", lambda name: torch.device("cpu"))
    car.segment_once(side, "3")
    assert bool(held) == (side != "resident")


def test_memory_is_asked_for_each_number_of_words(monkeypatch):
    asked = []
    monkeypatch.setattr(car, "peak_memory_mib", lambda *call: asked.append(call[1:]) or 1.0)
    assert car.measure_memory()["reference_20_words"] == 1.0
    ours = [(side, count) for side in ("ours", "resident") for count in ("20", "100", "200")]
    assert asked == [*ours, ("reference", "20")]


def test_words_are_distinct():
    for count in (5, 20, 200):
        assert len(set(car.words_of(count))) == count


def test_shipped_weights_are_taken_if_they_are_there(monkeypatch, tmp_path):
    clip = tiny.tiny_clip().clip
    entry = Entry(
        id=car.MODEL,
        method="car",
        set="embedded",
        title="",
        note="",
        file=str(tmp_path / "clip.safetensors"),
        license="",
        source="",
        memory_mib=1,
        builder="core.clip.build:build_from_entry",
    )
    monkeypatch.setattr(car, "catalogue", lambda: {car.MODEL: entry})
    monkeypatch.setattr(car, "find_local", lambda entry: tmp_path)
    monkeypatch.setattr(car, "read_state_dict", lambda path: {})
    monkeypatch.setattr(car, "build_from_entry", lambda entry, weights: clip)
    model, weights = car.embedded_clip(torch.device("cpu"))
    assert weights == "shipped weights" and model.clip is clip
    monkeypatch.setattr(car, "catalogue", dict)
    model, weights = car.embedded_clip(torch.device("cpu"))
    assert weights.startswith("random") and model.patch_size == 8


def test_labels_count_the_words_that_stayed():
    _, ours = published_and_ours(QUICK)
    labels = car.labels_of(ours)
    assert labels.shape == SIZE and labels.max() <= len(ours.steps[-1].kept)
    assert isinstance(published_and_ours(QUICK)[0], PublishedResult)
