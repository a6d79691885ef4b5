"""Pairs of scenes: what they share, and that it keeps its look."""

from __future__ import annotations

import pytest
import torch

from core.stickers.atlas import Atlas
from core.stickers.pairs import PairedScenes
from core.stickers.scenes import Cast, SceneConfig, SceneGenerator, Scenes


def draw_pairs(atlas: Atlas, count: int, category: dict[str, str] | None = None) -> Scenes:
    config = SceneConfig(min_objects=2, max_objects=4, texture_probability=0.5)
    generator = SceneGenerator(atlas, atlas.training_sprites(), config=config, seed=2)
    return PairedScenes(generator, category or {}, seed=3).batch(count)


def cast_of(scenes: Scenes, b: int) -> set[int]:
    return {k for k in scenes.sprite_indices[b].tolist() if k >= 0}


@pytest.fixture(scope="module")
def pairs(small_atlas: Atlas) -> Scenes:
    return draw_pairs(small_atlas, 24)


def test_one_scene_of_a_pair_has_all_that_the_other_has(pairs: Scenes) -> None:
    sizes = set()
    for b in range(0, 24, 2):
        first, second = cast_of(pairs, b), cast_of(pairs, b + 1)
        assert first <= second or second <= first
        sizes.add(len(first))
    assert 1 in sizes, "some references show one object alone"
    assert not torch.equal(pairs.images[0], pairs.images[1])


def test_the_same_seed_gives_the_same_pairs(small_atlas: Atlas, pairs: Scenes) -> None:
    assert torch.equal(draw_pairs(small_atlas, 24).images, pairs.images)


def test_objects_of_a_pair_are_often_of_one_category(small_atlas: Atlas) -> None:
    halves = {info.object_id: "ab"[i % 2] for i, info in enumerate(small_atlas.infos)}
    scenes = draw_pairs(small_atlas, 48, halves)
    of = [halves[info.object_id] for info in small_atlas.infos]
    crowds = [cast_of(scenes, b) for b in range(48) if len(cast_of(scenes, b)) > 2]
    alike = sum(len({of[k] for k in crowd}) == 1 for crowd in crowds)
    assert alike / len(crowds) > 0.4


def test_a_cast_is_drawn_as_it_is_told(small_atlas: Atlas) -> None:
    """Grey and dark: whatever the sprite, its pixels have no colour."""
    config = SceneConfig(blur_probability=0, noise_probability=0, jpeg_probability=0)
    generator = SceneGenerator(small_atlas, small_atlas.training_sprites(), config=config, seed=1)
    cast = Cast(
        sprites=torch.tensor([[3, 0], [1, -1]]),
        tones=torch.tensor([0.0, 0.0, 0.5]).expand(2, 2, 3),
        textures=torch.full((2, 2), -1),
    )
    scenes = generator.compose(cast)
    assert scenes.sprite_indices.tolist() == cast.sprites.tolist()
    for b in range(2):
        inside = scenes.images[b][:, scenes.instance_ids[b] > 0].float()
        spread = (inside.amax(dim=0) - inside.amin(dim=0)).median()
        assert len(inside[0]) and spread < 40  # the camera's tint stays
