import numpy as np
import pytest

from core.results import SCORE_KINDS, Segmentation


def example(scores=(0.5, 0.9, 0.7), **changes):
    stack = np.zeros((3, 6, 8), bool)
    stack[0, :1], stack[1, :3], stack[2, :2] = True, True, True
    values = {
        "method": "sam",
        "model": "sam_embedded",
        "model_set": "embedded",
        "size": (6, 8),
        "masks": stack,
        "labels": ("a", "b", "c"),
        "scores": np.array(scores, np.float32),
    }
    return Segmentation(**{**values, **changes})


def test_ids_count_from_one_and_stay_with_their_instance():
    result = example()
    assert (len(result), result.ids) == (3, (1, 2, 3))
    chosen = result.select([2, 0])
    assert (chosen.ids, chosen.labels) == ((3, 1), ("c", "a"))
    np.testing.assert_array_equal(chosen.scores, np.array([0.7, 0.5], np.float32))
    np.testing.assert_array_equal(chosen.masks, result.masks[[2, 0]])
    assert chosen.select([1]).ids == (1,)
    assert len(result) == 3


def test_best_has_the_highest_score():
    assert example().best().labels == ("b",)
    assert example((0.1, np.nan, 0.2)).best().labels == ("c",)
    assert example((np.nan,) * 3).best().labels == ("a",)


def test_sorted_by_area_puts_large_ones_first_with_their_ids():
    result = example().sorted_by_area()
    assert result.areas.tolist() == [24, 16, 8]
    assert result.ids == (2, 3, 1)


def test_no_instances_is_a_valid_result():
    empty = example().select([])
    assert len(empty) == len(empty.best()) == len(empty.sorted_by_area()) == 0
    assert empty.masks.shape == (0, 6, 8)
    assert empty.areas.shape == (0,)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (8, 6)},
        {"masks": np.zeros((3, 6, 8), np.uint8)},
        {"labels": ("a",)},
        {"scores": np.zeros(2, np.float32)},
        {"score_kind": "confidence"},
        {"ids": (1, 2)},
        {"ids": (1, 1, 2)},
    ],
)
def test_parts_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError):
        example(**changes)


def test_score_kinds_are_those_of_the_record():
    assert set(SCORE_KINDS) == {
        "predicted_iou",
        "stability",
        "clip_similarity",
        "persam_iou",
        "llm_none",
    }
