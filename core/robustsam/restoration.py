"""A bad picture made better without any model: the alternative to RobustSAM, and its partner.

``restore`` is what a user would otherwise do before SAM: classical tools of OpenCV, chosen by what
``core.degradations.guess`` finds. ``deblur`` undoes a known blur and takes masks as a prior, as
RobustSAM's paper (section 4.4) puts its masks into restoration networks: they say where colours
may jump. Pictures are RGB uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.guess import Finding, guess, measure
from core.errors import ImageError

Image = NDArray[np.uint8]
Planes = NDArray[np.float32]  # (channels, H, W)
Spectrum = NDArray[np.complexfloating]

REFERENCE_SIDE = 256  # px, longer side at which a snowflake is taken to be 3 px
NLM_PATCH, NLM_SEARCH = 7, 15  # px; OpenCV's default search of 21 takes twice as long
NLM_STRENGTH = 0.9  # of the noise's grey deviation; where the error was least on sticker scenes
BLUR_VIEW = 512  # px, longer side at which the blur is measured

# Weight of jumps near a mask's border, and how near, as a share of the longer side. Masks of a
# model miss the true border by a pixel or two, so a sharp line without any weight would do harm.
BORDER_WEIGHT = 0.4
BORDER_REACH = 1 / 128
# Data term over smoothness, times the noise's grey deviation in [0, 1]; where the error was least.
FIDELITY = 1.27
SMEARED_BORDER = 1 / 8  # of the kernel's side: how far in the border is blended with the seam
PENALTIES = tuple(2.0**k for k in range(9))  # continuation of Wang et al.


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored picture, and what was done to it, in order."""

    image: Image
    steps: tuple[str, ...]


def restore(image: Image) -> Restored:
    """Restore a picture by what seems to be wrong with it; a good one stays as it is.

    Opening against white specks, non-local means against noise, a bilateral filter against
    blocks, stretched levels for dark pictures, with CLAHE for hazy and flat ones, and unsharp
    masking against blur. Clipped levels cannot be brought back.

    Raises:
        ImageError: not RGB uint8 (H, W, 3).
    """
    found = {finding.name: finding for finding in guess(image)}
    steps = []
    for name, (words, step) in _STEPS.items():
        if name in found:
            image = step(image, found[name])
            steps.append(words)
        if name == "haze":  # the same remedy
            found.pop("low_contrast", None)
    return Restored(np.ascontiguousarray(image), tuple(steps))


def _open(image: Image, finding: Finding) -> Image:
    side = 2 * max(1, round(max(image.shape[:2]) / REFERENCE_SIDE)) + 1
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_OPEN, np.ones((side, side), np.uint8)))


def _denoise(image: Image, finding: Finding) -> Image:
    strength = NLM_STRENGTH * finding.value
    return np.asarray(
        cv2.fastNlMeansDenoisingColored(image, None, strength, strength, NLM_PATCH, NLM_SEARCH)
    )


def _deblock(image: Image, finding: Finding) -> Image:
    return np.asarray(cv2.bilateralFilter(image, 7, 40, 7))


def _stretch(image: Image, finding: Finding) -> Image:
    """Bring the 1st and 99th percentile of all values to black and white."""
    low, high = np.percentile(image, (1, 99))
    if high == low:
        return image
    levels = (np.arange(256) - low) * 255 / (high - low)
    return np.asarray(cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)))


def _equalize(image: Image, finding: Finding) -> Image:
    """Stretch, then CLAHE on the lightness of CIELAB; a single colour is left as it is."""
    if np.ptp(image, axis=(0, 1)).max() == 0:
        return image
    lab = cv2.cvtColor(_stretch(image, finding), cv2.COLOR_RGB2LAB)
    clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _sharpen(image: Image, finding: Finding) -> Image:
    """Add once what a blur as wide as the estimated one takes away."""
    sigma = max(0.5, finding.value * max(image.shape[:2]) / BLUR_VIEW)
    blurred = cv2.GaussianBlur(image, (0, 0), sigma)
    return np.asarray(cv2.addWeighted(image, 2, blurred, -1, 0))


_STEPS: dict[str, tuple[str, Callable[[Image, Finding], Image]]] = {
    "specks": ("opening", _open),
    "noise": ("non-local means", _denoise),
    "compression": ("bilateral filter", _deblock),
    "low_light": ("stretched levels", _stretch),
    "haze": ("stretched levels and CLAHE", _equalize),
    "low_contrast": ("stretched levels and CLAHE", _equalize),
    "blur": ("unsharp masking", _sharpen),
}


