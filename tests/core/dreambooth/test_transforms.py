"""Picture and mask are cut alike, and the subject stays in the cut."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from core.dreambooth.randomness import generator_at
from core.dreambooth.transforms import (
    KEPT_SHARE,
    Crop,
    choose_crop,
    cut_mask,
    cut_picture,
    kept_share,
)

SIZES = st.tuples(st.integers(16, 90), st.integers(16, 90))


@st.composite
def masks(draw):
    """A mask (H, W) with one or two rectangles in it."""
    height, width = draw(SIZES)
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 2))):
        top, left = draw(st.integers(0, height - 2)), draw(st.integers(0, width - 2))
        tall, wide = draw(st.integers(2, 20)), draw(st.integers(2, 20))
        mask[top : top + tall, left : left + wide] = True
    return mask


@given(mask=masks(), seed=st.integers(0, 99), random=st.booleans(), flip=st.booleans())
def test_a_mask_painted_into_the_picture_is_cut_like_the_mask(mask, seed, random, flip):
    crop = choose_crop(mask, 16, generator_at(seed), random_crop=random, flip=flip)
    painted = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    picture = cut_picture(painted, crop)
    assert picture.shape == (3, 16, 16)
    assert_close((picture[:1] + 1) / 2, cut_mask(mask, crop), atol=1e-5, rtol=0)


@given(mask=masks(), seed=st.integers(0, 99), random=st.booleans())
def test_a_crop_lies_in_the_picture_and_shows_the_subject(mask, seed, random):
    crop = choose_crop(mask, 16, generator_at(seed), random_crop=random)
    assert min(crop.resized) == crop.side == 16
    assert 0 <= crop.top <= crop.resized[0] - 16
    assert 0 <= crop.left <= crop.resized[1] - 16
    assert cut_mask(mask, crop).sum() > 0


@given(seed=st.integers(0, 200))
def test_half_of_a_subject_that_fits_is_always_inside(seed):
    mask = np.zeros((20, 200), bool)
    start = seed % 190
    mask[5:15, start : start + 10] = True
    assert kept_share(mask, choose_crop(mask, 20, generator_at(seed))) >= KEPT_SHARE


def test_a_crop_that_loses_the_subject_is_centred_on_it():
    mask = np.zeros((20, 400), bool)
    mask[:, 300:304] = True
    crop = choose_crop(mask, 20, generator_at(0), random_crop=False)
    assert crop.left == 292  # centroid 302, less half a side
    assert kept_share(mask, crop) == 1


def test_a_subject_in_two_far_parts_is_never_lost():
    mask = np.zeros((20, 400), bool)
    mask[:, :5] = mask[:, 395:] = True
    crop = choose_crop(mask, 20, generator_at(0), random_crop=False)
    assert cut_mask(mask, crop).sum() > 0


def test_crops_differ_and_are_repeatable():
    mask = np.ones((20, 60), bool)
    lefts = [choose_crop(mask, 20, generator_at(0, "x", k)).left for k in range(8)]
    assert len(set(lefts)) > 2
    assert lefts == [choose_crop(mask, 20, generator_at(0, "x", k)).left for k in range(8)]


def test_mirroring_is_of_picture_and_mask():
    mask = np.zeros((8, 8), bool)
    mask[:, :2] = True
    straight, mirrored = (cut_mask(mask, Crop((8, 8), 0, 0, 8, flipped)) for flipped in (0, 1))
    assert_close(mirrored, straight.flip(-1))


def test_pictures_are_in_the_networks_range():
    image = np.array([[[0, 128, 255]] * 8] * 8, np.uint8)
    picture = cut_picture(image, Crop((8, 8), 0, 0, 8))
    assert_close(picture[:, 0, 0], torch.tensor([-1.0, 128 / 127.5 - 1, 1.0]))


@pytest.mark.parametrize("size", [(16, 16), (16, 31), (300, 17)])
def test_small_and_long_pictures_become_square(size):
    image = np.full((*size, 3), 77, np.uint8)
    crop = choose_crop(np.ones(size, bool), 32, generator_at(1))
    assert_close(
        cut_picture(image, crop), torch.full((3, 32, 32), 77 / 127.5 - 1), atol=1e-5, rtol=0
    )
