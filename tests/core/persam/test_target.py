"""Reference masks of all sizes give a target, or a sentence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from core.errors import PromptError
from core.persam.config import FitConfig, PersamConfig
from core.persam.target import Reference, Target, covered_cells, mask_to_grid, pool_target
from core.sam.geometry import Geometry


def test_a_reference_needs_a_mask_of_its_size():
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(PromptError, match="empty"):
        Reference(image, np.zeros((20, 30), bool))
    with pytest.raises(PromptError, match="40×20"):
        Reference(image, np.ones((20, 40), bool))


@pytest.mark.parametrize("wrong", [{"points": 0}, {"mask_value": 1}, {"max_instances": 0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PersamConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"max_pixels": 0}])
def test_fit_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitConfig(**wrong)


def test_dim_masks_erode(predictor, reference, reference_embedding):
    """PerSeg's masks of 128 keep only cells that are nearly full; 255 keeps the majority."""
    counts = [
        int((mask_to_grid(predictor, reference.mask, reference_embedding.geometry, v) > 0).sum())
        for v in (128, 255)
    ]
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize("where", [(0, 0), (75, 100), (-1, -1)])
def test_a_single_pixel_gives_a_target_and_a_warning(
    predictor, reference, reference_embedding, where
):
    mask = np.zeros_like(reference.mask)
    mask[where] = True
    target, (warning,) = pool_target(predictor, reference_embedding, mask, PersamConfig())
    assert torch.isfinite(target.feature("mean")).all()
    assert "smaller than one cell" in warning


def test_a_mask_of_the_whole_picture_warns(predictor, reference, reference_embedding):
    mask = np.ones_like(reference.mask)
    _, (warning,) = pool_target(predictor, reference_embedding, mask, PersamConfig())
    assert "100%" in warning


@settings(max_examples=40)
@given(
    st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.integers(1, 40)
)
def test_every_mask_covers_a_cell(height, width, y, x, reach):
    mask = np.zeros((height, width), bool)
    row, column = int(y * (height - 1)), int(x * (width - 1))
    mask[row : row + reach, column : column + reach] = True
    geometry = Geometry.of((height, width), 256)
    cells = covered_cells(mask, geometry, 16)
    assert cells.any()
    rows, columns = (-(-side // 16) for side in geometry.input_size)
    assert not cells[rows:].any() and not cells[:, columns:].any(), "padding is no object"


def test_several_references_count_alike():
    """The strength of one picture's features does not drown the others."""
    a = Target(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    b = Target(torch.tensor([[0.0, 100.0]]), torch.tensor([[0.0, 100.0]]))
    merged = Target.merge([a, b])
    assert_close(merged.feature("mean"), torch.full((1, 2), 0.5**0.5))
    assert_close(merged.embedding, torch.tensor([[[0.5, 50.0]]]))
    assert_close(Target.merge([a]).feature("mean_max"), torch.tensor([[1.0, 0.0]]))