def deblur(
    image: Image,
    kernel: NDArray[np.floating],
    masks: NDArray[np.bool_] | None = None,
    *,
    noise: float | None = None,
) -> Image:
    """Undo a known blur under noise; masks say where colours may jump.

    Minimises the weighted total variation sum w |grad x| + mu / 2 ||k * x - y||² by half-quadratic
    splitting (Wang, Yang, Yin and Zhang, "A new alternating minimization algorithm for total
    variation image reconstruction", 2008). The weight w is 1, and less near a mask's border: a
    jump there costs little, so that the subject's outline comes out sharp.

    Args:
        kernel: (k, k), k odd, of sum 1: what the picture was correlated with.
        masks: (N, H, W); none: the same without a prior.
        noise: deviation in grey levels; None: as estimated from the picture.

    Raises:
        ImageError: the picture is not RGB uint8, or masks or kernel do not fit.
    """
    estimated = measure(image)["noise"]  # checks the picture, too
    height, width = image.shape[:2]
    if masks is not None and masks.shape[1:] != (height, width):
        raise ImageError(
            f"Masks of shape {masks.shape} do not fit a picture of {height}x{width}: give "
            "(N, H, W) of its size."
        )
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise ImageError(f"The kernel has shape {kernel.shape}: it has to be square and odd.")
    weights = jump_weights((height, width), masks)
    fidelity = FIDELITY / (max(estimated if noise is None else noise, 1.0) / 255)
    values = image.astype(np.float32) / np.float32(255)
    for axis in (0, 1):
        values = _close_up(values, axis, 2 * len(kernel))
    weights = np.pad(weights, [(0, 2 * len(kernel))] * 2, constant_values=1)
    closed = _smear_seam(np.moveaxis(values, 2, 0), kernel, (height, width))
    restored = _minimise(closed, kernel, weights, fidelity)
    inner = np.moveaxis(restored[:, :height, :width], 0, 2)
    return np.rint(np.clip(inner, 0, 1) * 255).astype(np.uint8)


def jump_weights(size: tuple[int, int], masks: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The price (H, W) of a jump in colour: 1, and less along the borders of all masks."""
    weights = np.ones(size, np.float32)
    reach = 2 * max(1, round(BORDER_REACH * max(size))) + 1
    square = np.ones((reach, reach), np.uint8)
    for mask in () if masks is None else masks:
        plane = mask.astype(np.uint8)
        weights[cv2.dilate(plane, square) != cv2.erode(plane, square)] = BORDER_WEIGHT
    return weights


def _minimise(
    blurred: Planes, kernel: NDArray[np.floating], weights: NDArray[np.float32], fidelity: float
) -> Planes:
    """Alternate between shrunk gradients and the least-squares picture, ever closer to each other.

    Args:
        blurred: (C, H, W) in [0, 1], taken as periodic.
        weights: (H, W).
        fidelity: mu.
    """
    size = (blurred.shape[1], blurred.shape[2])
    blur = _transfer(kernel, size)
    step_x, step_y = (_transfer(np.array(step, np.float32), size) for step in (_STEP, _STEP_DOWN))
    data = fidelity * np.conj(blur) * np.fft.rfft2(blurred)
    curvature = np.abs(step_x) ** 2 + np.abs(step_y) ** 2
    values = blurred
    for penalty in PENALTIES:
        along = np.roll(values, -1, axis=2) - values
        down = np.roll(values, -1, axis=1) - values
        length = np.sqrt((along**2 + down**2).sum(axis=0)).clip(1e-6)  # over colours, too
        kept = np.maximum(1 - weights / (penalty * length), 0)
        gradient = np.conj(step_x) * np.fft.rfft2(along * kept)
        gradient += np.conj(step_y) * np.fft.rfft2(down * kept)
        spectrum = (data + penalty * gradient) / (
            fidelity * np.abs(blur) ** 2 + penalty * curvature
        )
        values = np.fft.irfft2(spectrum, s=size).astype(np.float32)
    return values


def _close_up(values: NDArray[np.float32], axis: int, length: int) -> NDArray[np.float32]:
    """Append a seam (length) by which (H, W, C) continues without a jump at its other end.

    Fourier transforms wrap around, and a jump there would ring through the picture. The seam
    fades from the reflected end to the reflected beginning.
    """
    pad = [(0, 0)] * 3
    pad[axis] = (length, length)
    reflected = np.pad(values, pad, mode="symmetric")
    before, after = (
        np.take(reflected, range(start, start + length), axis)
        for start in (0, length + values.shape[axis])
    )
    shape = [1, 1, 1]
    shape[axis] = length
    fade = ((np.arange(length, dtype=np.float32) + np.float32(0.5)) / length).reshape(shape)
    return np.concatenate([values, after * (1 - fade) + before * fade], axis=axis)


def _smear_seam(closed: Planes, kernel: NDArray[np.floating], size: tuple[int, int]) -> Planes:
    """Smear the seam around a picture of a size (H, W), and the picture's very border, once more.

    A real smear would have gone on there. A seam that is sharper than the kernel allows rings
    through the picture, the more so the longer the kernel is.
    """
    shape = (closed.shape[1], closed.shape[2])
    smeared = np.fft.irfft2(np.fft.rfft2(closed) * _transfer(kernel, shape), s=shape)
    inside = np.zeros(shape, np.float32)
    depth = np.minimum.outer(*(np.minimum(n := np.arange(side), n[::-1]) for side in size))
    inside[: size[0], : size[1]] = np.clip((depth + 0.5) / (SMEARED_BORDER * len(kernel)), 0, 1)
    return inside * closed + (1 - inside) * smeared.astype(np.float32)


_STEP = ((0, 0, 0), (0, -1, 1), (0, 0, 0))  # x[i + 1] - x[i]
_STEP_DOWN = ((0, 0, 0), (0, -1, 0), (0, 1, 0))


def _transfer(kernel: NDArray[np.floating], size: tuple[int, int]) -> Spectrum:
    """Spectrum (H, W // 2 + 1) of correlating with a centred kernel."""
    plane = np.zeros(size, np.float32)
    plane[: len(kernel), : len(kernel)] = kernel
    middle = len(kernel) // 2
    return np.conj(np.fft.rfft2(np.roll(plane, (-middle, -middle), axis=(0, 1))))
