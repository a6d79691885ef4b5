"""The protocol itself, with a predictor whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.evaluation.data import Example
from core.evaluation.sam import evaluate
from core.reports import Report
from core.sam.geometry import Geometry
from core.sam.predictor import Prediction

SIZE = 64


class Oracle:
    """Answers every prompt with the truth as second candidate; after corrections as the only."""

    def __init__(self, masks: np.ndarray) -> None:
        self.truth = torch.from_numpy(masks).float() * 20 - 10
        self.calls: list[dict[str, Any]] = []

    def encode(self, image: np.ndarray) -> None:
        assert image.shape == (SIZE, SIZE, 3)

    def predict_batch(self, embedding: None, **prompt: Any) -> Prediction:
        self.calls.append(prompt)
        truth = self.truth[:, None]
        geometry = Geometry.of((SIZE, SIZE), SIZE)
        if not prompt["multimask_output"]:
            return Prediction(truth, torch.full((len(truth), 1), 0.9), geometry)
        logits = torch.cat([-truth, truth, -truth], dim=1)
        return Prediction(logits, torch.tensor([[0.1, 0.8, 0.9]]).repeat(len(truth), 1), geometry)


@pytest.fixture
def example() -> Example:
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 8:24, 8:24] = True
    masks[1, 40:60, 30:60] = True
    return Example("two", np.zeros((SIZE, SIZE, 3), np.uint8), masks)


def test_protocol(example: Example) -> None:
    oracle = Oracle(example.masks)
    scores = evaluate(oracle, [example])  # type: ignore[arg-type]
    assert scores.one_click_oracle == [1, 1], "the best of three is the truth"
    assert scores.one_click == [0, 0], "the highest predicted IoU is not"
    assert scores.three_click == [1, 1]
    boxes, clicks, second, third = oracle.calls
    assert boxes["boxes"].tolist() == [[8, 8, 24, 24], [30, 40, 60, 60]]
    assert boxes["multimask_output"] and clicks["multimask_output"]
    for mask, (x, y) in zip(example.masks, clicks["point_coords"][:, 0], strict=True):
        assert mask[int(y), int(x)]
    assert second["point_coords"].shape == (2, 2, 2) and third["point_coords"].shape == (2, 3, 2)
    assert torch.equal(second["mask_input"], -oracle.truth[:, None]), "former logits go back in"
    assert not third["multimask_output"]


def test_details_split_by_area(example: Example) -> None:
    details = evaluate(Oracle(example.masks), [example]).details()  # type: ignore[arg-type]
    assert details["masks"] == 2
    assert details["by_area"]["over_5_percent"]["masks"] == 2  # type: ignore[index]


def test_report_is_flat_json(tmp_path: Path) -> None:
    report = Report("sam", ["m"], "d", "cpu", {"box_miou": 0.5}, {"pictures": 3})
    report.write(tmp_path / "deep" / "report.json")
    stored = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert set(stored) == {"name", "models", "data", "commit", "device", "figures", "details"}
    assert "box_miou" in report.table() and "0.500" in report.table()
