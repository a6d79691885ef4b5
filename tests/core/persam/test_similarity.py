import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from core.persam.config import PersamConfig
from core.persam.similarity import choose_points, guidance_map, peaks
from core.sam.geometry import Geometry


def noise(height, width, seed=0):
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 6), st.floats(0.5, 20))
def test_distinct_peaks_are_apart_and_in_the_picture(height, width, count, apart):
    values = noise(height, width, height * 61 + width)
    found = peaks(values, count, apart)
    assert 1 <= len(found) <= count
    x, y = found.astype(int).T
    assert (x < width).all() and (y < height).all()
    assert values[y[0], x[0]] == values.max()
    assert (np.diff(values[y, x].numpy()) <= 0).all()
    distance = np.abs(found[:, None] - found[None]).max(axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance >= max(1, round(apart))).all()


def test_plain_peaks_are_the_highest_pixels():
    values = noise(9, 7)
    found = peaks(values, 3, 0.0).astype(int)
    expected = values.flatten().sort(descending=True).values[:3]
    assert_close(values[found[:, 1], found[:, 0]], expected)


def test_points_carry_their_labels():
    values = noise(40, 60)
    points = choose_points(values, 8.0, PersamConfig(points=3))
    assert points.labels.tolist() == [1, 1, 1, 0]
    x, y = points.coords[-1].astype(int)
    assert values[y, x] == values.min()
    alone = choose_points(values, 8.0, PersamConfig(negative_point=False))
    assert alone.labels.tolist() == [1]


def test_guidance_is_aligned_on_request():
    """A 2:1 picture fills the upper half of the grid only."""
    geometry = Geometry.of((100, 200), 256)
    values = torch.zeros(100, 200)
    values[:50] = 1
    stretched = guidance_map(values, geometry, 16, aligned=False)
    aligned = guidance_map(values, geometry, 16, aligned=True)
    assert (stretched[:8] > 0.5).all() and (stretched[8:] < 0.5).all()
    assert (aligned[:4] > 0.5).all() and (aligned[4:] < 0.5).all()
    assert_close(aligned[8:], aligned.min().expand(8, 16))


@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
def test_guidance_of_an_even_map_is_neutral(size):
    guidance = guidance_map(torch.full(size, 0.3), Geometry.of(size, 256), 16, aligned=False)
    assert_close(guidance, torch.full((16, 16), 0.5))
