import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from scipy import ndimage

import core.models.torchvision_shim  # noqa: F401  (segment_anything imports torchvision)
from core import masks

amg = pytest.importorskip("segment_anything.utils.amg")

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
any_mask = hnp.arrays(bool, shapes)
some_mask = any_mask.filter(np.any)


def pairs(count=2):
    return shapes.flatmap(lambda s: st.tuples(*[hnp.arrays(bool, s) for _ in range(count)]))


def disc(size, center_xy, radius):
    ys, xs = np.mgrid[: size[0], : size[1]]
    return (xs - center_xy[0]) ** 2 + (ys - center_xy[1]) ** 2 <= radius**2


def distance_to_outside(mask):
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


@given(some_mask)
def test_box_is_tight_with_exclusive_ends(mask):
    x0, y0, x1, y1 = masks.mask_to_box(mask)
    assert masks.area(mask[y0:y1, x0:x1]) == masks.area(mask)
    inside = mask[y0:y1, x0:x1]
    for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert edge.any()


def test_box_of_an_empty_mask_is_zero():
    np.testing.assert_array_equal(masks.mask_to_box(np.zeros((4, 5), bool)), [0, 0, 0, 0])


@given(pairs())
def test_iou_is_symmetric_and_one_with_itself(pair):
    a, b = pair
    assert masks.iou(a, a) == 1
    assert 0 <= masks.iou(a, b) == masks.iou(b, a) <= 1
    assert masks.iou(a, b) == masks.iou(a[:, ::-1], b[:, ::-1])


def test_iou_of_known_squares():
    a, b = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    a[0:4, 0:4] = b[2:6, 0:4] = True
    assert masks.iou(a, b) == pytest.approx(8 / 24)
    assert masks.iou(a, ~a) == 0
    assert masks.iou(np.zeros((3, 3), bool), np.zeros((3, 3), bool)) == 1


@given(pairs(5))
def test_pairwise_iou_agrees_with_iou(group):
    table = masks.pairwise_iou(np.stack(group[:3]), np.stack(group[3:]))
    assert table.shape == (3, 2)
    for i, a in enumerate(group[:3]):
        for j, b in enumerate(group[3:]):
            assert table[i, j] == pytest.approx(masks.iou(a, b), abs=1e-6)


def test_pairwise_iou_of_no_masks():
    none = np.zeros((0, 4, 4), bool)
    assert masks.pairwise_iou(none, np.ones((2, 4, 4), bool)).shape == (0, 2)


@given(any_mask)
def test_boundaries_lie_on_both_sides_of_the_edge(mask):
    inner, outer = masks.boundary(mask), masks.outer_boundary(mask)
    assert not (inner & ~mask).any()
    assert not (outer & mask).any()
    cross = ndimage.generate_binary_structure(2, 1)
    np.testing.assert_array_equal(inner, mask & ~ndimage.binary_erosion(mask, cross))
    np.testing.assert_array_equal(outer, ndimage.binary_dilation(mask, np.ones((3, 3))) & ~mask)


@given(some_mask)
def test_farthest_point_has_the_greatest_distance(mask):
    x, y = masks.farthest_point(mask)
    distance = distance_to_outside(mask)
    assert mask[y, x]
    assert distance[y, x] == pytest.approx(distance.max(), abs=1e-3)


def test_farthest_point_of_a_bar_is_its_middle_and_counts_the_frame_as_outside():
    mask = np.zeros((9, 60), bool)
    mask[2:7, 5:46] = True
    assert masks.farthest_point(mask) == (25, 4)
    assert masks.farthest_point(np.ones((21, 31), bool)) in {(x, 10) for x in range(10, 21)}


def test_farthest_point_of_nothing_is_an_error():
    with pytest.raises(ValueError):
        masks.farthest_point(np.zeros((3, 3), bool))


@given(some_mask, st.integers(0, 40), st.sampled_from(["holes", "islands"]))
def test_small_regions_as_the_published_code_removes_them(mask, min_area, mode):
    expected, _ = amg.remove_small_regions(mask, min_area, mode)
    np.testing.assert_array_equal(masks.remove_small_regions(mask, min_area, mode), expected)


