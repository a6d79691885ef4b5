"""How strong every degradation is: the published ranges, and five severities.

The published augmentation script of RobustSAM (Chen et al., CVPR 2024) has one range for each
parameter and no severities. The levels here are this suite's own: 1 is mild, 3 about as strong as
published, 5 harsh, with the object still to be recognised by eye.

The published numbers of pixels belong to photographs of about 400 to 640 pixels. At a severity,
lengths (names ending in _px) are meant at a longer side of `REFERENCE_SIDE` and scale with the
picture, so that a level looks alike at 256 and at 2048 pixels; areas (_px2) scale with its
square. Below `SMALLEST_SIDE` they stay, since blurs of less than a pixel would do nothing. The
published ranges are raw pixels at every size, as in the script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SIDE, SMALLEST_SIDE = 512, 256  # px


@dataclass(frozen=True)
class Between:
    """Any number of an interval, uniformly."""

    low: float
    high: float

    def pick(self, random: np.random.Generator) -> float:
        return float(random.uniform(self.low, self.high))


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included, uniformly."""

    low: int
    high: int

    def pick(self, random: np.random.Generator) -> int:
        return int(random.integers(self.low, self.high, endpoint=True))


@dataclass(frozen=True)
class Odd:
    """An odd number from `low` to `high`, both included, uniformly."""

    low: int
    high: int

    def pick(self, random: np.random.Generator) -> int:
        return int(random.choice(np.arange(self.low, self.high + 1, 2)))


@dataclass(frozen=True)
class Either:
    """One of two numbers: as much less as more."""

    low: float
    high: float

    def pick(self, random: np.random.Generator) -> float:
        return self.high if random.random() < 0.5 else self.low


Choice = float | Between | Whole | Odd | Either
Row = tuple[Choice, Choice, Choice, Choice, Choice, Choice]  # published, severity 1 to 5


def _always(choice: Choice) -> Row:
    return (choice,) * 6


def _around(centre: float, published: Choice, *deviations: float) -> Row:
    one, two, three, four, five = (Either(centre - d, centre + d) for d in deviations)
    return published, one, two, three, four, five


# fmt: off
LEVELS: Mapping[str, Mapping[str, Row]] = {
    # parameter                  published          1     2     3     4     5
    "clear": {},
    "snow": {
        "layers":               (Whole(1, 3),       1,    1,    2,    2,    3),
        "density":              (0.35,              0.10, 0.22, 0.25, 0.35, 0.33),
        "density_uniformity":    _always(Between(0.3, 0.9)),
        "flake_size":            _always(Between(0.6, 0.8)),
        "flake_size_uniformity": _always(Between(0.4, 0.8)),
        "blur_fraction":         _always(Between(0.0001, 0.001)),
        "speed":                 _always(Between(0.01, 0.015)),
    },
    "fog": {
        "density":              (Between(0.4, 0.9), 0.25, 0.45, 0.65, 0.78, 0.88),
        "intensity":             _always(Between(220, 255)),
        "intensity_exponent":    _always(Between(-2.0, -1.5)),
        "least_alpha":           _always(Between(0.7, 0.9)),
        "alpha_exponent":        _always(Between(-4.0, -2.0)),
        "cloud_cells":           _always(Whole(2, 8)),
        "haze":                  _always(Between(0.1, 0.2)),
    },
    "rain": {
        "layers":               (Whole(1, 3),         1,    2,    2,    3,    3),
        "density":              (Between(0.03, 0.14), 0.04, 0.06, 0.10, 0.13, 0.16),
        "opacity":              (1.3,                 1.3,  1.3,  1.3,  1.7,  2.1),
        "density_uniformity":    _always(Between(0.8, 1.0)),
        "drop_size":             _always(Between(0.40, 0.50)),
        "angle":                 _always(Between(-15, 15)),
        "speed":                 _always(Between(0.05, 0.1)),
    },
    "gauss_noise": {
        "variance":             (Between(250, 260), 50,   120,  255,  700,  1800),
    },
    "ISO_noise": {
        "color_shift":          (Between(0.4, 0.5), 0.05, 0.15, 0.40, 0.50, 0.60),
        "intensity":            (Between(0.7, 0.8), 0.20, 0.45, 0.75, 1.40, 2.20),
    },
    "impulse_noise": {
        "multiplier":           (Between(1.4, 1.5), 1.15, 1.30, 1.45, 1.90, 2.70),
    },
    "resampling_blur": {
        "factor_px":            (4,                 2.5,  3.2,  4.2,  7,    12),
    },
    "motion_blur": {
        # Published: the kernel's side, with a random line in it; else the line's length.
        "length_px":            (Odd(3, 35),        5,    9,    15,   25,   42),
    },
    "zoom_blur": {
        "largest":              (Between(1, 1.33),  1.04, 1.09, 1.16, 1.30, 1.50),
        "step":                 (Between(0.05, 0.07), 0.02, 0.03, 0.04, 0.05, 0.05),
    },
    "color_jitter": {
        "brightness":            _around(1, Between(0.3, 1.7), 0.10, 0.20, 0.35, 0.50, 0.65),
        "contrast":              _around(1, Between(0.7, 1.3), 0.05, 0.10, 0.15, 0.25, 0.40),
        "saturation":            _around(1, Between(0.3, 1.7), 0.10, 0.20, 0.35, 0.55, 0.80),
        "hue":                   _around(0, Between(-0.7, 0.7), 0.03, 0.08, 0.20, 0.35, 0.50),
    },
    "compression": {
        "quality":              (Whole(5, 10),      30,   15,   8,    5,    3),
    },
    "elastic_transform": {
        "alpha_px2":            (100,               30,   60,   100,  180,  300),
        "sigma_px":              _always(10),
        "affine_px":            (5,                 2,    4,    5,    10,   16),
    },
    "frosted_glass_blur": {
        "reach_px":             (3,                 1,    2,    3,    5.5,  10),
    },
    "brightness": {
        "factor":               (Between(0.6, 0.8), 0.90, 0.80, 0.70, 0.40, 0.15),
    },
    "contrast": {
        "factor":               (Between(1.6, 1.7), 1.20, 1.40, 1.65, 2.40, 4.00),
    },
}
# fmt: on
