"""RobustSAM with the shipped weights against its bars, on a small fixed set of held-out objects.

The set (``tests/data/make_held_out.py``) is too small to report figures from; the bars here leave
room for that. ``python -m core.evaluation robustsam`` measures on more scenes and all kinds.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from core.engine import get_engine
from core.evaluation.data import folder_examples
from core.evaluation.robustsam import Plan, RobustScores, evaluate
from core.models.catalogue import catalogue
from core.models.loading import file_sha256
from core.robustsam.predictor import RobustPredictor
from core.sam.predictor import Predictor
from core.training.robust_pairs import UNSEEN

HELD_OUT = Path(__file__).parents[2] / "data" / "held_out" / "seen_styles"
KINDS = ("rain", "gauss_noise", "motion_blur", "compression", "brightness")
PICTURES = 16
# Least differences of mean IoU between RobustSAM and SAM.
BARS = {
    "gain_points": 0.03,
    "worst_gain": 0.0,
    "gain_clear": 0.02,
    "gain_unseen": 0.02,
    "gain_boxes": 0.01,
    "worst_gain_boxes": -0.01,
    "gain_clear_boxes": 0.0,
    "gain_unseen_boxes": 0.0,
}


@pytest.fixture(scope="module")
def scores() -> RobustScores:
    with get_engine().model("robustsam_embedded") as sam:
        plan = Plan(kinds=KINDS, severities=(4,), three=False, restored=False)
        examples = islice(folder_examples(HELD_OUT, "labels"), PICTURES)
        return evaluate(Predictor(sam), RobustPredictor(sam), examples, plan)


def test_held_out_objects_reach_the_bars(scores: RobustScores) -> None:
    figures = scores.figures([kind for kind in KINDS if kind in UNSEEN])
    short = {k: round(figures[k], 3) for k, bar in BARS.items() if figures[k] < bar}
    assert not short
    assert figures["robust_points_miou"] > 0.68


def test_the_weights_belong_to_the_shipped_sam() -> None:
    config = catalogue()["robustsam_embedded"].config
    sam = catalogue()[config["base"]]
    assert config["base_sha256"] == sam.sha256 == file_sha256(Path(sam.file))
