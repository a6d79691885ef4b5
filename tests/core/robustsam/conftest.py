"""The tiny RobustSAM with known outputs, under the name that these tests know it by."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def golden(robust_golden) -> dict[str, np.ndarray]:
    return robust_golden
