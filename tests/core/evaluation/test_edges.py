"""Edge figures at their extremes, and one-to-one matching."""

from __future__ import annotations

import numpy as np
import pytest

from core.evaluation import edges


@pytest.fixture
def square() -> np.ndarray:
    mask = np.zeros((1, 80, 80), bool)
    mask[0, 20:60, 20:60] = True
    return mask


def test_perfect_edges_score_one(square: np.ndarray) -> None:
    truth = edges.outline(square)
    figures = edges.edge_figures([edges.count_matches(truth.astype(np.float32), truth)])
    assert min(figures["ods"], figures["ois"], figures["r50"]) > 0.97  # thinning rounds corners


def test_a_shift_within_reach_counts_and_beyond_does_not(square: np.ndarray) -> None:
    truth = np.zeros((400, 400), bool)
    truth[200, 20:380] = True  # reach: 0.0075 x 566 = 4.2 px
    near, far = (np.roll(truth, n, axis=0).astype(np.float32) for n in (4, 5))
    assert edges.count_matches(near, truth).matched[0] == 360
    assert edges.count_matches(far, truth).matched[0] == 0


def test_each_true_pixel_matches_once() -> None:
    truth = np.zeros((400, 400), bool)
    truth[200, 20:380] = True
    double = (truth | np.roll(truth, 3, axis=0)).astype(np.float32)
    counts = edges.count_matches(double, truth)
    assert (counts.matched[0], counts.predicted[0]) == (360, 720)


def test_thick_edges_are_thinned_first(square: np.ndarray) -> None:
    truth = edges.outline(square)
    thick = np.maximum.reduce([np.roll(truth, n, axis=0) for n in (-1, 0, 1)])
    counts = edges.count_matches(thick.astype(np.float32), truth)
    assert counts.predicted[0] < 1.1 * counts.true


def test_baselines_find_a_clear_square(square: np.ndarray) -> None:
    square = square.repeat(3, axis=1).repeat(3, axis=2)
    image = np.where(square[0][..., None], 220, 30).astype(np.uint8).repeat(3, axis=2)
    truth = edges.outline(square)
    for method in (edges.sobel_edges, edges.canny_edges):
        figures = edges.edge_figures([edges.count_matches(method(image), truth)])
        assert figures["ods"] > 0.8, method.__name__
