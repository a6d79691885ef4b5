"""The golden arrays of the published script, and small pictures.

tests/data/golden/robustsam_degrade*.npz were made with the published augmentation script's code
and libraries on a seeded picture; each holds the picture, the parameters and every output.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core import images

ROOT = Path(__file__).parents[3]
GOLDEN_FILES = sorted((ROOT / "tests" / "data" / "golden").glob("robustsam_degrade*.npz"))
EXAMPLES = sorted((ROOT / "assets" / "examples").glob("*.jpg"))


@pytest.fixture(scope="session", params=GOLDEN_FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arrays by name, and "params" as a dict."""
    with np.load(request.param) as arrays:
        case: dict[str, Any] = dict(arrays)
    return {**case, "params": ast.literal_eval(str(case["params"]))}


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """All example photographs, clear ones, at 512 pixels."""
    return [images.fit_within(images.load(path).image, 512) for path in EXAMPLES]


@pytest.fixture(scope="session")
def small_photos() -> list[np.ndarray]:
    """Three photographs at 128 pixels."""
    names = ("cat", "coffee", "wine")
    paths = [ROOT / "assets" / "examples" / f"{name}.jpg" for name in names]
    return [images.fit_within(images.load(path).image, 128) for path in paths]


@pytest.fixture(scope="session")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture (96, 120, 3) that is white where its mask is, and black elsewhere."""
    mask = np.zeros((96, 120), np.uint8)
    cv2.circle(mask, (50, 45), 26, 1, -1)
    cv2.rectangle(mask, (80, 60), (105, 85), 1, -1)
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), mask.astype(bool)
