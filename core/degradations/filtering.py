"""Correlation with kernels that are mostly zeros, such as lines: the work of motion blurs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from core.degradations.arrays import Plane

# OpenCV skips a kernel's zeros, but from 130 taps on, zeros counted, it goes through Fourier
# space, which takes ten times as long for a line. So long kernels are applied in blocks.
_BLOCK = 11
_FRACTION_BITS = 7  # of the partial sums: 255 · 2^7 still fits int16


def correlate(image: NDArray[np.uint8], kernel: Plane) -> NDArray[np.uint8]:
    """Correlate (H, W) or (H, W, 3) with a kernel (k, k), k odd, of sum 1; edges reflected.

    `cv2.filter2D` with the default border, up to its rounding.
    """
    if len(kernel) <= _BLOCK:
        return np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    total = np.zeros(image.shape, np.int16)
    scaled = kernel * np.float32(2**_FRACTION_BITS)
    for top in range(0, len(kernel), _BLOCK):
        for left in range(0, len(kernel), _BLOCK):
            block = scaled[top : top + _BLOCK, left : left + _BLOCK]
            if block.any():
                bottom, right = top + height + _BLOCK - 1, left + width + _BLOCK - 1
                window = padded[top:bottom, left:right]
                part = cv2.filter2D(window, cv2.CV_16S, block, anchor=(0, 0))
                cv2.add(total, part[:height, :width], total)
    half = 2 ** (_FRACTION_BITS - 1)
    return np.asarray((total + half) >> _FRACTION_BITS, np.uint8)
