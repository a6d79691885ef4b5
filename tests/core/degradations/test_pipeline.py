"""Any picture, any kind, any severity; seeds, severities, masks, chains and errors."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import core.degradations as degradations
from core.degradations import (
    COMBINATIONS,
    DEGRADATIONS,
    FAMILIES,
    KINDS,
    SEVERITIES,
    degrade,
    degrade_chain,
)
from core.degradations.compression import compression
from core.degradations.levels import LEVELS
from core.errors import ImageError, PromptError
from core.masks import iou

PUBLISHED_ORDER = (
    "snow fog rain gauss_noise ISO_noise impulse_noise resampling_blur motion_blur zoom_blur "
    "color_jitter compression elastic_transform frosted_glass_blur brightness contrast"
).split()
WITHOUT_CHANCE = {"clear", "impulse_noise", "resampling_blur", "brightness", "contrast"}
NOT_BY_CHANCE_AT_A_SEVERITY = {*WITHOUT_CHANCE, "zoom_blur", "compression"}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-3))


def test_fifteen_kinds_and_clear_in_the_published_order():
    assert list(DEGRADATIONS) == PUBLISHED_ORDER
    assert list(KINDS) == ["clear", *PUBLISHED_ORDER]
    assert set(LEVELS) == set(KINDS)
    assert sorted(sum(FAMILIES.values(), ())) == sorted(DEGRADATIONS)


def test_kinds_are_described():
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.title and kind.description.endswith(".")
    assert len({kind.title for kind in KINDS.values()}) == 16


def test_exported_names():
    assert set(degradations.__all__) <= set(dir(degradations))


@settings(max_examples=60)
@given(
    st.sampled_from(list(KINDS)),
    st.sampled_from([None, *SEVERITIES]),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**40),
    st.sampled_from(["random", "dark", "flat"]),
)
def test_any_picture_keeps_shape_and_type(name, severity, size, seed, content):
    random = np.random.default_rng(seed)
    image = random.integers(0, 4 if content == "dark" else 256, (*size, 3), np.uint8)
    if content == "flat":
        image[:] = image[0, 0]
    before = image.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        degraded = degrade(image, name, severity=severity, seed=seed)
    assert degraded.image.shape == image.shape
    assert degraded.image.dtype == np.uint8
    assert not np.shares_memory(degraded.image, image)
    assert_array_equal(image, before)
    mask = image[..., 0] > image[..., 0].mean()
    assert degraded.displace_mask(mask).shape == mask.shape
    json.dumps(degraded.parameters, allow_nan=False)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 3), (700, 5), (5, 1400)])
def test_odd_sizes(name, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for severity in (None, 1, 5):
        assert degrade(image, name, severity=severity).image.shape == image.shape


def test_a_picture_that_is_a_view(small_photos):
    view = small_photos[0][::2, ::-1]
    for name in KINDS:
        whole = degrade(view.copy(), name).image
        assert_array_equal(degrade(view, name).image, whole)


@pytest.mark.parametrize("name", KINDS)
def test_clear_changes_nothing_and_all_others_something(small_photos, name):
    degraded = degrade(small_photos[0], name).image
    assert np.array_equal(degraded, small_photos[0]) == (name == "clear")


@pytest.mark.parametrize("severity", [None, 3])
@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_seed_repeats_and_another_differs(small_photos, name, severity):
    image = small_photos[1]
    first, again = (degrade(image, name, severity=severity, seed=7) for _ in range(2))
    assert_array_equal(first.image, again.image)
    assert first.parameters == again.parameters
    fixed = NOT_BY_CHANCE_AT_A_SEVERITY if severity else {"resampling_blur"}
    others = [degrade(image, name, severity=severity, seed=seed).image for seed in (8, 9)]
    assert all(np.array_equal(first.image, other) for other in others) == (name in fixed)


def test_kinds_draw_independently_of_each_other():
    black = np.zeros((40, 40, 3), np.uint8)
    chain = degrade_chain(black, [("brightness", 1), ("rain", 3)], seed=5)
    other = degrade_chain(black, [("contrast", 1), ("rain", 3)], seed=5)
    drawn = [run.parameters["steps"][1]["drawn"] for run in (chain, other)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_higher_severities_harm_more(small_photos, name):
    quality = [
        np.mean(
            [
                psnr(image, degrade(image, name, severity=severity, seed=seed).image)
                for image in small_photos
                for seed in range(4)
            ]
        )
        for severity in SEVERITIES
    ]
    assert all(a > b + 0.3 for a, b in zip(quality, quality[1:], strict=False)), quality
    assert quality[0] > 16
    assert quality[4] < 25


def test_lengths_scale_with_the_picture():
    tiny, small, large = (np.zeros((side, 80, 3), np.uint8) for side in (90, 256, 1024))
    for name, key in (
        ("motion_blur", "length_px"),
        ("frosted_glass_blur", "reach_px"),
        ("resampling_blur", "factor_px"),
        ("elastic_transform", "sigma_px"),
    ):
        lengths = [degrade(image, name).parameters["drawn"][key] for image in (tiny, small, large)]
        assert lengths[2] == pytest.approx(4 * lengths[1])
        assert lengths[1] == lengths[0]


def test_published_lengths_are_raw_pixels():
    for side in (64, 512):
        image = np.zeros((side, side, 3), np.uint8)
        drawn = degrade(image, "elastic_transform", severity=None).parameters["drawn"]
        assert drawn == {"affine_px": 5, "sigma_px": 10, "alpha_px2": 100}
        assert degrade(image, "resampling_blur", severity=None).parameters["drawn"] == {
            "factor_px": 4
        }


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        ("gauss_noise", {"variance": (250, 260)}),
        ("ISO_noise", {"color_shift": (0.4, 0.5), "intensity": (0.7, 0.8)}),
        ("impulse_noise", {"multiplier": (1.4, 1.5)}),
        ("motion_blur", {"length_px": (3, 35)}),
        ("zoom_blur", {"largest": (1, 1.33), "step": (0.05, 0.07)}),
        ("color_jitter", {"brightness": (0.3, 1.7), "hue": (-0.7, 0.7)}),
        ("compression", {"quality": (5, 10)}),
        ("brightness", {"factor": (0.6, 0.8)}),
        ("contrast", {"factor": (1.6, 1.7)}),
        ("fog", {"density": (0.4, 0.9), "haze": (0.1, 0.2), "intensity": (220, 255)}),
    ],
)
def test_published_ranges(name, ranges):
    image = np.zeros((24, 24, 3), np.uint8)
    runs = [
        degrade(image, name, severity=None, seed=seed).parameters["drawn"] for seed in range(60)
    ]
    for key, (low, high) in ranges.items():
        values = [run[key] for run in runs]
        assert low <= min(values) < low + 0.3 * (high - low)
        assert high - 0.3 * (high - low) < max(values) <= high


def test_published_layers():
    image = np.zeros((16, 16, 3), np.uint8)
    for name in ("snow", "rain"):
        runs = [degrade(image, name, severity=None, seed=k).parameters["drawn"] for k in range(20)]
        assert {run["layers"] for run in runs} == {1, 2, 3}
        assert all(len(np.atleast_1d(run["speed"])) == run["layers"] for run in runs)


@pytest.mark.parametrize("severity", [None, 3, 5])
@pytest.mark.parametrize("name", ["elastic_transform", "frosted_glass_blur"])
def test_masks_move_along(scene, name, severity):
    """A picture that shows its own mask: moved alike, they still agree."""
    image, mask = scene
    degraded = degrade(image, name, severity=severity, seed=3)
    assert degraded.moves_pixels and KINDS[name].moves_pixels
    shown = degraded.image[..., 0] > 127
    moved = degraded.displace_mask(mask)
    assert moved.dtype == bool
    assert iou(moved, shown) > 0.97
    assert iou(mask, shown) < iou(moved, shown)


def test_other_kinds_leave_masks_where_they_are(scene):
    image, mask = scene
    for name, kind in KINDS.items():
        if not kind.moves_pixels:
            degraded = degrade(image, name)
            assert not degraded.moves_pixels
            assert degraded.displace_mask(mask) is mask


def test_masks_move_through_a_chain(scene):
    image, mask = scene
    steps = [("elastic_transform", 3), ("brightness", 1), ("elastic_transform", 4)]
    chain = degrade_chain(image, steps, seed=2)
    assert len(chain.displacements) == 2
    assert iou(chain.displace_mask(mask), chain.image[..., 0] > 110) > 0.96


def test_a_mask_of_another_size_is_refused(scene):
    degraded = degrade(scene[0], "elastic_transform")
    with pytest.raises(ImageError, match=r"\(3, 4\).*\(96, 120\)"):
        degraded.displace_mask(np.ones((3, 4), bool))


def test_chain_is_one_step_after_the_other(small_photos):
    image = small_photos[2]
    chain = degrade_chain(image, [("brightness", 4), ("contrast", 2)])
    dark = degrade(image, "brightness", severity=4).image
    assert_array_equal(chain.image, degrade(dark, "contrast", severity=2).image)
    assert [step["name"] for step in chain.parameters["steps"]] == ["brightness", "contrast"]


def test_chain_of_one_is_the_kind_itself(small_photos):
    one = degrade(small_photos[0], "fog", severity=2, seed=4)
    chain = degrade_chain(small_photos[0], [("fog", 2)], seed=4)
    assert_array_equal(one.image, chain.image)


def test_chain_draws_anew_for_a_repeated_kind():
    image = np.zeros((32, 32, 3), np.uint8)
    steps = degrade_chain(image, [("rain", 3), ("rain", 3)]).parameters["steps"]
    assert steps[0]["drawn"]["speed"] != steps[1]["drawn"]["speed"]


def test_empty_chain_copies(small_photos):
    chain = degrade_chain(small_photos[0], [])
    assert_array_equal(chain.image, small_photos[0])
    assert not np.shares_memory(chain.image, small_photos[0])


@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations(small_photos, name):
    for image in small_photos:
        chain = degrade_chain(image, COMBINATIONS[name], seed=1)
        assert 4 < psnr(image, chain.image) < 26
        json.dumps(chain.parameters)


def test_published_jpeg(small_photos):
    image = small_photos[0]
    saved = degrade(image, "fog", published_jpeg=True)
    assert_array_equal(saved.image, compression(degrade(image, "fog").image, 95))
    assert saved.parameters["jpeg_quality"] == 95
    chain = degrade_chain(image, [("fog", 3)], published_jpeg=True)
    assert_array_equal(chain.image, saved.image)


def test_swapped_compression(small_photos):
    image = small_photos[1]
    swapped = degrade(image, "compression", swap_red_blue=True)
    quality = swapped.parameters["drawn"]["quality"]
    assert_array_equal(swapped.image, compression(image, quality, swap_red_blue=True))
    assert_array_equal(degrade(image, "compression").image, compression(image, quality))


def test_errors_say_what_to_do():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(PromptError, match="'smog'; choose one of clear, snow, fog, rain"):
        degrade(image, "smog")
    with pytest.raises(PromptError, match="Severity 6 does not exist; give 1"):
        degrade(image, "fog", severity=6)
    with pytest.raises(PromptError, match="Severity 0"):
        degrade_chain(image, [("fog", 3), ("snow", 0)])
    with pytest.raises(PromptError, match="'smog'"):
        degrade_chain(image, [("fog", 3), ("smog", 3)])
    with pytest.raises(PromptError, match="The seed is -1"):
        degrade(image, "fog", seed=-1)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "type float32"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ([[1, 2, 3]], "A list cannot be degraded"),
    ],
)
def test_what_is_no_picture_is_refused(image, said):
    with pytest.raises(ImageError, match=said):
        degrade(image, "fog")


def test_numpy_numbers_are_taken(small_photos):
    degraded = degrade(small_photos[0], "fog", severity=np.int64(2), seed=np.int64(3))
    json.dumps(degraded.parameters)
    assert_array_equal(degraded.image, degrade(small_photos[0], "fog", severity=2, seed=3).image)
