"""The random fields and fast ways of noise, blur and geometry, against plain definitions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, stats

from core.degradations import blur, geometry, noise
from core.degradations.compression import compression
from core.degradations.filtering import correlate


def test_gauss_field_has_its_variance():
    field = noise.gauss_field((100, 100, 3), 255, np.random.default_rng(0))
    assert field.var() == pytest.approx(255, rel=0.03)
    assert abs(field.mean()) < 0.3


@pytest.mark.parametrize("mean", [0.3, 5, 40, 180])
def test_photon_counts_are_poisson(mean):
    counts = noise.photon_counts((300, 300), mean, np.random.default_rng(0))
    assert counts.mean() == pytest.approx(mean, rel=0.02)
    assert counts.var() == pytest.approx(mean, rel=0.03)
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(counts, quantile) == stats.poisson.ppf(quantile, mean)


def test_no_photons_in_a_flat_picture():
    flat = np.full((8, 8, 3), 90, np.uint8)
    assert noise.photon_mean(flat, 0.8) == pytest.approx(0, abs=1e-4)
    assert not noise.photon_counts((8, 8), 0, np.random.default_rng(0)).any()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(0, 99))
def test_correlation_is_opencv_s(height, width, half, seed):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    kernel = blur.centred_line_kernel(2 * half + 1, random.uniform(0, 3))
    ours = correlate(image, kernel).astype(int)
    assert np.abs(ours - cv2.filter2D(image, -1, kernel)).max() <= 1


@given(st.floats(1, 60), st.floats(0, 7))
def test_line_is_centred_and_as_long_as_asked_for(length, angle):
    kernel = blur.centred_line_kernel(length, angle)
    reach = len(kernel) // 2
    assert len(kernel) % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert (kernel * x).sum() == pytest.approx(0, abs=0.02)
    assert (kernel * y).sum() == pytest.approx(0, abs=0.02)
    if length > 4:
        deviation = np.sqrt((kernel * (x**2 + y**2)).sum())
        assert deviation == pytest.approx((length - 1) / 12**0.5, rel=0.2, abs=0.5)


def test_shortest_line_leaves_the_picture():
    assert_array_equal(blur.centred_line_kernel(1, 0.3), [[1]])


@pytest.mark.parametrize("reach", [0, 1, 1.5, 3])
def test_glass_offsets_are_uniform(reach):
    offsets = blur.glass_offsets((200, 200), reach, np.random.default_rng(0))
    values, counts = np.unique(offsets, return_counts=True)
    outermost = int(np.ceil(reach))
    assert_array_equal(values, np.arange(-outermost, outermost + 1))
    shares = counts / counts.sum()
    assert_allclose(shares[1:-1], 1 / (2 * reach + 1), rtol=0.05)
    if reach == 1.5:
        assert_allclose(shares[[0, -1]], 1 / 8, rtol=0.05)


def test_glass_reads_the_neighbour():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1).repeat(3, axis=2)
    offsets = np.zeros((3, 4, 2), int)
    offsets[1, 1] = 1, -1  # one to the right, one up
    offsets[2, 3] = 5, 5  # beyond the corner
    assert blur.frosted_glass_blur(image, offsets)[1, 1, 0] == 2
    assert blur.frosted_glass_blur(image, offsets)[2, 3, 0] == 11


def test_smoothing_is_scipy_s():
    field = np.random.default_rng(0).random((50, 70), np.float32)
    for sigma in (2.5, 10):
        expected = ndimage.gaussian_filter(field.astype(np.float64), sigma)
        assert_allclose(geometry.smooth(field, sigma), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [4, 10, 30])
def test_coarse_noise_is_as_strong_and_as_smooth(sigma):
    """Deviation (U(-1, 1) has 1/√3, a Gaussian keeps 1/(2 √π sigma)), and correlation length."""
    fields = np.stack(
        [
            geometry.smooth_noise((400, 400), sigma, np.random.default_rng(seed))[80:-80, 80:-80]
            for seed in range(6)
        ]
    )
    expected = 1 / np.sqrt(3) / (2 * np.sqrt(np.pi) * sigma)
    assert fields.std() == pytest.approx(expected, rel=0.2)
    lagged = np.mean(fields[:, :, 2 * sigma :] * fields[:, :, : -2 * sigma]) / fields.var()
    assert lagged == pytest.approx(np.exp(-1), abs=0.2)  # exp(-d²/4σ²) at d = 2σ


def test_affine_matrix_moves_its_points():
    offsets = np.array([[1, 2], [-3, 0], [0, 4.0]])
    matrix = geometry.affine_matrix((96, 128), offsets)
    centre, reach = np.array([48, 64]), 32
    for corner, offset in zip([(1, 1), (1, -1), (-1, -1)], offsets, strict=True):
        point = centre + reach * np.array(corner)
        assert_allclose(matrix @ [*point, 1], point + offset, atol=1e-4)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 50))
def test_tiny_pictures_are_not_turned_inside_out(height, width, seed):
    offsets = np.random.default_rng(seed).uniform(-5, 5, (3, 2))
    matrix = geometry.affine_matrix((height, width), offsets)
    assert np.isfinite(matrix).all()
    assert np.linalg.det(matrix[:, :2]) > 0.2


def test_red_and_blue_are_swapped_only_on_request(small_photos):
    image = small_photos[1]
    proper, swapped = (compression(image, 8, swap_red_blue=swap) for swap in (False, True))
    assert np.abs(proper.astype(int) - swapped).max() > 20
    turned = compression(image[..., ::-1].copy(), 8)[..., ::-1]
    assert_array_equal(swapped, turned)
