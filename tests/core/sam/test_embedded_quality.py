"""The shipped weights against their bars, on small fixed sets of objects never trained on.

The sets (``tests/data/make_held_out.py``) are too small to report figures from; the bars here
leave room for that. ``python -m core.evaluation sam`` measures on 500 scenes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engine import get_engine
from core.evaluation.data import folder_examples
from core.evaluation.sam import Scores, evaluate
from core.sam.predictor import Predictor

HELD_OUT = Path(__file__).parents[2] / "data" / "held_out"


@pytest.fixture(scope="module")
def scores() -> dict[str, Scores]:
    with get_engine().model("sam_embedded") as sam:
        predictor = Predictor(sam, model_id="sam_embedded")
        return {
            name: evaluate(predictor, folder_examples(HELD_OUT / name, "labels"))
            for name in ("seen_styles", "held_style")
        }
