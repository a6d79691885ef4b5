"""Snow, fog and rain. Pictures are RGB uint8 (H, W, 3).

Definitions of imgaug 0.4 (`Snowflakes`, `Fog`, `Rain`) and albumentations 1.3.1 (`RandomSnow`,
`RandomFog`), as the augmentation script of RobustSAM (Chen et al., CVPR 2024) uses them. What is
random is drawn by one function and laid over the picture by another, so that it can be repeated.

The published script builds its fog anew from the fixed seed 1234 for every picture, so that all
pictures of a size get the same fog, which a model can learn by heart. That pattern hangs on
imgaug's generator and is not reproduced; here fog follows the seed like everything else.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.arrays import Picture, Plane, Size, look_up, resize, to_picture
from core.degradations.filtering import correlate
from core.degradations.frequency import frequency_noise

HAZE_OPACITY = 0.08  # of one haze circle, times the fog coefficient
DROP_GREY = 240.0
_GATE = 8, 8  # cells that make flakes and drops denser in some places
_COARSE_FOG = 8, 8
_FLAKE_SIGMA = 0.5, 3.75  # px, limits of the flakes' blur


def falling_grains(
    size: Size,
    random: np.random.Generator,
    *,
    density: float,
    density_uniformity: float,
    grain_px: float,
) -> NDArray[np.uint8]:
    """Draw the bright specks (H, W) that flakes and drops are made of.

    Salt noise on a small canvas, brightness 255 · (1/2 + |Beta(1/2, 1/2) - 1/2|), thinned out by
    8 x 8 cells of Beta(1, 1 - density_uniformity), and enlarged by cubic interpolation.

    Args:
        density: chance of a speck per pixel of the canvas.
        density_uniformity: 1 is even everywhere, 0 patchy.
        grain_px: side of a speck in pixels, at least 1 (imgaug: 1 / (1 - flake_size)).
    """
    canvas = max(1, int(size[0] / grain_px)), max(1, int(size[1] / grain_px))
    # Beta(1/2, 1/2) is the arcsine law (1 - cos πu) / 2, so its distance from 1/2 is |cos πu| / 2.
    salt = np.float32(127.5) + np.float32(127.5) * np.abs(
        np.cos(random.random(canvas, np.float32) * np.float32(math.pi))
    )
    salt *= random.random(canvas, np.float32) < density
    # Beta(1, b) by its inverse distribution 1 - (1 - u)^(1 / b); b = 0 is always 1.
    gate = 1 - random.random(_GATE) ** (1 / max(1 - density_uniformity, 1e-6))
    gate = np.clip(resize(gate.astype(np.float32), canvas, cv2.INTER_CUBIC), 0, 1)
    return np.asarray(resize(to_picture(salt * gate), size, cv2.INTER_CUBIC), np.uint8)


def fall(grains: NDArray[np.uint8], speed: float, angle: float) -> NDArray[np.uint8]:
    """Draw specks (H, W) out along the way they fall.

    Args:
        speed: way during the exposure as a share of the longer side.
        angle: degrees from the vertical.
    """
    length = int(speed * max(grains.shape))
    if length <= 1:
        return grains
    return correlate(grains, fading_kernel(max(length, 3), angle))


def fading_kernel(length: int, angle: float) -> Plane:
    """A vertical line of weights from 1 to 0, turned by degrees, (k, k) of sum 1, k odd.

    imgaug `MotionBlur` of direction 1.
    """
    side = length | 1
    kernel = np.zeros((side, side), np.float32)
    kernel[:, side // 2] = np.linspace(1, 0, side)
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), -angle, 1)
    turned = cv2.warpAffine(kernel, turn, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(turned / turned.sum(dtype=np.float32), np.float32)


def hls_round_trip(image: Picture) -> Picture:
    """Convert to uint8 HLS and back, which loses a few levels.

    All that is left of `RandomSnow` at the published brightness coefficient 1.
    """
    return np.asarray(
        cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2HLS), cv2.COLOR_HLS2RGB), np.uint8
    )


def snow_layer(
    image: Picture, flakes: NDArray[np.uint8], *, flake_size_uniformity: float, speed: float
) -> Picture:
    """Lay one layer of flakes (H, W) over a picture.

    With r = 1 - flake_size_uniformity and speed v the flakes F (in [0, 1]) become
    G = 255 · F^(1 + 2r) · (1 + 5r), then I' = max(I + (0.1 + 20v) G, (1 + 20v) G), cut to bytes
    after each step.
    """
    rest = 1 - flake_size_uniformity
    gamma = to_picture(255 * np.linspace(0, 1, 256, dtype=np.float32) ** np.float32(1 + 2 * rest))
    gained = gamma * (1 + 5 * rest)
    added = cv2.cvtColor(look_up(flakes, (0.1 + 20 * speed) * gained), cv2.COLOR_GRAY2RGB)
    least = cv2.cvtColor(look_up(flakes, (1 + 20 * speed) * gained), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.max(cv2.add(image, added), least), np.uint8)


def snow_flakes(
    grains: NDArray[np.uint8], *, blur_fraction: float, speed: float
) -> NDArray[np.uint8]:
    """Make specks (H, W) flakes: out of focus, falling straight down.

    Args:
        blur_fraction: sigma of the blur as a share of the longer side, kept in 0.5 to 3.75 px.
    """
    sigma = float(np.clip(max(grains.shape) * blur_fraction, *_FLAKE_SIGMA))
    return fall(np.asarray(cv2.GaussianBlur(grains, (0, 0), sigma), np.uint8), speed, 0)


def rain_layer(
    image: Picture, drops: NDArray[np.uint8], *, grey: float = DROP_GREY, opacity: float = 1.3
) -> Picture:
    """Blend drops (H, W) into a picture: I' = (1 - a) I + a · grey.

    With a = min(opacity · drops / 255, 1), published opacity 1.3.
    """
    alpha = np.minimum(drops * np.float32(opacity / 255), 1)[..., None]
    return to_picture(image + alpha * (np.float32(grey) - image))


def published_drop_grey(drops: NDArray[np.uint8]) -> float:
    """imgaug's grey of the drops: 110 + 130 mod S, S the sum of the map's first 1000 values (RGB).

    Mostly 240, and as dark as 110 when the picture's top happens to be dry.
    """
    start = np.repeat(drops.ravel()[:334], 3)[:1000]
    return 110.0 + 130 % max(1, int(start.sum()))


def fog(image: Picture, alpha: Plane, intensity: Plane) -> Picture:
    """Blend fog into a picture: I' = (1 - a) I + a · intensity.

    Args:
        alpha: opacity (H, W) in [0, 1].
        intensity: the fog's brightness (H, W) in grey levels, clipped to [0, 255].
    """
    intensity = np.clip(intensity, 0, 255)
    return to_picture((1 - alpha)[..., None] * image + (alpha * intensity)[..., None])


def fog_intensity(
    size: Size, random: np.random.Generator, *, mean: float, exponent: float, max_side: int
) -> Plane:
    """Draw the fog's brightness (H, W) in grey levels.

    m + Normal(0, 2) on 8 x 8 cells, plus m (2n - 1) / 5 with n frequency noise.
    """
    cells = mean + 2 * random.standard_normal(_COARSE_FOG, np.float32)
    coarse = resize(cells.astype(np.float32), size, cv2.INTER_CUBIC)
    fine = frequency_noise(size, exponent, max_side, random)
    return np.asarray(coarse + np.float32(mean) * (2 * fine - 1) / 5, np.float32)


def fog_alpha(
    size: Size,
    random: np.random.Generator,
    *,
    least: float,
    exponent: float,
    max_side: int,
    density: float,
) -> Plane:
    """Draw the fog's opacity (H, W): clip((least + 0.3 n)^0.9 · density), n frequency noise."""
    noise = frequency_noise(size, exponent, max_side, random)
    return np.clip((least + np.float32(0.3) * noise) ** np.float32(0.9) * np.float32(density), 0, 1)


