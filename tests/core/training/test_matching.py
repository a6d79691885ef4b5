"""Matches of objects between scenes, and the losses that compare their features."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import TwoWayTransformer

from core.stickers.scenes import Scenes
from core.training import matching
from core.training.matching import Matches, find_matches

SIDE = 4  # of the grid; scenes of 16 px
LEFT, RIGHT = slice(0, 8), slice(8, 16)


def scene_batch(
    layout: list[dict[int, slice]], sprites: list[list[int]], visible: float = 1.0
) -> Scenes:
    """Scenes whose k-th object covers some columns."""
    ids = torch.zeros(len(layout), 16, 16, dtype=torch.uint8)
    for b, objects in enumerate(layout):
        for k, columns in objects.items():
            ids[b, :, columns] = k
    return Scenes(
        images=torch.zeros(len(layout), 3, 16, 16, dtype=torch.uint8),
        instance_ids=ids,
        part_ids=ids * 0,
        region_ids=ids * 0,
        sprite_indices=torch.tensor(sprites),
        visible_fractions=torch.full((len(layout), 2), visible),
    )


@pytest.fixture
def scenes() -> Scenes:
    """Sprite 7 left, then right; sprite 9 only in the first scene."""
    return scene_batch([{1: LEFT, 2: RIGHT}, {1: RIGHT}], [[7, 9], [7, -1]])


def test_objects_are_matched_both_ways_and_missing_ones_are_known(scenes: Scenes) -> None:
    matches = find_matches(scenes, SIDE)
    assert matches is not None
    found = sorted(
        zip(
            matches.reference.tolist(),
            matches.scene.tolist(),
            matches.instance.tolist(),
            strict=True,
        )
    )
    assert found == [(0, 1, 0), (0, 1, 1), (1, 0, 1)]
    assert matches.present.tolist().count(False) == 1
    assert not matches.cells[~matches.present].any()
    grid = matches.cells[matches.scene == 0][0].view(SIDE, SIDE)
    assert grid[:, :2].all() and not grid[:, 2:].any()


def test_what_is_hardly_seen_is_left_out(scenes: Scenes) -> None:
    hidden = scene_batch([{1: LEFT}, {1: RIGHT}], [[7, -1], [7, -1]], visible=0.1)
    assert find_matches(hidden, SIDE) is None
    other = scene_batch([{1: LEFT}, {1: RIGHT}], [[7, -1], [8, -1]])
    assert find_matches(other, SIDE) is None


def embed(scenes: Scenes, right: bool) -> torch.Tensor:
    """One direction for each sprite (``right``), or the same one for all."""
    ids = scenes.instance_ids[:, 2::4, 2::4]
    features = torch.zeros(len(ids), 3, SIDE, SIDE)
    for b in range(len(ids)):
        for k, sprite in enumerate(scenes.sprite_indices[b].tolist()):
            where = ids[b] == k + 1
            features[b, {7: 0, 9: 1, -1: 2}[sprite] if right else 0][where] = 1
        features[b, 2][ids[b] == 0] = 1
    return features


def test_losses_prefer_features_that_tell_objects_apart(scenes: Scenes) -> None:
    def loss(right: bool) -> tuple[float, float]:
        embedding = embed(scenes, right)
        matches = find_matches(scenes, SIDE)
        assert matches is not None
        targets = matching.pool_targets(embedding, matches)
        there: Matches = matches.select(matches.present)
        return (
            float(matching.matching_loss(targets[matches.present], embedding, there)),
            float(matching.presence_loss(targets, embedding, matches)),
        )

    (good_match, good_presence), (bad_match, bad_presence) = loss(True), loss(False)
    assert good_match < 0.1 < bad_match
    assert good_presence < 0.1 < bad_presence


def test_personal_prompts_are_persams(scenes: Scenes) -> None:
    embedding = embed(scenes, True)
    matches = find_matches(scenes, SIDE)
    assert matches is not None
    matches = matches.select(matches.present)
    targets = matching.pool_targets(embedding, matches)
    prompts = matching.personal_prompts(
        targets, embedding, matches, torch.Generator().manual_seed(0)
    )
    assert prompts.found.all()
    assert prompts.labels.tolist() == [[1, 0, -1]] * 2
    x, y = prompts.coords[:, 0].T
    cells = (y * SIDE).long() * SIDE + (x * SIDE).long()
    assert matches.cells.gather(1, cells[:, None]).all(), "the first point is on the object"
    assert prompts.guidance.shape == (2, 1, 1, SIDE**2)
    inside = prompts.guidance[:, 0, 0][matches.cells].min()
    assert inside > prompts.guidance[:, 0, 0][~matches.cells].max()

    own = TwoWayTransformer(depth=1, embedding_dim=4, num_heads=1, mlp_dim=4)
    image, tokens = torch.randn(2, 4, SIDE, SIDE), torch.randn(2, 3, 4)
    four = matching.PersonalPrompts(**{**vars(prompts), "target_embedding": torch.randn(2, 1, 4)})
    plain = own(image, image, tokens)[0]
    neither = four.transformer(own, guided=False, semantic=False)(image, image, tokens)[0]
    torch.testing.assert_close(plain, neither)
    for guided, semantic in ((True, False), (False, True)):
        drawn = four.transformer(own, guided=guided, semantic=semantic)(image, image, tokens)[0]
        assert not torch.allclose(plain, drawn)
