import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import overlays
from core.results import Segmentation

GREY = 100


def plain(height=200, width=300):
    return np.full((height, width, 3), GREY, np.uint8)


def box_mask(x0, y0, x1, y1, size=(200, 300)):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def bare(image, masks, **options):
    return overlays.draw(image, masks, outline=False, numbers=False, **options)


@pytest.mark.parametrize(
    ("k", "color", "text", "ratio"),
    [
        (1, "#0072b2", overlays.WHITE, 5.2),
        (2, "#e69f00", overlays.BLACK, 9.3),
        (3, "#009e73", overlays.BLACK, 6.1),
        (4, "#d55e00", overlays.BLACK, 5.4),
        (5, "#cc79a7", overlays.BLACK, 6.9),
        (6, "#56b4e9", overlays.BLACK, 9.1),
        (7, "#f0e442", overlays.BLACK, 15.9),
    ],
)
def test_palette_and_contrast_as_in_the_specification(k, color, text, ratio):
    assert overlays.hex_color(k) == color
    assert overlays.text_color(overlays.palette(k)) == text
    assert overlays.contrast(overlays.palette(k), text) == pytest.approx(ratio, abs=0.1)


def test_further_colours_differ_from_each_other_and_are_readable():
    colors = [overlays.palette(k) for k in range(1, 41)]
    assert len(set(colors)) == 40
    for color in colors:
        assert overlays.contrast(color, overlays.text_color(color)) >= 4.5
    for k in range(8, 40):
        gap = np.abs(np.subtract(overlays.palette(k), overlays.palette(k + 1)))
        assert gap.sum() > 100


@given(st.floats(0, 1), st.integers(1, 30))
def test_fill_blends_exactly_and_leaves_the_rest(opacity, k):
    mask = box_mask(5, 5, 20, 15, (30, 40))
    drawn = bare(plain(30, 40), mask[None], ids=[k], opacity=opacity)
    expected = GREY * (1 - opacity) + np.array(overlays.palette(k)) * opacity
    assert np.abs(drawn[10, 10] - expected).max() <= 1
    np.testing.assert_array_equal(drawn[~mask], plain(30, 40)[~mask])


def test_small_masks_lie_on_large_ones_unmixed_in_any_order():
    large, small = box_mask(10, 10, 250, 190), box_mask(50, 50, 90, 90)
    for stack, ids in (([large, small], [1, 2]), ([small, large], [2, 1])):
        drawn = bare(plain(), np.stack(stack), ids=ids, opacity=1)
        assert tuple(drawn[70, 70]) == overlays.palette(2)
        assert tuple(drawn[30, 30]) == overlays.palette(1)


def test_given_colours_replace_the_palette():
    drawn = bare(plain(), box_mask(0, 0, 99, 99)[None], colors=[(1, 2, 3)], opacity=1)
    assert tuple(drawn[50, 50]) == (1, 2, 3)


def test_the_picture_handed_in_is_not_changed():
    image = plain()
    for background in overlays.BACKGROUNDS:
        overlays.draw(image, box_mask(10, 10, 99, 99)[None], background=background)
    overlays.draw_points(image, [[5, 5]], [1])
    overlays.draw_boxes(image, [[5, 5, 50, 50]])
    np.testing.assert_array_equal(image, plain())


def test_backgrounds_change_only_what_is_outside():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3)).astype(np.uint8)
    mask = box_mask(50, 50, 150, 150)
    drawn = {
        name: bare(image, mask[None], opacity=0, background=name) for name in overlays.BACKGROUNDS
    }
    for picture in drawn.values():
        np.testing.assert_array_equal(picture[mask][:, :3], image[mask])
    np.testing.assert_array_equal(drawn["image"], image)
    assert (drawn["black"][~mask] == 0).all()
    assert np.ptp(drawn["grey"][~mask], axis=1).max() == 0
    assert drawn["blur"][~mask].std() < image[~mask].std() / 3
    assert drawn["transparent"].shape == (200, 300, 4)
    assert drawn["transparent"][100, 100, 3] == 255
    assert (drawn["transparent"][:, 200:, 3] == 0).all()


