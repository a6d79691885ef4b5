"""Noise with a chosen spectrum, the texture of fog: imgaug 0.4 `FrequencyNoise`."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from core.degradations.arrays import Plane, Size, resize

LOWEST = 0.01  # imgaug scales to this and 1
LEAST_SIDE = 4


def frequency_noise(
    size: Size, exponent: float, max_side: int, random: np.random.Generator
) -> Plane:
    """Draw noise (H, W) in [0, 1] whose amplitudes fall with frequency as f^exponent.

    The inverse Fourier transform of a random spectrum: amplitude U(0, 1) · max(h, w)² · f^exponent
    and phase U(0, 2π); its real part, scaled to 0.01..1. f is the distance from the corner of the
    spectrum that holds frequency 0; the four corners themselves are 0.

    Args:
        max_side: longer side in pixels of the noise before it is scaled up (cubic) to the size;
            small values give large clouds.
    """
    scale = min(1.0, max_side / max(size))
    small = max(int(size[0] * scale), LEAST_SIDE), max(int(size[1] * scale), LEAST_SIDE)
    draws = random.random((2, *small), np.float32)
    amplitude = draws[0] * np.exp(np.float32(exponent) * _log_frequency(small))
    amplitude *= np.float32(max(small) ** 2)
    phase = draws[1] * np.float32(2 * math.pi)
    noise = np.array(cv2.idft(cv2.merge(cv2.polarToCart(amplitude, phase)))[..., 0], np.float32)
    cv2.normalize(noise, noise, LOWEST, 1, cv2.NORM_MINMAX)
    return np.clip(resize(noise, size, cv2.INTER_CUBIC), 0, 1)


@lru_cache(maxsize=8)
def _log_frequency(size: Size) -> Plane:
    """log f (h, w); +inf in the corners, so that any negative exponent makes them 0."""
    squares = [_distances(side).astype(np.float32) ** 2 for side in size]
    squared = squares[0][:, None] + squares[1]
    squared[squared == 0] = np.inf
    return np.asarray(0.5 * np.log(squared), np.float32)


def _distances(side: int) -> np.ndarray:
    """0, 1, …, 1, 0: steps from the nearer end."""
    steps = np.arange(side)
    return np.minimum(steps, steps[::-1])
