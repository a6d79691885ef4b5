"""A guess of what is wrong with a picture, from plain statistics and without any model.

Nine measures, each with a threshold. They were set on twelve clear photographs (the suite's
examples) and their degraded versions: where possible above what every clear picture has, and
below what severity 3 has. They see what light, noise, blur and compression do to all pictures
alike; colours that are merely wrong, bent shapes and thin rain they cannot see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.arrays import Picture, Plane, check_image
from core.images import fit_within

Grey = NDArray[np.uint8]

_VIEW_SIDE = 512  # px, longer side at which edges are measured
_HAZE_SIDE, _HAZE_PATCH = 256, 9  # px
_CROP_SIDE = 1024  # px of the middle, enough for noise and blocks
_LEAST_SIDE = 24  # px; smaller pictures have no measurable edges, noise or blocks

_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_NOISE_GAIN = 6.0  # deviation that this mask makes of white noise of deviation 1
_MEDIAN_OF_NORMAL = 0.6745  # median of |n| for a standard normal n

_EDGE_SHARE = 0.05  # the steepest pixels count as edges
_LEAST_SLOPE = 3.0  # grey levels per pixel
_DIRECTIONS = 4
_DIRECTION_SHARE = 0.002  # of all pixels, for a direction to count
_SHARPEST = 0.25  # quantile of the edges' widths
_INNER_SIGMA, _OUTER_SIGMA = 1.0, 1.5

_WHITE = 250
_SPECKS_OF_WHITE = 0.4
_CLIPPED_SPIKE = 1.2  # pixels at 255 over those at 236 to 254; a bright sky has about 1


@dataclass(frozen=True)
class Finding:
    """Something that seems wrong with a picture.

    Args:
        name: "specks", "haze", "low_light", "hard_contrast", "over_exposure", "low_contrast",
            "noise", "blur" or "compression".
        words: a sentence for a visitor.
        strength: 0 just above the threshold, 1 severe.
        value: what was measured.
        unit: of the value.
        resembles: degradations that look like this.
    """

    name: str
    words: str
    strength: float
    value: float
    unit: str
    resembles: tuple[str, ...]


@dataclass(frozen=True)
class _Check:
    """How one fault is measured; from `threshold` (strength 0) to `severe` (strength 1)."""

    measure: Callable[[_Views], float]
    threshold: float
    severe: float
    unit: str
    words: str
    resembles: tuple[str, ...]

    def strength(self, value: float) -> float:
        share = (value - self.threshold) / (self.severe - self.threshold)
        return float(np.clip(share, 0, 1))


class _Views:
    """A picture RGB uint8 (H, W, 3) in the forms that the measures need, made when first used."""

    def __init__(self, image: Picture) -> None:
        self.image = image
        self.measurable = min(image.shape[:2]) >= _LEAST_SIDE

    @cached_property
    def grey(self) -> Grey:
        return np.asarray(cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY), np.uint8)

    @cached_property
    def small(self) -> Plane:
        return fit_within(self.grey, _VIEW_SIDE).astype(np.float32)

    @cached_property
    def middle(self) -> Plane:
        """Grey levels of the middle, from a multiple of eight pixels on."""
        top, left = (max(0, (side - _CROP_SIDE) // 16 * 8) for side in self.grey.shape)
        return self.grey[top : top + _CROP_SIDE, left : left + _CROP_SIDE].astype(np.float32)

    @cached_property
    def clipped_white(self) -> float:
        """Share of pixels with a channel at 255, if they stand out as a spike, else 0."""
        counts = np.bincount(self.image.max(axis=2).ravel(), minlength=256)
        if counts[255] < _CLIPPED_SPIKE * counts[236:255].sum():
            return 0.0
        return float(counts[255] / counts.sum())

    @cached_property
    def black(self) -> float:
        """Share of pixels with all channels at 0."""
        return float(np.mean(self.image.max(axis=2) == 0))


def guess(image: Picture) -> list[Finding]:
    """Say what seems wrong with a picture, the strongest first; nothing if it looks fine.

    Args:
        image: RGB uint8 (H, W, 3), best at its original size: scaling hides noise and blocks.

    Raises:
        ImageError: not such a picture.
    """
    findings: dict[str, Finding] = {}
    for name, value in measure(image).items():
        check = _CHECKS[name]
        strength = check.strength(value)
        if strength > 0 and not _EXPLAINED_BY.get(name, set()) & findings.keys():
            findings[name] = Finding(
                name, check.words, strength, value, check.unit, check.resembles
            )
    return sorted(findings.values(), key=lambda finding: -finding.strength)


def measure(image: Picture) -> dict[str, float]:
    """Return every measure by the name of its finding, whether or not it is out of the ordinary.

    Raises:
        ImageError: not an RGB uint8 picture (H, W, 3).
    """
    views = _Views(check_image(image))
    return {name: round(check.measure(views), 4) for name, check in _CHECKS.items()}


def _edge_width(views: _Views) -> float:
    """Gaussian sigma, px at 512 px, that the sharpest edges seem blurred with; 0 if sharp.

    An edge blurred by s and blurred again by t loses slope by R = sqrt(s² + t²) / s, so that
    s = t / sqrt(R² - 1) (Zhuo and Sim, "Defocus map estimation from a single image", 2011). It is
    taken at the steepest pixels, of which the sharper quarter counts, as a blurred background is
    no fault; and in the blurriest of four directions, as motion leaves edges along it sharp.
    """
    if not views.measurable:
        return 0.0
    # Slopes are compared after a first blur, which is taken out again: it tames single pixels.
    inner = _blurred(views.small, _INNER_SIGMA)
    outer = _blurred(inner, _OUTER_SIGMA)
    (inner_x, inner_y), (outer_x, outer_y) = _slopes(inner), _slopes(outer)
    slope = cv2.magnitude(inner_x, inner_y)
    steep = slope >= max(float(np.quantile(slope, 1 - _EDGE_SHARE)), _LEAST_SLOPE)
    slope = slope[steep]
    ratio = slope / np.maximum(cv2.magnitude(outer_x, outer_y)[steep], 1e-3)
    total = _OUTER_SIGMA / np.sqrt(np.maximum(ratio**2 - 1, 1e-2))
    sigma = np.sqrt(np.maximum(total**2 - _INNER_SIGMA**2, 0))
    angle = np.arctan2(inner_y[steep], inner_x[steep]) / np.pi * _DIRECTIONS
    direction = np.rint(angle).astype(int) % _DIRECTIONS
    groups = [sigma[direction == d] for d in range(_DIRECTIONS)]
    enough = _DIRECTION_SHARE * views.small.size
    return max(
        (float(np.quantile(group, _SHARPEST)) for group in groups if len(group) > enough),
        default=0.0,
    )


def _blurred(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _slopes(plane: Plane) -> tuple[Plane, Plane]:
    """Sobel's derivatives by x and y in levels per pixel."""
    x, y = (cv2.Sobel(plane, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _noise_deviation(views: _Views) -> float:
    """Deviation of the noise in grey levels.

    Immerkaer, "Fast noise variance estimation" (1996): a mask that cancels smooth image parts,
    here by its median over the flatter half of the pixels that are neither nearly black nor nearly
    white, so that texture and clipping count less.
    """
    if not views.measurable:
        return 0.0
    plane = views.middle
    response = np.abs(cv2.filter2D(plane, -1, _NOISE_MASK))
    usable = (plane > 16) & (plane < 239)
    if np.count_nonzero(usable) < 100:
        usable = np.ones_like(usable)
    slope = cv2.magnitude(*_slopes(plane))
    flat = usable & (slope <= np.median(slope[usable]))
    return float(np.median(response[flat])) / _MEDIAN_OF_NORMAL / _NOISE_GAIN


def _speck_share(views: _Views) -> float:
    """Per cent of pixels in white spots smaller than 1/40 of the longer side, if most white is.

    What an opening of the white pixels takes away.
    """
    white = (views.image.min(axis=2) >= _WHITE).astype(np.uint8)
    side = max(3, max(white.shape) // 40)
    large = cv2.morphologyEx(white, cv2.MORPH_OPEN, np.ones((side, side), np.uint8))
    total, small = float(white.mean()), float(white.mean() - large.mean())
    return 100 * small if small > _SPECKS_OF_WHITE * total else 0.0


def _brightest_level(views: _Views) -> float:
    """99th percentile of the grey levels."""
    return float(np.percentile(views.grey, 99))


def _white_share(views: _Views) -> float:
    """Per cent of pixels that are clipped at white."""
    return 100 * views.clipped_white


def _clipped_share(views: _Views) -> float:
    """Per cent of pixels that are clipped at white or black, if both occur."""
    both = views.clipped_white > 0.01 and views.black > 0.02
    return 100 * (views.clipped_white + views.black) if both else 0.0


def _darkest_patch(views: _Views) -> float:
    """5th percentile of the dark channel in grey levels.

    The dark channel is the least value of all channels in a patch, nearly 0 somewhere in any
    clear picture, and as bright as the haze in a hazy one (He, Sun and Tang, "Single image haze
    removal using dark channel prior", 2009).
    """
    least = fit_within(views.image, _HAZE_SIDE).min(axis=2)
    patch = np.ones((_HAZE_PATCH, _HAZE_PATCH), np.uint8)
    return float(np.percentile(cv2.erode(least, patch), 5))


def _tonal_range(views: _Views) -> float:
    """Grey levels between the 5th and the 95th percentile."""
    low, high = np.percentile(views.grey, (5, 95))
    return float(high - low)


def _block_steps(views: _Views) -> float:
    """How much larger the steps at every eighth pixel are than at the next largest, 1 = none.

    The lesser of rows and columns; found at any offset of the grid, so in cropped pictures too.
    """
    if not views.measurable:
        return 1.0
    return min(_eighth_steps(views.middle), _eighth_steps(views.middle.T))


def _eighth_steps(plane: Plane) -> float:
    steps = np.abs(np.diff(plane, axis=1)).mean(axis=0)
    steps = steps[: len(steps) // 8 * 8].reshape(-1, 8).mean(axis=0)  # by position in the block
    second, first = np.sort(steps)[-2:]
    return float(first / max(second, 0.05))


# What explains another finding stands before it.
_CHECKS = {
    "specks": _Check(
        _speck_share,
        10,
        45,
        "% of pixels in small white spots",
        "The picture seems full of white specks, such as snowflakes.",
        ("snow",),
    ),
    "haze": _Check(
        _darkest_patch,
        64,
        200,
        "grey level (5th percentile of the dark channel)",
        "The picture seems hazy: nothing in it is dark.",
        ("fog", "rain"),
    ),
    "low_light": _Check(
        _brightest_level,
        150,
        40,
        "grey level (99th percentile)",
        "The picture seems dark.",
        ("brightness",),
    ),
    "hard_contrast": _Check(
        _clipped_share,
        5,
        60,
        "% of pixels clipped at black or white",
        "The contrast seems too hard: black and white parts have lost their detail.",
        ("contrast",),
    ),
    "over_exposure": _Check(
        _white_share,
        5,
        60,
        "% of pixels clipped at white",
        "The picture seems over-exposed.",
        ("impulse_noise",),
    ),
    "low_contrast": _Check(
        _tonal_range,
        60,
        20,
        "grey levels between the 5th and 95th percentile",
        "The picture seems flat: it has little contrast.",
        ("fog",),
    ),
    "noise": _Check(
        _noise_deviation,
        7,
        30,
        "grey levels (standard deviation)",
        "The picture seems noisy.",
        ("gauss_noise", "ISO_noise", "frosted_glass_blur"),
    ),
    "blur": _Check(
        _edge_width,
        1.2,
        3.5,
        "px (sigma of the edges at 512 px)",
        "The picture seems blurred or of low resolution.",
        ("resampling_blur", "motion_blur", "zoom_blur"),
    ),
    "compression": _Check(
        _block_steps,
        1.6,
        5,
        "times larger steps at the borders of blocks",
        "The picture seems strongly compressed: it shows blocks of eight pixels.",
        ("compression",),
    ),
}
# A finding that another one accounts for is left out.
_EXPLAINED_BY = {
    "low_light": {"haze"},
    "hard_contrast": {"specks"},
    "over_exposure": {"specks", "hard_contrast"},
    "low_contrast": {"low_light"},
    "noise": {"specks"},
}
