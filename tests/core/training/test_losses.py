"""SAM's losses against their definitions, and the auxiliary ones at their extremes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from core.training import losses


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()


def test_focal_loss_equals_torchvision(logits: torch.Tensor, targets: torch.Tensor) -> None:
    expected = sigmoid_focal_loss(logits, targets.expand_as(logits), 0.25, 2.0)
    torch.testing.assert_close(losses.focal_loss(logits, targets), expected.mean(dim=(2, 3)))


def test_dice_loss_of_sure_answers(targets: torch.Tensor) -> None:
    sure = (targets * 2 - 1) * 40
    assert losses.dice_loss(sure, targets).max() < 1e-5
    assert losses.dice_loss(-sure, targets).min() > 0.9


@given(seed=st.integers(0, 1000))
def test_mask_iou_of_binary_masks(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 6, 6, generator=random).round()
    expected = (a * b).sum() / (a + b).clamp(max=1).sum().clamp(min=1)
    torch.testing.assert_close(losses.mask_iou(a * 2 - 1, b), expected)
    assert losses.mask_iou(a * 2 - 1, a) == (1 if a.any() else 0)


def test_affinity_losses_prefer_one_direction_per_object() -> None:
    ids = torch.tensor([[[0, 1, 1, 2], [0, 1, 2, 2], [0, 0, 2, 2], [3, 3, 3, 0]]])
    told = torch.nn.functional.one_hot(ids, 4).permute(0, 3, 1, 2).float()
    mute = torch.ones_like(told)
    queries = torch.tensor([[1, 7, 12]])
    assert losses.cell_affinity_loss(told, ids) < 0.05
    assert losses.cell_affinity_loss(mute, ids) > 1
    assert losses.pixel_affinity_loss(told, ids, queries) < 0.05
    assert losses.pixel_affinity_loss(mute, ids, queries) > 1
