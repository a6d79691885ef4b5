"""Scenes: exact masks, seeds, splits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.stickers import effects
from core.stickers.atlas import Atlas
from core.stickers.scenes import SceneConfig, SceneGenerator, Scenes


@pytest.fixture(scope="module")
def scenes(small_atlas: Atlas) -> Scenes:
    return SceneGenerator(small_atlas, small_atlas.training_sprites(), seed=3).batch(12)


def test_shapes_and_types(scenes: Scenes) -> None:
    assert scenes.images.shape == (12, 3, 256, 256) and scenes.images.dtype == torch.uint8
    for ids in (scenes.instance_ids, scenes.part_ids, scenes.region_ids):
        assert ids.shape == (12, 256, 256) and ids.dtype == torch.uint8
    assert scenes.sprite_indices.shape == scenes.visible_fractions.shape == (12, 6)


def test_same_seed_same_scenes(small_atlas: Atlas, scenes: Scenes) -> None:
    again = SceneGenerator(small_atlas, small_atlas.training_sprites(), seed=3).batch(12)
    other = SceneGenerator(small_atlas, small_atlas.training_sprites(), seed=4).batch(12)
    assert all(torch.equal(getattr(scenes, k), getattr(again, k)) for k in scenes.__dict__)
    assert not torch.equal(scenes.images, other.images)


def test_masks_agree_with_each_other(scenes: Scenes) -> None:
    on_object = scenes.instance_ids > 0
    assert on_object.any()
    assert not scenes.part_ids[~on_object].any(), "parts belong to visible objects"
    assert not scenes.region_ids[on_object].any(), "objects hide regions"
    for b in range(12):
        present = scenes.instance_ids[b].unique().tolist()
        drawn = (scenes.sprite_indices[b] >= 0).nonzero().flatten() + 1
        assert set(present) - {0} <= set(drawn.tolist())


def test_visible_fraction_is_visible_over_whole_area(small_atlas: Atlas) -> None:
    config = SceneConfig(max_objects=1, min_scale=0.2, max_scale=0.3, max_turn_degrees=0)
    alone = SceneGenerator(small_atlas, torch.tensor([0]), config=config, seed=1).batch(24)
    ids = alone.instance_ids
    edge = torch.cat([ids[:, 0], ids[:, -1], ids[:, :, 0], ids[:, :, -1]], dim=1)
    inside = ~edge.bool().any(dim=1)
    assert inside.sum() > 5
    assert alone.visible_fractions[inside].sub(1).abs().max() < 1e-6
    assert (alone.visible_fractions[~inside] < 0.9).any(), "the border hides the rest"


def test_mask_covers_the_sprite_exactly(small_atlas: Atlas) -> None:
    """Without camera effects a disc's mask is where the picture changed."""
    config = SceneConfig(
        max_objects=1,
        texture_probability=0,
        blur_probability=0,
        noise_probability=0,
        jpeg_probability=0,
        min_scale=0.3,
        max_scale=0.5,
    )
    batch = SceneGenerator(small_atlas, torch.tensor([0]), config=config, seed=5).batch(8)
    for ids in batch.instance_ids:
        area = (ids > 0).sum().item()
        height = (ids > 0).any(dim=1).sum().item()
        width = (ids > 0).any(dim=0).sum().item()
        if height == width:  # not cut by the border: a disc
            assert area == pytest.approx(torch.pi / 4 * height * width, rel=0.03)


def test_splits_do_not_share_sprites(small_atlas: Atlas) -> None:
    training = set(small_atlas.training_sprites().tolist())
    test = set(small_atlas.test_sprites().tolist())
    held = set(small_atlas.test_sprites(held_out_style=True).tolist())
    assert training and test and held
    assert not training & test and not (training | test) & held
    for index in training | test:
        assert small_atlas.infos[index].style != "noto"


@given(quality=st.integers(5, 95), seed=st.integers(0, 99))
def test_jpeg_keeps_flat_colours_and_size(quality: int, seed: int) -> None:
    colour = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    flat = colour.expand(1, 3, 16, 24)
    out = effects.jpeg(flat, quality)
    assert out.shape == flat.shape
    # The DC step is 16 at quality 50, over 8 for the mean of a block, twice over for chroma.
    assert (out - flat).abs().max() < 0.45 * 50 / quality


@given(hue=st.floats(-3, 3), saturation=st.floats(0, 2), gain=st.floats(0.1, 2))
def test_colour_matrix_keeps_greys_grey(hue: float, saturation: float, gain: float) -> None:
    matrix = effects.colour_matrix(
        torch.tensor([hue]), torch.tensor([saturation]), torch.tensor([gain])
    )
    grey = effects.apply_colour(torch.full((1, 3, 2, 2), 0.5), matrix)
    torch.testing.assert_close(grey, torch.full_like(grey, 0.5 * gain), atol=3e-3, rtol=0)


@given(side=st.integers(16, 280))
def test_shadow_is_larger_and_never_darker_than_the_object(side: int) -> None:
    margin = side // 8
    shadow = effects.soft_shadow(torch.ones(side, side), margin)
    assert shadow.shape == (side + 2 * margin,) * 2
    assert 0 <= shadow.min() and shadow.max() <= 1 + 1e-5
    assert shadow[side // 2 + margin, side // 2 + margin] >= shadow[0, 0]
