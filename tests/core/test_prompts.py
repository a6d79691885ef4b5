import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import PromptError
from core.prompts import Boxes, MaskPrompt, Points, Scribble, TextQueries
from core.settings import Settings

SIZE = (40, 60)  # H, W

numbers = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    "value",
    [
        [[10, 20, 1], [30.5, 5, 0]],
        "[[10, 20, 1], [30.5, 5, 0]]",
        ((10, 20, 1), (30.5, 5, 0)),
        np.array([[10, 20, 1], [30.5, 5, 0]]),
    ],
)
def test_points_from_json_lists_and_arrays(value):
    points = Points.parse(value, SIZE)
    np.testing.assert_array_equal(points.coords, np.array([[10, 20], [30.5, 5]], np.float32))
    np.testing.assert_array_equal(points.labels, [1, 0])
    assert points.coords.dtype == np.float32
    assert len(points) == 2


@pytest.mark.parametrize("value", [None, "", "  ", "[]", "null", [], np.zeros((0, 3))])
def test_no_points_and_no_boxes_are_valid(value):
    assert Points.parse(value, SIZE).coords.shape == Points.empty().coords.shape == (0, 2)
    assert Boxes.parse(value, SIZE).xyxy.shape == Boxes.empty().xyxy.shape == (0, 4)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 1)), max_size=50))
def test_points_are_moved_into_the_frame(rows):
    points = Points.parse(json.dumps(rows), SIZE)
    assert len(points) == len(rows)
    assert (points.coords >= 0).all()
    assert (points.coords <= (59, 39)).all()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[[1, 2, 3", "not valid JSON"),
        ("[" * 5000, "not valid JSON"),
        ("[[1, 2, 1]," + " " * 200_000 + "]", "limit is 100000"),
        ("hello", "not valid JSON"),
        ("5", "shape"),
        ({"x": 1}, "cannot be read"),
        ([[1, 2]], r"\(1, 2\), not \(N, 3\)"),
        ([1, 2, 1], "shape"),
        ([[1, 2, 1], [1, 2]], "cannot be read"),
        ([["a", 2, 1]], "cannot be read"),
        ([[1, 2, 2]], "label 2"),
        ([[1, 2, -1]], "label -1"),
        ([[1, 2, 0.5]], "label 0.5"),
        ([[float("nan"), 2, 1]], "finite"),
        ("[[1e999, 2, 1]]", "finite"),
        ("[[NaN, 2, 1]]", "finite"),
        ([[10**400, 2, 1]], "cannot be read"),
        ([[1, 2, 1]] * 51, "51 points; the limit is 50"),
    ],
)
def test_wrong_points_are_refused_with_what_was_received(value, words):
    with pytest.raises(PromptError, match=words):
        Points.parse(value, SIZE)


@given(st.tuples(numbers, numbers, numbers, numbers))
def test_boxes_are_ordered_and_cut_or_refused(row):
    try:
        x0, y0, x1, y1 = Boxes.parse([row], SIZE).xyxy[0]
    except PromptError as error:
        assert "px²" in error.message
    else:
        assert 0 <= x0 < x1 <= 60
        assert 0 <= y0 < y1 <= 40


@pytest.mark.parametrize("flip", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_any_two_opposite_corners_give_the_same_box(flip):
    xs, ys = (5, 30), (7, 20)
    row = [xs[flip[0]], ys[flip[1]], xs[1 - flip[0]], ys[1 - flip[1]]]
    np.testing.assert_array_equal(Boxes.parse([row], SIZE).xyxy, [[5, 7, 30, 20]])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[5, 5, 5, 5]], "Box 1 covers 0 px²"),
        ([[0, 0, 9, 9], [3, 3, 3.5, 4]], "Box 2 covers 0.5 px²"),
        ([[100, 100, 200, 200]], "Box 1 covers 0 px²"),
        ([[0, 0, 9, float("inf")]], "finite"),
        ([[0, 0, 9]], "boxes"),
        ([[0, 0, 9, 9]] * 21, "21 boxes; the limit is 20"),
    ],
)
def test_wrong_boxes_are_refused(value, words):
    with pytest.raises(PromptError, match=words):
        Boxes.parse(value, SIZE)


def stroke():
    """A thick L of known middle line."""
    mask = np.zeros(SIZE, bool)
    mask[3:36, 8:13] = True
    mask[31:36, 8:55] = True
    return mask


def test_scribble_points_lie_on_the_stroke_and_spread_along_it():
    points = Scribble(stroke()).to_points(5)
    assert len(points) == 5
    assert (points.labels == 1).all()
    xs, ys = points.coords.astype(int).T
    assert stroke()[ys, xs].all()
    gaps = np.linalg.norm(points.coords[:, None] - points.coords[None], axis=2)
    assert gaps[~np.eye(5, dtype=bool)].min() > 8
    # Both ends of the L are reached.
    assert points.coords[:, 0].max() > 48
    assert points.coords[:, 1].min() < 9


