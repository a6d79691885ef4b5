"""Light and colour: darkening, harder contrast, and jitter of four properties of the colours.

The first two are the augmentation script's own of RobustSAM (Chen et al., CVPR 2024), the jitter
is albumentations 1.3.1 `ColorJitter`, which follows torchvision. Pictures are RGB uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from core.degradations.arrays import Picture, look_up, to_picture

JITTER_ORDER = (0, 1, 2, 3)  # brightness, contrast, saturation, hue
HALF_TURN = 180  # hues of OpenCV's uint8 HSV: two degrees a step
_STEPS = np.arange(256)


def brightness(image: Picture, factor: float) -> Picture:
    """Darken: I' = factor · I, decimals cut off; published 0.6 to 0.8."""
    return look_up(image, _STEPS * factor)


def contrast(image: Picture, factor: float) -> Picture:
    """Harden the contrast around mid grey: I' = factor · (I - 128) + 128; published 1.6 to 1.7."""
    return look_up(image, (_STEPS.astype(np.float32) - 128) * np.float32(factor) + 128)


def color_jitter(
    image: Picture,
    *,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
    order: Sequence[int] = JITTER_ORDER,
) -> Picture:
    """Change four properties of the colours one after the other.

    Args:
        brightness: factor b of b · I; 1 leaves the picture.
        contrast: factor c of c · I + (1 - c) · mean, the mean being the grey picture's.
        saturation: factor s of s · I + (1 - s) · grey.
        hue: turn h as a share of the colour circle, H' = H + 180 · h (mod 180) in uint8 HSV.
        order: a permutation of 0 to 3, in which the four are done.
    """
    steps = (
        lambda picture: _jitter_brightness(picture, brightness),
        lambda picture: _jitter_contrast(picture, contrast),
        lambda picture: _jitter_saturation(picture, saturation),
        lambda picture: _jitter_hue(picture, hue),
    )
    for index in order:
        image = steps[index](image)
    return image


def _jitter_brightness(image: Picture, factor: float) -> Picture:
    return image if factor == 1 else look_up(image, _STEPS * factor)


def _jitter_contrast(image: Picture, factor: float) -> Picture:
    if factor == 1:
        return image
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return look_up(image, _STEPS * factor + mean * (1 - factor))


def _jitter_saturation(image: Picture, factor: float) -> Picture:
    if factor == 1:
        return image
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, 0), np.uint8)


def _jitter_hue(image: Picture, turn: float) -> Picture:
    if turn == 0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    turned = np.mod(_STEPS + HALF_TURN * turn, HALF_TURN)
    hsv[..., 0] = look_up(np.ascontiguousarray(hsv[..., 0]), turned)
    return to_picture(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