def test_outline_has_the_masks_colour_and_scales_with_the_picture():
    for scale in (1, 4):
        image = np.zeros((400 * scale, 500 * scale, 3), np.uint8)  # no halo: yellow on black
        mask = box_mask(100 * scale, 100 * scale, 300 * scale, 300 * scale, image.shape[:2])
        drawn = overlays.draw(image, mask[None], ids=[7], opacity=0, numbers=False)
        column = (drawn[150 * scale] == overlays.palette(7)).all(axis=1)
        assert column[100 * scale]
        assert column[: 200 * scale].sum() in range(scale * 1, 2 * scale + 2)
        assert not drawn[200 * scale, 200 * scale].any()


def test_outline_gets_a_halo_only_where_it_would_be_lost():
    mask = box_mask(50, 50, 150, 150)

    def whites(background):
        image = np.full((200, 300, 3), background, np.uint8)
        drawn = overlays.draw(image, mask[None], ids=[1], opacity=0, numbers=False)
        return np.count_nonzero((drawn > 140).all(axis=2))

    assert whites(overlays.palette(1)) > 300
    assert whites((0, 0, 0)) == 0


def test_number_stands_at_the_point_farthest_from_the_edge():
    image = plain(400, 600)
    mask = box_mask(300, 100, 420, 220, (400, 600))
    without = overlays.draw(image, mask[None], numbers=False)
    changed = (overlays.draw(image, mask[None]) != without).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert (xs.mean(), ys.mean()) == (pytest.approx(359.5, abs=2), pytest.approx(159.5, abs=2))
    assert np.ptp(ys) + 1 >= 12


def test_number_of_a_covered_mask_avoids_what_covers_it():
    image = plain(400, 600)
    ring, core = box_mask(0, 0, 600, 400, (400, 600)), box_mask(200, 100, 400, 300, (400, 600))
    both = np.stack([ring, core])
    changed = overlays.draw(image, both) != overlays.draw(image, both, numbers=False)
    _, regions, _, centers = cv2.connectedComponentsWithStats(changed.any(2).astype(np.uint8))
    centers = centers[1:].astype(int)
    assert sorted(core[y, x] for x, y in centers) == [False, True]


def test_number_of_a_tiny_mask_stands_beside_it():
    image = plain(400, 600)
    mask = box_mask(300, 200, 306, 206, (400, 600))
    without = overlays.draw(image, mask[None], outline=False, numbers=False)
    drawn = overlays.draw(image, mask[None], outline=False)
    np.testing.assert_array_equal(drawn[mask], without[mask])
    assert (drawn != without).any()


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 4),
    st.sampled_from(overlays.BACKGROUNDS),
    st.randoms(use_true_random=False),
)
def test_any_picture_and_masks_can_be_drawn(height, width, count, background, random):
    rng = np.random.default_rng(random.randrange(2**32))
    stack = rng.random((count, height, width)) < rng.random((count, 1, 1)) ** 2
    drawn = overlays.draw(plain(height, width), stack, background=background)
    assert drawn.shape == (height, width, 4 if background == "transparent" else 3)
    assert drawn.dtype == np.uint8


