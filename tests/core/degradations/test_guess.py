"""The guess leaves clear photographs alone and finds what was done to degraded ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from core.degradations import degrade
from core.degradations.guess import guess, measure
from core.errors import ImageError


def names(image: np.ndarray) -> list[str]:
    return [finding.name for finding in guess(image)]


def test_most_clear_photographs_are_left_alone(photos):
    flagged = [found for image in photos if (found := guess(image))]
    assert len(flagged) <= 2  # one is mostly out of focus, one all fine texture
    assert all(found[0].strength < 0.4 for found in flagged)


@pytest.mark.parametrize(
    ("kind", "severity", "finding", "least"),
    [
        ("snow", 3, "specks", 11),
        ("fog", 3, "haze", 11),
        ("gauss_noise", 3, "noise", 11),
        ("ISO_noise", 3, "noise", 7),
        ("impulse_noise", 4, "over_exposure", 8),
        ("resampling_blur", 4, "blur", 11),
        ("motion_blur", 3, "blur", 10),
        ("compression", 3, "compression", 11),
        ("brightness", 4, "low_light", 11),
        ("contrast", 4, "hard_contrast", 10),
    ],
)
def test_finds_what_was_done(photos, kind, severity, finding, least):
    degraded = [degrade(image, kind, severity=severity, seed=1).image for image in photos]
    assert sum(finding in names(image) for image in degraded) >= least


def test_strongest_first_with_value_and_unit(photos):
    dark = degrade(degrade(photos[0], "brightness", severity=5).image, "gauss_noise").image
    findings = guess(dark)
    assert [finding.name for finding in findings][0] == "low_light"
    strengths = [finding.strength for finding in findings]
    assert strengths == sorted(strengths, reverse=True)
    for finding in findings:
        assert 0 < finding.strength <= 1
        assert finding.words.endswith(".") and finding.unit
        assert finding.value == measure(dark)[finding.name]
        assert finding.resembles


def test_noise_is_measured_in_levels():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = np.random.default_rng(0).normal(0, 12, (200, 200, 1))
    noisy = np.clip(grey + noise, 0, 255).astype(np.uint8)
    assert measure(noisy)["noise"] == pytest.approx(12, rel=0.15)


@pytest.mark.parametrize("sigma", [1.5, 2.5])
def test_blur_is_measured_in_pixels(photos, sigma):
    blurred = [cv2.GaussianBlur(image, (0, 0), sigma) for image in photos[:6]]
    assert np.median([measure(image)["blur"] for image in blurred]) == pytest.approx(sigma, rel=0.3)


def test_blocks_are_found_in_a_cropped_picture(photos):
    cropped = degrade(photos[0], "compression", severity=4).image[3:, 5:]
    assert "compression" in names(cropped)


def test_flat_contrast():
    """Neither dark nor bright: flat and hazy, but not in low light."""
    ramp = np.tile(np.linspace(110, 140, 64).astype(np.uint8), (64, 1))[..., None].repeat(3, 2)
    assert {"low_contrast", "haze"} <= set(names(ramp))
    assert "low_light" not in names(ramp)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (9, 9), (23, 300), (24, 24)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_tiny_and_flat_pictures(size, level):
    image = np.full((*size, 3), level, np.uint8)
    found = {0: "low_light", 127: "haze", 255: "haze"}[level]
    assert found in names(image)
    assert "noise" not in names(image) and "blur" not in names(image)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ImageError):
        guess(np.zeros((4, 4), np.uint8))
