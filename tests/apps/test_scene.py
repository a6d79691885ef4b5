"""What a visitor's edits make of a scene: plain functions, no server, no model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from apps.suite.segment import scene as scenes
from apps.suite.segment.patch import Patch, stack, union
from apps.suite.segment.scene import Answer, Instance, Prompts, Scene
from core.errors import PromptError

SIZE = (60, 80)


def patch(x0=10, y0=10, x1=20, y1=20):
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return Patch.of(mask)


def answered(scene, patches=None, scores=None):
    patches = patches or [patch(), patch(x1=30), patch(x1=40)]
    scores = np.array(scores or [0.9, 0.5, 0.4][: len(patches)], np.float32)
    logits = np.zeros((len(patches), 4, 4), np.float32)
    answer = Answer(scene.prompts, tuple(patches), tuple(patches), scores, logits)
    return scenes.replace(scene, answer=answer)


def clicked():
    return answered(scenes.add_points(Scene(), [(12, 12, 1)], SIZE))


def test_a_patch_is_its_mask():
    mask = np.random.default_rng(0).random(SIZE) > 0.99
    cut = Patch.of(mask)
    assert np.array_equal(cut.full(), mask)
    assert cut.area == mask.sum() and cut.share == mask.mean()
    assert patch().crop.shape == (10, 10)
    empty = Patch.of(np.zeros(SIZE, bool))
    assert empty.area == 0 and not empty.full().any()
    assert np.array_equal(stack([cut, empty], SIZE), [mask, np.zeros(SIZE, bool)])
    assert np.array_equal(union([cut, patch()]).full(), mask | patch().full())


def test_points_are_clipped_to_the_picture_and_counted():
    scene = scenes.add_points(Scene(), [(-5, 999, 1)], SIZE)
    assert scene.prompts.points == ((0, 59, 1),)
    with pytest.raises(PromptError, match="51 points; the limit is 50"):
        scenes.add_points(Scene(), [(1, 1, 1)] * 51, SIZE)


def test_a_box_takes_two_corners_and_keeps_the_first_on_a_mistake():
    scene = scenes.add_corner(Scene(), 30, 40, SIZE)
    assert scene.corner == (30, 40) and not scene.prompts
    with pytest.raises(PromptError, match="The box is 0×9 pixels and has no area"):
        scenes.add_corner(scene, 30, 49, SIZE)
    scene = scenes.add_corner(scene, 10, 20, SIZE)
    assert scene.prompts.boxes == ((10, 20, 30, 40),) and scene.corner is None


def test_a_correction_is_told_from_another_object():
    first = Prompts(points=((1, 1, 1),))
    assert Prompts(points=((1, 1, 1), (2, 2, 0))).extends(first)
    assert not Prompts(points=((2, 2, 0),)).extends(first)
    assert not Prompts(points=((1, 1, 1),), boxes=((0, 0, 9, 9),)).extends(first)


def test_another_reading_is_chosen():
    scene = scenes.choose(clicked(), 2)
    (instance,) = scene.instances
    assert instance.mask.area == 300 and instance.score == pytest.approx(0.4)
    for index in (-1, 3):
        with pytest.raises(PromptError, match="There is no reading"):
            scenes.choose(scene, index)


def test_objects_keep_their_numbers():
    scene = scenes.keep_current(clicked())
    assert [one.number for one in scene.instances] == [1] and not scene.prompts
    with pytest.raises(PromptError, match="There is no mask to keep"):
        scenes.keep_current(scene)
    scene = answered(scenes.add_points(scene, [(5, 5, 1)], SIZE))
    assert [one.number for one in scene.instances] == [1, 2]
    scene = scenes.delete(scene, 1)
    assert [one.number for one in scene.instances] == [2]
    scene = scenes.delete(scene, 2)
    assert scene.instances == () and not scene.prompts
    with pytest.raises(PromptError, match="There is no object 2"):
        scenes.delete(scene, 2)


def test_one_of_two_boxes_is_deleted_and_the_other_kept():
    boxes = Prompts(boxes=((0, 0, 20, 20), (30, 0, 50, 20)))
    scene = answered(scenes.with_prompts(Scene(), boxes, SIZE), [patch(), patch(x0=2)])
    assert [one.number for one in scene.current] == [1, 2]
    scene = scenes.delete(scene, 1)
    assert [one.number for one in scene.instances] == [2] and scene.next_number == 3


def test_names_are_tidied_and_follow_their_object():
    scene = scenes.rename(clicked(), 1, "  my \n cup " + "x" * 99)
    assert scene.instances[0].label.startswith("my cup xxx")
    assert len(scene.instances[0].label) == scenes.MOST_LABEL_CHARS
    scene = scenes.keep_current(scene)
    assert scene.instances[0].label.startswith("my cup")
    assert scenes.rename(scene, 1, "").instances[0].label == ""


def test_hidden_objects_come_back():
    scene = scenes.toggle_visible(clicked(), 1)
    assert not scene.instances[0].visible
    scene = scenes.keep_current(scene)
    assert not scene.instances[0].visible
    assert scenes.toggle_visible(scene, 1).instances[0].visible


def test_merging_unites_masks_and_has_no_score():
    scene = scenes.keep_current(clicked())
    scene = answered(scenes.add_points(scene, [(50, 5, 1)], SIZE), [patch(40, 0, 60, 10)], [0.8])
    with pytest.raises(PromptError, match="Select at least two"):
        scenes.merge(scene, [1, 7])
    merged = scenes.merge(scene, [2, 1])
    (united,) = merged.instances
    assert united.number == 1 and united.mask.area == 300 and math.isnan(united.score)
    assert merged.next_number == 3


def test_what_was_found_takes_the_place_of_all_objects():
    found = [Instance(k, patch(), patch(), 0.5) for k in (7, 9)]
    scene = scenes.with_found(clicked(), found)
    assert [one.number for one in scene.instances] == [1, 2] and not scene.prompts
