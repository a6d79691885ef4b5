"""Snow, fog and rain: random all through, so held by what they do to pictures on the whole."""

from __future__ import annotations

import numpy as np
import pytest

from core.degradations import degrade, weather
from core.degradations.frequency import frequency_noise

WEATHER = ("snow", "fog", "rain")


@pytest.mark.parametrize("name", WEATHER)
def test_lightens_the_picture(small_photos, name):
    for image in small_photos:
        for severity in (None, 3):
            assert degrade(image, name, severity=severity).image.mean() > image.mean() + 2


def test_fog_lowers_contrast_and_only_fog_hides_black(small_photos):
    for image in small_photos:
        foggy = degrade(image, "fog").image
        assert foggy.std() < 0.6 * image.std()
        assert foggy.min() > 60


@pytest.mark.parametrize("name", WEATHER)
def test_published_sample_is_one_that_a_seed_could_give(golden, name):
    """The golden sample's rise in brightness lies among those of other seeds."""
    image = golden["image"]
    rises = [
        degrade(image, name, severity=None, seed=seed).image.mean() - image.mean()
        for seed in range(40)
    ]
    published = golden[f"{name}/example_full"].mean() - image.mean()
    assert min(rises) - 5 < published < max(rises) + 5


def test_rain_streaks_are_nearly_vertical():
    black = np.zeros((200, 200, 3), np.uint8)
    rain = degrade(black, "rain", severity=3).image[..., 0].astype(float)
    down, across = (np.abs(np.diff(rain, axis=axis)).mean() for axis in (0, 1))
    assert down < 0.5 * across


def test_streaks_fade_along_their_way():
    kernel = weather.fading_kernel(15, 0)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    column = kernel[:, 7]
    assert column[0] > column[7] > column[-1] == 0
    assert np.count_nonzero(np.delete(kernel, 7, axis=1)) == 0


def test_slanted_streaks_lean():
    y, x = np.mgrid[-10:11, -10:11]
    kernel = weather.fading_kernel(21, 15)
    assert (kernel * x * y).sum() != pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("density", [0.1, 0.4])
def test_as_many_specks_as_asked_for(density):
    grains = weather.falling_grains(
        (300, 300), np.random.default_rng(0), density=density, density_uniformity=1, grain_px=1
    )
    assert np.mean(grains > 0) == pytest.approx(density, rel=0.05)
    assert grains[grains > 0].min() >= 127


def test_patchy_specks_are_fewer():
    counts = [
        weather.falling_grains(
            (100, 100),
            np.random.default_rng(0),
            density=0.3,
            density_uniformity=uniformity,
            grain_px=2,
        ).sum()
        for uniformity in (0.3, 0.9)
    ]
    assert counts[0] < counts[1]


def test_grey_of_drops_as_published():
    dry, wet = np.zeros((40, 40), np.uint8), np.full((40, 40), 9, np.uint8)
    assert weather.published_drop_grey(dry) == 110
    assert weather.published_drop_grey(wet) == 240
    few = dry.copy()
    few[0, :3] = 10  # the first 1000 values of three channels: a sum of 90
    assert weather.published_drop_grey(few) == 110 + 130 % 90


def test_steeper_spectra_are_smoother():
    rough, flat = (
        frequency_noise((64, 64), exponent, 64, np.random.default_rng(1))
        for exponent in (-0.5, -3.0)
    )
    for noise in (rough, flat):
        assert noise.min() == pytest.approx(0.01, abs=1e-3)
        assert noise.max() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(flat)).mean() < 0.3 * np.abs(np.diff(rough)).mean()


def test_haze_has_no_discs_in_small_pictures():
    random = np.random.default_rng(0)
    assert len(weather.haze_corners((100, 140), 0.2, random)) == 0
    corners = weather.haze_corners((300, 600), 0.2, random)
    assert len(corners) > 20


def test_haze_ends_on_a_very_tall_picture():
    assert len(weather.haze_corners((20_000, 151), 0.2, np.random.default_rng(0))) > 0