def haze(image: Picture, corners: NDArray[np.integer], coefficient: float) -> Picture:
    """Lay faint white discs over a picture, then blur it by a tenth of their size.

    `RandomFog`: disc side h = max(int(W // 3 · coefficient), 10), opacity 0.08 · coefficient.

    Args:
        corners: whole pixels (N, 2) as (x, y), the discs' top left; may lie outside.
        coefficient: published 0.1 to 0.2.
    """
    side = max(int(image.shape[1] // 3 * coefficient), 10)
    radius = side // 2
    opacity = HAZE_OPACITY * coefficient
    picture = image.copy()
    for x, y in corners.tolist():
        rows = slice(max(y, 0), max(y + 2 * radius + 1, 0))
        columns = slice(max(x, 0), max(x + 2 * radius + 1, 0))
        region = picture[rows, columns]
        if region.size:
            centre = x + radius - columns.start, y + radius - rows.start
            disc = cv2.circle(region.copy(), centre, radius, (255, 255, 255), -1)
            region[:] = cv2.addWeighted(disc, opacity, region, 1 - opacity, 0)
    return picture if side < 20 else np.asarray(cv2.blur(picture, (side // 10,) * 2), np.uint8)


def haze_corners(
    size: Size, coefficient: float, random: np.random.Generator
) -> NDArray[np.integer]:
    """Draw the discs of `haze` (N, 2) as (x, y), in growing numbers from the middle outwards.

    None at all if the disc's side int(W // 3 · coefficient) is below 10 px, so in pictures less
    than 150 px wide.
    """
    height, width = size
    side = max(1, int(width // 3 * coefficient))
    x, y = width // 2 - 2 * side, height // 2 - side
    # At least a pixel inwards each time, where the published loop may never end.
    step_x = max(1, 3 * side * width // (height + width))
    step_y = max(1, 3 * side * height // (height + width))
    corners = [np.zeros((0, 2), np.int64)]
    index = 1
    while x > -side or y > -side:
        low, high = (x, y), (width - x - side, height - y - side)
        corners.append(random.integers(low, high, (side // 10 * index, 2), endpoint=True))
        x, y, index = x - step_x, y - step_y, index + 1
    return np.concatenate(corners)