def test_more_masks_than_a_byte_can_number():
    stack = np.zeros((300, 20, 20), bool)
    stack[np.arange(300), np.arange(300) // 20, np.arange(300) % 20] = True
    drawn = bare(plain(20, 20), stack, opacity=1)
    assert tuple(drawn[299 // 20, 299 % 20]) == overlays.palette(300)


def test_points_are_blue_and_vermillion_discs_with_signs():
    drawn = overlays.draw_points(plain(), [[100.2, 50], [200, 120]], [1, 0])
    assert tuple(drawn[50, 100]) == tuple(drawn[120, 200]) == overlays.WHITE  # the signs' middle
    near = {tuple(pixel) for pixel in drawn[45:56, 95:106].reshape(-1, 3)}
    assert overlays.FOREGROUND_COLOR in near
    near = {tuple(pixel) for pixel in drawn[115:126, 195:206].reshape(-1, 3)}
    assert overlays.BACKGROUND_COLOR in near
    plus, minus = drawn[47, 100], drawn[117, 200]
    assert tuple(plus) == overlays.WHITE != tuple(minus)


@given(st.floats(0, 29), st.floats(0, 19))
def test_points_at_the_frame_stay_inside(x, y):
    assert overlays.draw_points(plain(20, 30), [[x, y]], [1]).shape == (20, 30, 3)


def test_points_show_on_a_transparent_background():
    clear = np.zeros((100, 100, 4), np.uint8)
    assert overlays.draw_points(clear, [[50, 50]], [1])[50, 50, 3] == 255


def test_boxes_are_drawn_on_their_pixels_in_their_colours():
    drawn = overlays.draw_boxes(plain(), [[50, 40, 251, 161], [0, 0, 300, 200]])
    assert tuple(drawn[100, 50]) == tuple(drawn[100, 250]) == overlays.palette(1)
    assert tuple(drawn[40, 150]) == tuple(drawn[160, 150]) == overlays.palette(1)
    assert tuple(drawn[100, 0]) == tuple(drawn[199, 150]) == overlays.palette(2)
    np.testing.assert_array_equal(drawn[100, 150], plain()[100, 150])
    assert overlays.draw_boxes(plain(), []).shape == (200, 300, 3)


def test_heatmap_runs_from_least_to_greatest_over_a_bar():
    values = np.linspace(2, 5, 300, dtype=np.float32)[None].repeat(200, axis=0)
    drawn = overlays.draw_heatmap(values)
    assert drawn.shape[0] > 200 and drawn.shape[1] == 300
    brightness = drawn[100].astype(int).sum(axis=1)
    assert brightness[-1] > brightness[150] > brightness[0]
    assert (drawn[200:] == 255).all(axis=2).any()


def test_signed_heatmap_is_white_at_zero():
    values = np.array([[-1.0, 0.0, 4.0]]).repeat(3, axis=0)
    drawn = overlays.draw_heatmap(values, signed=True)[0].astype(int)
    assert drawn[1].min() > 250
    assert drawn[0, 2] > drawn[0, 0]
    assert tuple(drawn[2]) == overlays.palette(2)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_constant_and_not_finite_maps_can_be_drawn(value):
    assert overlays.draw_heatmap(np.full((5, 7), value)).shape[1] == 7


def result(labels, scores):
    stack = np.zeros((len(labels), 10, 10), bool)
    for index in range(len(labels)):
        stack[index, : index + 1] = True
    return Segmentation(
        "car", "m", "embedded", (10, 10), stack, tuple(labels), np.array(scores, np.float32)
    )


def test_description_for_those_who_do_not_see_the_picture():
    assert overlays.describe(result(["dog", "cat"], [0.914, 0.88])) == (
        "2 masks: dog 0.91, 10.0 %; cat 0.88, 20.0 %."
    )
    assert overlays.describe(result([""], [np.nan])) == "1 mask: number 1, 10.0 %."
    assert overlays.describe(result([], [])) == "No mask."
    assert overlays.describe(result(["a"] * 9, [1] * 9)).endswith("; and 1 more.")


def test_a_megapixel_with_ten_masks_is_drawn_in_under_a_tenth_of_a_second():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1024, 1024, 3)).astype(np.uint8)
    ys, xs = np.mgrid[:1024, :1024]
    centers = rng.integers(100, 900, (10, 2))
    stack = np.stack([(xs - x) ** 2 + (ys - y) ** 2 < 180**2 for x, y in centers])
    seconds = []
    for _ in range(4):  # the first fills the cache of number chips
        start = time.perf_counter()
        overlays.draw(image, stack)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
