"""JPEG artefacts: strong ones as a degradation, and the quality 95 of the published files."""

from __future__ import annotations

import cv2
import numpy as np

from core.degradations.arrays import Picture

PUBLISHED_QUALITY = 95  # OpenCV's default, with which the published script saves every picture


def compression(image: Picture, quality: int, *, swap_red_blue: bool = False) -> Picture:
    """Encode as JPEG and decode again; published quality 5 to 10.

    Args:
        quality: 1 (worst) to 100.
        swap_red_blue: hand the RGB array to the encoder as if it were BGR and decode it likewise,
            as albumentations 1.3.1 `ImageCompression` does: the colour channels that the encoder
            averages and quantises are then those of a picture with red and blue swapped, and its
            artefacts have visibly other colours. False encodes the true colours.
    """
    bgr = image if swap_red_blue else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was just encoded
    return np.asarray(
        decoded if swap_red_blue else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8
    )
