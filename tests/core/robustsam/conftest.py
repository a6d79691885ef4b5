"""The tiny RobustSAM with known outputs, under the name that these tests know it by."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def golden(robust_golden) -> dict[str, np.ndarray]:
    return robust_golden


@pytest.fixture(scope="module")
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A red disc on blue, 96 x 96, and its mask."""
    y, x = np.mgrid[:96, :96]
    mask = (y - 48) ** 2 + (x - 44) ** 2 < 22**2
    image = np.where(mask[..., None], [210, 60, 40], [90, 100, 200]).astype(np.uint8)
    return image, mask
