"""Masks as a prior of deblurring: what is known of a smear, and what every result is worth."""

import cv2
import numpy as np
import pytest

from core.degradations import COMBINATIONS, degrade, degrade_chain
from core.degradations.blur import motion_blur
from core.engine import CancelToken
from core.errors import Cancelled, PromptError
from core.images import load
from core.models.catalogue import PROJECT
from core.robustsam import priors
from core.robustsam.priors import (
    BEFORE,
    MOST_SIDE,
    around,
    measure_quality,
    peak_signal_to_noise,
    read_smear,
    resize_masks,
    restore_degraded,
    restore_with_priors,
)
from core.robustsam.restoration import deblur

PHOTO = PROJECT / "assets" / "examples" / "coffee.jpg"


@pytest.fixture(scope="module")
def photo():
    return cv2.resize(load(PHOTO).image, (192, 128), interpolation=cv2.INTER_AREA)


def test_a_smear_is_known_by_its_parameters(photo):
    smear = read_smear(photo, degrade(photo, "motion_blur", severity=4, seed=3))
    assert np.array_equal(smear.sharp, photo) and smear.before == ()
    assert np.array_equal(motion_blur(smear.sharp, smear.kernel), smear.image)
    assert smear.noise == 0


@pytest.mark.parametrize(
    ("name", "before", "least_noise"),
    [("blurred and compressed", (), 2), ("handheld in the dark", ("brightness",), 2)],
)
def test_a_smear_in_a_combination_is_measured_with_what_came_before_it(
    photo, name, before, least_noise
):
    degraded = degrade_chain(photo, COMBINATIONS[name], seed=5)
    smear = read_smear(photo, degraded)
    assert smear.before == before
    smeared = motion_blur(smear.sharp, smear.kernel).astype(float)
    assert smear.noise == pytest.approx(np.std(degraded.image - smeared), rel=1e-3)
    assert smear.noise > least_noise
    assert (smear.sharp.mean() < 0.6 * photo.mean()) == bool(before)


@pytest.mark.parametrize("steps", [(("rain", 3),), (("fog", 3), ("snow", 2)), (("clear", 3),), ()])
def test_what_was_not_smeared_is_refused(photo, steps):
    with pytest.raises(PromptError, match="not smeared by motion"):
        read_smear(photo, degrade_chain(photo, steps, seed=1))


def test_a_smear_of_the_published_ranges_is_refused(photo):
    """It also shifts the picture, and is drawn in another way."""
    with pytest.raises(PromptError, match="give a severity"):
        read_smear(photo, degrade(photo, "motion_blur", severity=None, seed=1))


def test_a_kind_that_also_draws_an_angle_is_no_smear(photo):
    degraded = degrade(photo, "rain", severity=3, seed=1)
    assert "angle" in degraded.steps[0]["drawn"]
    degraded = degrade_chain(photo, (("rain", 2), ("motion_blur", 2)), seed=1)
    smear = read_smear(photo, degraded)
    assert smear.before == ("rain",)
    assert np.array_equal(motion_blur(smear.sharp, smear.kernel), degraded.image)


