"""Classical restoration: it helps where it should, leaves the rest, and survives odd pictures."""

import cv2
import numpy as np
import pytest

from core.degradations import degrade
from core.degradations.blur import centred_line_kernel, motion_blur
from core.errors import ImageError
from core.images import load
from core.models.catalogue import PROJECT
from core.robustsam.restoration import BORDER_WEIGHT, deblur, jump_weights, restore

PHOTO = PROJECT / "assets" / "examples" / "coffee.jpg"


@pytest.fixture(scope="module")
def photo():
    return cv2.resize(load(PHOTO).image, (300, 200), interpolation=cv2.INTER_AREA)


def psnr(image, clear):
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - clear) ** 2))


def test_a_good_picture_stays_as_it_is(photo):
    restored = restore(photo)
    assert restored.steps == ()
    assert np.array_equal(restored.image, photo)


@pytest.mark.parametrize(
    ("kind", "severity", "step", "gain"),
    [
        ("gauss_noise", 4, "non-local means", 4),
        ("brightness", 5, "stretched levels", 8),
        ("fog", 3, "stretched levels and CLAHE", 2),
        ("snow", 5, "opening", 1),
        ("compression", 5, "bilateral filter", 0),
        ("resampling_blur", 4, "unsharp masking", 0),
    ],
)
def test_what_is_wrong_is_made_better(photo, kind, severity, step, gain):
    degraded = degrade(photo, kind, severity=severity).image
    restored = restore(degraded)
    assert restored.steps[0] == step
    assert psnr(restored.image, photo) > psnr(degraded, photo) + gain


def test_haze_is_not_treated_twice(photo):
    steps = restore(degrade(photo, "fog", severity=5).image).steps
    assert steps.count("stretched levels and CLAHE") == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (23, 24), (24, 24), (30, 500)])
@pytest.mark.parametrize("content", ["black", "white", "grey", "noise"])
def test_odd_pictures(size, content):
    values = {"black": 0, "white": 255, "grey": 90}
    image = np.full((*size, 3), values.get(content, 0), np.uint8)
    if content == "noise":
        image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    restored = restore(image).image
    deblurred = deblur(image, np.full((5, 5), 1 / 25), np.ones((1, *size), bool))
    for result in (restored, deblurred):
        assert result.shape == image.shape and result.dtype == np.uint8
    if content != "noise":
        assert np.abs(deblurred.astype(int) - image).max() <= 1
        assert np.abs(restored.astype(int) - image).max() <= 4, "a single colour is kept"


def test_a_known_blur_is_undone(photo):
    kernel = centred_line_kernel(9, 0.6)
    smeared = motion_blur(photo, kernel)
    assert psnr(deblur(smeared, kernel), photo) > psnr(smeared, photo) + 3


def test_a_long_smear_does_not_ring_from_the_border():
    """With a sharp seam half a decibel is won here, not five."""
    cups = cv2.resize(load(PHOTO.with_name("cups.jpg")).image, (256, 160))
    kernel = centred_line_kernel(22, 2.6)
    smeared = motion_blur(cups, kernel)
    assert psnr(deblur(smeared, kernel), cups) > psnr(smeared, cups) + 4


def test_the_kernel_is_undone_in_its_direction(photo):
    """A kernel off its centre shifts the picture; undone, it is where it was."""
    kernel = np.zeros((7, 7))
    kernel[1, 6] = 1
    shifted = cv2.filter2D(photo, -1, kernel, borderType=cv2.BORDER_REFLECT)
    inner = np.s_[8:-8, 8:-8]
    assert (
        psnr(deblur(shifted, kernel)[inner], photo[inner]) > psnr(shifted[inner], photo[inner]) + 8
    )


def test_masks_sharpen_the_outline(disc):
    image, mask = disc
    kernel = centred_line_kernel(13, 0.4)
    noise = np.random.default_rng(0).normal(0, 20, image.shape)
    smeared = np.clip(motion_blur(image, kernel) + noise, 0, 255).astype(np.uint8)
    plain, guided = deblur(smeared, kernel), deblur(smeared, kernel, mask[None])
    assert psnr(guided, image) > psnr(plain, image) + 0.3
    assert np.array_equal(deblur(smeared, kernel, mask[None][:0]), plain), "no mask, no prior"


def test_jumps_are_cheap_near_the_borders_only(disc):
    _, mask = disc
    weights = jump_weights(mask.shape, mask[None])
    assert set(np.unique(weights)) == {np.float32(BORDER_WEIGHT), np.float32(1)}
    assert weights[48, 44] == weights[0, 0] == 1
    assert weights[48, 44 + 22] == np.float32(BORDER_WEIGHT)


def test_what_does_not_fit_is_refused(disc):
    image, mask = disc
    with pytest.raises(ImageError, match="do not fit a picture of 96x96"):
        deblur(image, np.ones((1, 1)), mask[None, :50])
    with pytest.raises(ImageError, match="square and odd"):
        deblur(image, np.full((2, 2), 0.25))
    for function in (restore, lambda picture: deblur(picture, np.ones((1, 1)))):
        with pytest.raises(ImageError, match="float64"):
            function(image.astype(float))
