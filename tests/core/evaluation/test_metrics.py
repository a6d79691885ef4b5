"""Figures of evaluations against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.evaluation.metrics import bootstrap_interval, mask_scores, rank_correlation


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30, unique=True))
def test_rank_correlation_sees_order_only(values: list[float]) -> None:
    values = np.round(np.sort(values), 6)
    values = np.unique(values)
    if len(values) < 2:
        return
    assert rank_correlation(values, values**3) > 0.999
    assert rank_correlation(values, -values) < -0.999


def test_rank_correlation_of_nothing_is_not_a_number() -> None:
    assert math.isnan(rank_correlation([0.5], [0.5]))
    assert math.isnan(rank_correlation([0.5, 0.5], [0.1, 0.9]))


def test_bootstrap_interval_holds_the_mean() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low < 0.03


def test_overlap_of_masks() -> None:
    truth = np.zeros((3, 4, 4), bool)
    truth[0, :2], truth[1, :2] = True, True
    found = np.zeros_like(truth)
    found[0, 0], found[1, 2:] = True, True
    assert mask_scores(found, truth).tolist() == [
        [0.5, pytest.approx(2 / 3), 0.75],
        [0, 0, 0],
        [1, 1, 1],
    ]
