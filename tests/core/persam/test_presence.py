import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.persam.presence import (
    Presence,
    absent_rate,
    calibrate_threshold,
)

scores = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(scores, scores)
def test_no_threshold_is_better(present, absent):
    chosen = calibrate_threshold(present, absent)
    present, absent = np.array(present), np.array(absent)

    def right(threshold):
        return (absent < threshold).mean() + (present >= threshold).mean()

    others = np.concatenate([present, absent, [2.0]])
    assert all(right(chosen) >= right(other) - 1e-9 for other in others)


def test_separable_scores_are_separated():
    assert calibrate_threshold([0.8, 0.9], [0.2, 0.6]) == pytest.approx(0.7)


def test_calibration_needs_both_kinds():
    with pytest.raises(ValueError, match="0 and 1"):
        calibrate_threshold([], [0.5])


def test_absent_rate():
    assert absent_rate([0.1, 0.5, 0.9], [0.5, 0.6]).tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize(("peak", "pooled", "score"), [(0.9, 0.7, 0.8), (-0.5, -1.0, 0.0)])
def test_score_is_the_mean_cosine(peak, pooled, score):
    assert Presence(peak, pooled, 0.3, 0.3).score == pytest.approx(score)