def test_small_regions_of_a_known_mask():
    mask = disc((60, 60), (30, 30), 20)
    mask[30, 30] = False
    mask[2:4, 2:4] = True
    filled = masks.remove_small_regions(mask, 10, "holes")
    assert filled[30, 30] and filled[2, 2]
    np.testing.assert_array_equal(
        masks.remove_small_regions(filled, 10, "islands"), disc((60, 60), (30, 30), 20)
    )


@given(any_mask)
def test_largest_component_is_one_region_of_the_mask(mask):
    kept = masks.largest_component(mask)
    assert not (kept & ~mask).any()
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = ndimage.sum_labels(mask, regions, range(1, count + 1))
    assert masks.area(kept) == (max(sizes) if count else 0)


@given(any_mask, st.floats(0, 6))
def test_dilate_and_erode_are_discs_and_dual(mask, px):
    grown, shrunk = masks.dilate(mask, px), masks.erode(mask, px)
    assert not (mask & ~grown).any()
    assert not (shrunk & ~mask).any()
    np.testing.assert_array_equal(shrunk, ~masks.dilate(~mask, px))
    if mask.any():
        near = ndimage.distance_transform_edt(~mask)
        # A pixel exactly at the radius may fall on either side in float32.
        sure = np.abs(near - px) > 1e-4
        np.testing.assert_array_equal(grown[sure], (near <= px)[sure])


@given(any_mask)
def test_rle_round_trip_and_agreement_with_pycocotools(mask):
    rle = masks.encode_rle(mask)
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    np.testing.assert_array_equal(masks.decode_rle(rle), mask)
    assert coco_mask.area({**rle, "counts": rle["counts"].encode()}) == masks.area(mask)


def from_polygons(polygons, shape):
    if not polygons:
        return np.zeros(shape, bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@given(any_mask)
def test_untolerant_polygons_are_the_mask_with_its_holes_filled(mask):
    # A hole is background that 4-connected steps cannot leave.
    filled = ndimage.binary_fill_holes(mask)
    polygons = masks.to_polygons(mask, tolerance=0)
    np.testing.assert_array_equal(from_polygons(polygons, mask.shape), filled)


def test_simplified_polygons_stay_close_and_become_short():
    mask = disc((200, 300), (140, 90), 70)
    exact, simple = masks.to_polygons(mask, 0)[0], masks.to_polygons(mask)[0]
    assert len(simple) < len(exact) / 3
    assert masks.iou(from_polygons([simple], mask.shape), mask) > 0.98


@given(some_mask)
def test_every_polygon_has_three_corners_inside_the_picture(mask):
    height, width = mask.shape
    for polygon in masks.to_polygons(mask):
        points = np.reshape(polygon, (-1, 2))
        assert len(points) >= 3
        assert (points >= 0).all() and (points <= (width, height)).all()


@given(pairs(3), st.permutations([0.2, 0.5, 0.9]))
def test_label_map_shows_the_highest_score_and_counts_overlap(group, scores):
    stack = np.stack(group)
    labels, overlap = masks.label_map(stack, scores)
    assert labels.dtype == np.uint8
    assert overlap == np.count_nonzero(stack.sum(axis=0) > 1)
    for y, x in np.ndindex(labels.shape):
        claims = [k for k in range(3) if stack[k, y, x]]
        expected = 1 + max(claims, key=lambda k: scores[k]) if claims else 0
        assert labels[y, x] == expected


def test_label_map_ties_missing_scores_and_many_masks():
    full = np.ones((3, 2, 2), bool)
    assert masks.label_map(full, [0.5, 0.5, 0.5])[0].max() == 1
    assert masks.label_map(full, [np.nan, 0.1, np.nan])[0].max() == 2
    many, overlap = masks.label_map(np.ones((300, 2, 2), bool), np.arange(300))
    assert (many.dtype, many.max(), overlap) == (np.uint16, 300, 4)
    none, overlap = masks.label_map(np.zeros((0, 2, 2), bool), [])
    assert (none.max(), overlap) == (0, 0)
