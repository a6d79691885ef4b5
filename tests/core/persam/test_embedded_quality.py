"""PerSAM with the shipped weights against its bars, on a small fixed set of held-out objects.

The set (``tests/data/make_personal.py``: ten objects with two or more distractors of their
category in every picture) is too small to report figures from; the bars here leave room for that.
``python -m core.evaluation persam`` measures on forty objects.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.engine import get_engine
from core.evaluation.persam import PersamScores, evaluate
from core.evaluation.persam_data import perseg_subjects
from core.models.catalogue import catalogue
from core.models.presets import calibrated_threshold
from core.sam.predictor import Predictor

DATA = Path(__file__).parents[2] / "data" / "personal"
BARS = {"persam_miou": 0.58, "persam_f_miou": 0.52, "point_on_object": 0.78}


@pytest.fixture(scope="module")
def scores() -> PersamScores:
    with get_engine().model("sam_embedded") as sam:
        predictor = Predictor(sam, model_id="sam_embedded")
        return evaluate(predictor, perseg_subjects(DATA), ablations=False)


def test_held_out_objects_reach_the_bars(scores: PersamScores) -> None:
    figures = scores.figures()
    short = {name: round(figures[name], 3) for name, bar in BARS.items() if figures[name] < bar}
    assert not short


def test_pictures_without_the_object_are_told_from_those_with_it(scores: PersamScores) -> None:
    threshold = calibrated_threshold(catalogue()["sam_embedded"])
    assert threshold is not None
    assert np.mean(np.array(scores.absent) < threshold) >= 0.7
    assert np.mean(np.array(scores.present) < threshold) <= 0.28