def test_scribble_of_one_dot_gives_one_point():
    mask = np.zeros(SIZE, bool)
    mask[20, 30] = True
    points = Scribble(mask).to_points(8, label=0)
    np.testing.assert_array_equal(points.coords, [[30, 20]])
    np.testing.assert_array_equal(points.labels, [0])


def test_scribble_reads_the_alpha_of_a_painted_layer():
    layer = np.zeros((*SIZE, 4), np.uint8)
    layer[stroke()] = (0, 114, 178, 255)
    np.testing.assert_array_equal(Scribble.parse(layer, SIZE).mask, stroke())


@pytest.mark.parametrize("value", [None, [], np.zeros(SIZE), np.zeros((*SIZE, 4), np.uint8)])
@pytest.mark.parametrize("kind", [Scribble, MaskPrompt])
def test_an_empty_stroke_or_mask_says_what_to_do(kind, value):
    with pytest.raises(PromptError, match="first"):
        kind.parse(value, SIZE)


@pytest.mark.parametrize("value", ["abc", np.zeros(5), np.zeros((2, 2, 2, 2)), [["a"]]])
def test_what_is_no_mask_is_refused(value):
    with pytest.raises(PromptError):
        MaskPrompt.parse(value, SIZE)


@pytest.mark.parametrize(
    "value",
    [
        stroke(),
        stroke().astype(np.uint8),
        stroke().astype(np.uint8) * 255,
        stroke().astype(np.float32),
        stroke()[:, :, None] * np.array([128, 0, 0], np.uint8),
        np.dstack([stroke().astype(np.uint8) * 255] * 3 + [np.full(SIZE, 255, np.uint8)]),
        np.dstack([np.zeros((*SIZE, 3), np.uint8), stroke().astype(np.uint8) * 200]),
    ],
    ids=["bool", "0/1", "0/255", "float", "coloured", "opaque RGBA", "alpha"],
)
def test_masks_in_every_usual_form(value):
    prompt = MaskPrompt.parse(value, SIZE)
    np.testing.assert_array_equal(prompt.mask, stroke())
    assert prompt.notices == ()


def test_mask_of_another_size_is_resized_with_a_notice():
    prompt = MaskPrompt.parse(np.kron(stroke(), np.ones((2, 2), bool)), SIZE)
    np.testing.assert_array_equal(prompt.mask, stroke())
    assert "from 120×80 to 60×40" in prompt.notices[0]


def test_mask_that_vanishes_when_resized_is_refused():
    mask = np.zeros((400, 600), bool)
    mask[0, 0] = True
    with pytest.raises(PromptError):
        MaskPrompt.parse(mask, SIZE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("dog, red  car", ("dog", "red car")),
        ("dog\ncat", ("dog", "cat")),
        ('["dog", "salt, pepper"]', ("dog", "salt, pepper")),
        (["dog", " Dog ", "DOG", "", "  ", "cat"], ("dog", "cat")),
        (("강아지", "чашка", "猫"), ("강아지", "чашка", "猫")),
        (["a\0b\tc"], ("ab c",)),
        (["\ud800dog"], ("dog",)),
        (["👩\u200d🚀"], ("👩\u200d🚀",)),
        (["<img src=x onerror=alert(1)>"], ("<img src=x onerror=alert(1)>",)),
    ],
)
def test_text_queries(value, expected):
    assert TextQueries.parse(value).queries == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "type at least one"),
        (" , ,", "type at least one"),
        ([str(k) for k in range(101)], "101 queries; the limit is 100"),
        (["a" * 101], "101 characters; the limit is 100"),
        ([1], "must be text"),
        (5, "list of words"),
        ("[dog", "JSON"),
        ("a," * 100_000, "limit"),
    ],
)
def test_wrong_text_queries_are_refused(value, words):
    with pytest.raises(PromptError, match=words):
        TextQueries.parse(value)


def test_limits_are_the_given_settings():
    limits = Settings(max_points=1, max_boxes=1, max_queries=1, max_query_chars=2)
    for parse in (
        lambda: Points.parse([[1, 1, 1]] * 2, SIZE, limits),
        lambda: Boxes.parse([[0, 0, 5, 5]] * 2, SIZE, limits),
        lambda: TextQueries.parse(["a", "b"], limits),
        lambda: TextQueries.parse(["abc"], limits),
    ):
        with pytest.raises(PromptError, match="the limit is"):
            parse()
