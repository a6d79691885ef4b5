"""Simulated prompts lie where SAM's recipe puts them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from core.stickers.atlas import Atlas
from core.stickers.scenes import SceneGenerator
from core.training import prompting


def random_regions(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(5, 64, 64, dtype=torch.bool)
    for mask in masks:
        top, left = torch.randint(0, 50, (2,), generator=random).tolist()
        height, width = torch.randint(1, 14, (2,), generator=random).tolist()
        mask[top : top + height, left : left + width] = True
    return masks


@given(seed=st.integers(0, 10_000), inner=st.booleans())
def test_points_lie_in_their_region(seed: int, inner: bool) -> None:
    masks = random_regions(seed)
    points = prompting.sample_point(masks, torch.Generator().manual_seed(seed), inner=inner)
    x, y = (points * 64).long().unbind(dim=1)
    assert masks[torch.arange(5), y, x].all()


def test_a_point_of_nothing_is_anywhere_in_the_picture() -> None:
    empty = torch.zeros(400, 16, 16, dtype=torch.bool)
    points = prompting.sample_point(empty, torch.Generator().manual_seed(0))
    assert points.min() > 0 and points.max() < 1
    assert points.std(dim=0).min() > 0.2


@given(seed=st.integers(0, 10_000))
def test_box_noise_is_at_most_a_tenth_of_the_side(seed: int) -> None:
    masks = random_regions(seed)
    boxes = prompting.noisy_boxes(masks, torch.Generator().manual_seed(seed))
    assert boxes.min() >= 0 and boxes.max() <= 1
    for mask, box in zip(masks, boxes, strict=True):
        y, x = mask.nonzero().T
        true = torch.tensor([[x.min(), y.min()], [x.max() + 1, y.max() + 1]]) / 64
        reach = torch.minimum((true[1] - true[0]) * 0.1, torch.tensor(20 / 1024))
        assert ((box - true).abs() <= reach + 1e-6).all()


def test_targets_are_objects_parts_and_regions(small_atlas: Atlas) -> None:
    scenes = SceneGenerator(small_atlas, small_atlas.training_sprites(), seed=2).batch(8)
    random = torch.Generator().manual_seed(0)

    def share(kind: str, **probabilities: float) -> float:
        targets = prompting.choose_targets(scenes, 6, random, **probabilities)
        ids = getattr(scenes, kind)[targets.scene]
        inside = [(ids[i][m] > 0).all().item() for i, m in enumerate(targets.masks)]
        return sum(inside) / len(inside)

    assert share("instance_ids", part_probability=0, region_probability=0) == 1
    assert share("part_ids", part_probability=1, region_probability=0) > 0.9
    assert share("region_ids", part_probability=0, region_probability=1) > 0.4