def test_large_pictures_are_scaled_down_with_their_smear(photo):
    large = cv2.resize(photo, (2 * MOST_SIDE, MOST_SIDE))
    degraded = degrade(large, "motion_blur", severity=3, seed=2)
    whole, small = read_smear(large, degraded), read_smear(large, degraded, MOST_SIDE)
    assert small.image.shape == small.sharp.shape == (MOST_SIDE // 2, MOST_SIDE, 3)
    assert abs(len(whole.kernel) - 2 * len(small.kernel)) <= 4
    again = motion_blur(small.sharp, small.kernel)
    assert peak_signal_to_noise(again, small.image) > 40


def test_the_true_mask_is_worth_more_than_a_wrong_one_and_none(disc):
    image, mask = disc
    degraded = degrade_chain(image, (("motion_blur", 5), ("gauss_noise", 4)), seed=0)
    wrong = np.roll(mask, 12, axis=1)
    said = []
    smear, results = restore_degraded(
        image,
        degraded,
        {"true": mask[None], "wrong": wrong[None], "nothing": mask[None][:0], "missing": None},
        mask,
        progress=lambda fraction, text: said.append((fraction, text)),
    )
    by_name = {one.name: one for one in results}
    assert list(by_name) == [BEFORE, "none", "true", "wrong", "nothing", "missing"]
    near = {name: one.quality.subject_psnr for name, one in by_name.items()}
    assert near["true"] > max(near["none"], near["wrong"]) + 0.3
    assert near["none"] > near[BEFORE] + 2
    assert near["nothing"] == near["missing"] == near["none"], "no mask, no prior"
    assert np.array_equal(by_name[BEFORE].image, degraded.image)
    assert said[0] == (0, "picture 1 of 5") and len(said) == 5


@pytest.mark.parametrize("name", ["blurred and compressed", "handheld in the dark"])
def test_a_smear_in_a_combination_is_undone(photo, name):
    degraded = degrade_chain(photo, COMBINATIONS[name], seed=1)
    _, results = restore_degraded(photo, degraded, {}, np.ones(photo.shape[:2], bool))
    before, restored = (one.quality.psnr for one in results)
    assert restored > before + 0.5


def test_masks_follow_a_picture_that_was_scaled_down(disc, monkeypatch):
    image, mask = disc
    monkeypatch.setattr(priors, "MOST_SIDE", 64)
    degraded = degrade(image, "motion_blur", severity=3, seed=0)
    smear, results = restore_degraded(image, degraded, {"true": mask[None]}, mask)
    assert all(one.image.shape == (64, 64, 3) for one in results)
    small = resize_masks(mask[None], (64, 64))
    expected = deblur(smear.image, smear.kernel, small, noise=smear.noise)
    assert np.array_equal(results[-1].image, expected)
    assert results[-1].quality == measure_quality(expected, smear.sharp, around(small[0]))


def test_it_stops_between_two_priors(disc):
    image, mask = disc
    token = CancelToken()
    with pytest.raises(Cancelled, match="after 1 of 3 pictures"):
        restore_with_priors(
            image,
            np.ones((1, 1)),
            dict.fromkeys("abc"),
            image,
            mask,
            cancel=token,
            progress=lambda fraction, text: token.cancel(),
        )


def test_masks_of_another_size():
    masks = np.zeros((2, 40, 60), bool)
    masks[1, 10:20, 30:50] = True
    small = resize_masks(masks, (20, 30))
    assert small.shape == (2, 20, 30) and small.dtype == bool
    assert not small[0].any() and small[1, 5:10, 15:25].all() and small[1].sum() == 50
    assert resize_masks(masks[:0], (20, 30)).shape == (0, 20, 30)
    assert resize_masks(masks, (40, 60)) is masks


def test_a_subjects_surroundings_grow_with_the_picture():
    mask = np.zeros((128, 256), bool)
    mask[60, 100] = True
    assert around(mask)[60, 96:105].all() and not around(mask)[60, [95, 105]].any()


def test_qualities_of_equal_and_of_opposite_pictures(disc):
    image, mask = disc
    quality = measure_quality(image, image, mask)
    assert quality.psnr == quality.subject_psnr == 100
    assert quality.ssim == quality.subject_ssim == pytest.approx(1)
    white = np.full_like(image, 255)
    assert peak_signal_to_noise(np.zeros_like(image), white) == pytest.approx(0)


def test_the_subjects_qualities_are_of_its_place_only(disc):
    image, mask = disc
    spoilt = image.copy()
    spoilt[:10, :10] = 0
    quality = measure_quality(spoilt, image, mask)
    assert quality.subject_psnr == 100 and quality.subject_ssim == pytest.approx(1)
    assert quality.psnr < 40 and quality.ssim < 0.99
    spoilt = np.where(mask[..., None], np.uint8(128), image)
    quality = measure_quality(spoilt, image, mask)
    assert quality.subject_psnr < quality.psnr and quality.subject_ssim < quality.ssim


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (3, 3), (4, 20), (7, 20), (8, 20)])
def test_qualities_of_tiny_pictures(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    quality = measure_quality(image, image, np.ones(size, bool))
    assert quality.ssim == quality.subject_ssim == pytest.approx(1)
    assert np.isfinite(measure_quality(255 - image, image, np.ones(size, bool)).ssim)
