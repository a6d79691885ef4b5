"""Noise of sensors, and the over-exposure that the published script calls impulse noise.

Definitions of albumentations 1.3.1 (`GaussNoise`, `ISONoise`, `MultiplicativeNoise`), as the
augmentation script of RobustSAM (Chen et al., CVPR 2024) uses them. Pictures are RGB uint8
(H, W, 3). Every random field is an argument, so that a caller can repeat it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.arrays import Picture, Plane, Size, look_up, to_picture

_TABLE_BITS = 16


def gauss_noise(image: Picture, field: NDArray[np.float32]) -> Picture:
    """Add a field (H, W, 3) of grey levels: I' = I + n, n of variance 250 to 260 as published."""
    return to_picture(np.add(image, field, dtype=np.float32))


def gauss_field(
    size: tuple[int, ...], variance: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Draw normal noise of a variance in squared grey levels, independent in every value."""
    return random.standard_normal(size, np.float32) * np.float32(math.sqrt(variance))


def iso_noise(image: Picture, photons: NDArray[np.integer], hue_noise: Plane) -> Picture:
    """Lighten by photon counts and turn hues, as a sensor at high ISO does.

    In HLS with L in [0, 1]: L' = L + photons / 255 · (1 - L) and H' = H + hue_noise (mod 360).
    The published code brings H' back by one full turn at most, and converts to bytes without
    clipping, so that a value just above 255 wraps to 0: less than one pixel in a thousand.

    Args:
        photons: counts (H, W), Poisson of mean `photon_mean`.
        hue_noise: degrees (H, W).
    """
    hls = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HLS)  # H 0..360, L and S 0..1
    hue, lightness, saturation = cv2.split(hls)
    lightness += (photons / 255).astype(np.float32) * (1 - lightness)
    hue += hue_noise
    hue -= np.floor(hue / 360) * 360
    noisy = cv2.merge([hue, lightness, saturation])
    return to_picture(cv2.cvtColor(noisy, cv2.COLOR_HLS2RGB) * 255)


def photon_mean(image: Picture, intensity: float) -> float:
    """Mean of the photon counts: the deviation of lightness over the picture · intensity · 255."""
    channels = cv2.split(image)
    most = cv2.max(cv2.max(channels[0], channels[1]), channels[2]).astype(np.float32)
    least = cv2.min(cv2.min(channels[0], channels[1]), channels[2])
    return float(cv2.meanStdDev((most + least) / 510)[1][0, 0]) * intensity * 255


def photon_counts(size: Size, mean: float, random: np.random.Generator) -> NDArray[np.uint16]:
    """Draw Poisson counts (H, W), all of one mean, by looking 16 random bits up.

    As its mean is the same everywhere, the inverse distribution fits a table, which is several
    times as fast as a general Poisson generator; probabilities are exact to 2^-16.
    """
    if mean <= 0:
        return np.zeros(size, np.uint16)
    most = math.ceil(mean + 12 * math.sqrt(mean) + 12)
    logs = np.arange(most + 1) * math.log(mean) - mean - _log_factorials(most)
    ends = np.rint(np.cumsum(np.exp(logs)) * 2**_TABLE_BITS).astype(int)
    ends[-1] = 2**_TABLE_BITS
    table = np.repeat(np.arange(most + 1, dtype=np.uint16), np.diff(ends, prepend=0))
    return table[random.integers(0, 2**_TABLE_BITS, size, np.uint16)]


def _log_factorials(most: int) -> NDArray[np.float64]:
    """log(k!) for k = 0 to `most`."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])


def impulse_noise(image: Picture, multiplier: float) -> Picture:
    """Over-expose: I' = m · I for the whole picture, clipped; published m 1.4 to 1.5.

    The name is the published script's, whose arguments leave nothing random but this one number.
    """
    return look_up(image, np.arange(256, dtype=np.float32) * np.float32(multiplier))
