"""Dense CRF over the surviving maps and a background (CaR, section 3.4; Krähenbühl & Koltun).

``pydensecrf`` is optional. Without it each pixel takes the highest of background and maps.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from core.car.config import CarConfig

ITERATIONS = 10
GAUSSIAN = {"sxy": 1, "compat": 3}
BILATERAL = {"sxy": 67, "srgb": 3, "compat": 4}
LEAST_PROBABILITY = 1e-5
BGR_MEAN = (104.008, 116.669, 122.675)  # of the published code


def is_available() -> bool:
    """Whether pydensecrf is installed."""
    return _densecrf() is not None


def label_pixels(
    image: NDArray[np.uint8], maps: NDArray[np.float32], config: CarConfig
) -> NDArray[np.intp]:
    """Give each pixel to a map or to the background.

    Args:
        image: RGB uint8 (H, W, 3).
        maps: float32 (n, H, W) in [0, 1].

    Returns:
        (H, W), 0 for background, k for ``maps[k - 1]``.
    """
    probabilities = with_background(maps, config.background_exponent)
    if config.use_crf and is_available():
        shown = wrap_image(image) if config.published.wrapped_crf_image else image
        probabilities = infer(shown, probabilities)
    return probabilities.argmax(axis=0)


def with_background(maps: NDArray[np.float32], exponent: float) -> NDArray[np.float32]:
    """Put (1 - highest map)^β before the maps: (n + 1, H, W), not normalised."""
    background = (1 - maps.max(axis=0, keepdims=True)) ** exponent
    return np.concatenate([background, maps]).astype(np.float32, copy=False)


def infer(image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run mean-field inference.

    Args:
        image: uint8 (H, W, 3), what the bilateral term looks at.
        probabilities: float32 (C, H, W).

    Returns:
        Marginals (C, H, W).
    """
    densecrf = _densecrf()
    assert densecrf is not None
    count, height, width = probabilities.shape
    field = densecrf.DenseCRF2D(width, height, count)
    field.setUnaryEnergy(unary_energy(probabilities))
    field.addPairwiseGaussian(**GAUSSIAN)
    writable = np.require(image, requirements=["C", "W"])  # it refuses read-only pictures
    field.addPairwiseBilateral(rgbim=writable, **BILATERAL)
    return np.array(field.inference(ITERATIONS), np.float32).reshape(count, height, width)


def unary_energy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """-log of the probabilities, clipped from below: float32 (C, H·W), contiguous."""
    clipped = np.clip(probabilities, LEAST_PROBABILITY, 1)
    return np.ascontiguousarray(-np.log(clipped).reshape(len(clipped), -1), np.float32)


def wrap_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the published code gives the CRF: BGR less a mean, cut to whole numbers, modulo 256."""
    shifted = image[:, :, ::-1].astype(np.float32) - np.array(BGR_MEAN, np.float32)
    return (np.trunc(shifted).astype(np.int64) % 256).astype(np.uint8)


def _densecrf() -> ModuleType | None:
    try:
        from pydensecrf import densecrf
    except ImportError:
        return None
    return densecrf
