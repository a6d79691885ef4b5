"""Number for number against the published script and its libraries."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from core.degradations import blur, colour, geometry, noise, weather
from core.degradations.compression import compression


def difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.abs(ours.astype(int) - theirs)


def test_light(golden):
    image, params = golden["image"], golden["params"]
    assert_array_equal(colour.brightness(image, params["b"]), golden["brightness"])
    assert_array_equal(colour.contrast(image, params["c"]), golden["contrast"])
    assert_array_equal(noise.impulse_noise(image, params["m"]), golden["impulse_noise"])


@pytest.mark.parametrize("only", ["brightness", "contrast", "saturation", "hue"])
def test_each_jitter_alone(golden, only):
    value = golden["params"]["cj"][["brightness", "contrast", "saturation", "hue"].index(only)]
    jittered = colour.color_jitter(golden["image"], **{only: value})
    assert_array_equal(jittered, golden[f"color_jitter/only_{only}"])


def test_jitter_in_order(golden):
    b, c, s, h = golden["params"]["cj"]
    jittered = colour.color_jitter(
        golden["image"],
        brightness=b,
        contrast=c,
        saturation=s,
        hue=h,
        order=golden["params"]["order"],
    )
    assert_array_equal(jittered, golden["color_jitter"])


def test_gauss_noise(golden):
    noisy = noise.gauss_noise(golden["image"], golden["gauss_noise/field"])
    assert_array_equal(noisy, golden["gauss_noise"])


def test_iso_noise(golden):
    """A level by rounding, except where hues turn more than full circle or bytes wrap in theirs."""
    hue = golden["ISO_noise/hue"]
    noisy = noise.iso_noise(golden["image"], golden["ISO_noise/poisson"], hue)
    assert np.mean(noisy != golden["ISO_noise"]) < 1e-3
    plain = (np.abs(hue) < 360) & (noisy.max(axis=2) < 255)
    assert difference(noisy, golden["ISO_noise"])[plain].max() <= 1


def test_iso_photon_mean(golden):
    intensity = golden["params"]["it"]
    mean = noise.photon_mean(golden["image"], intensity)
    assert mean == pytest.approx(float(golden["ISO_noise/lum_stddev"]) * intensity * 255, rel=1e-5)


def test_resampling_blur(golden):
    assert_array_equal(blur.resampling_blur(golden["image"], 4), golden["resampling_blur"])


def test_motion_blur(golden):
    kernel = blur.line_kernel(*golden["params"]["ks"])
    assert_array_equal(kernel, golden["motion_blur/kernel"])
    assert_array_equal(blur.motion_blur(golden["image"], kernel), golden["motion_blur"])


def test_zoom_blur(golden):
    factors = np.arange(1, *golden["params"]["zf"])
    assert_allclose(factors, golden["zoom_blur/factors"])
    assert_array_equal(blur.zoom_blur(golden["image"], factors), golden["zoom_blur"])


def test_frosted_glass_blur(golden):
    offsets = golden["frosted_glass_blur/displacement_xy"]
    glass = blur.frosted_glass_blur(golden["image"], offsets)
    assert_array_equal(glass, golden["frosted_glass_blur"])


@pytest.mark.parametrize("index", [0, 1])
def test_compression_with_red_and_blue_swapped(golden, index):
    """Bit for bit with the same libjpeg; another build may round otherwise."""
    quality = golden["params"]["q"][index]
    ours = compression(golden["image"], quality, swap_red_blue=True)
    assert difference(ours, golden[f"compression_q{quality}"]).mean() <= 3


def test_elastic_fields(golden):
    """The published draws, by the legacy generator: offsets, then the noise of dx and of dy."""
    random = np.random.RandomState(golden["params"]["el"])
    size = golden["image"].shape[:2]
    matrix = geometry.affine_matrix(size, random.uniform(-5, 5, (3, 2)))
    assert_allclose(matrix, golden["elastic_transform/affine_matrix"], atol=1e-6)
    for name in ("dx", "dy"):
        field = geometry.smooth((random.rand(*size) * 2 - 1).astype(np.float32), 10) * 100
        assert_allclose(field, golden[f"elastic_transform/{name}"], atol=1e-4)


def test_elastic_transform(golden):
    """Interpolation rounds by the OpenCV release: at most 5 levels."""
    warped = geometry.elastic_transform(
        golden["image"],
        golden["elastic_transform/affine_matrix"],
        golden["elastic_transform/dx"],
        golden["elastic_transform/dy"],
    )
    assert difference(warped, golden["elastic_transform"]).max() <= 5


def test_first_stage_of_snow(golden):
    ours = weather.hls_round_trip(golden["image"])
    assert_array_equal(ours, golden["snow/stage1_hls_roundtrip"])


def test_first_stage_of_fog(golden):
    """Its maps follow from what it does to black and to white, each known to half a level."""
    black = golden["fog/stage1_on_black"].astype(np.float32).mean(axis=2)
    white = golden["fog/stage1_on_white"].astype(np.float32).mean(axis=2)
    alpha = 1 - (white - black) / 255
    ours = weather.fog(golden["image"], alpha, black / alpha)
    assert difference(ours, golden["fog/stage1_seed1234"]).max() <= 1


def test_second_stage_of_fog(golden):
    corners = golden["fog/stage2_haze_list"]
    ours = weather.haze(golden["image"], corners, golden["params"]["fc"])
    assert_array_equal(ours, golden["fog/stage2"])
