import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torchvision.ops import nms

from core.masks import mask_to_box
from core.sam.candidates import point_grid
from core.sam.edges import boundary_strength, detect_edges, normalise, thin_edges


def test_strength_lies_on_the_outer_boundary_only():
    y, x = np.mgrid[:40, :50].astype(np.float32)
    logits = 12 - np.hypot(y - 20, x - 25)
    mask = logits > 0
    strength = boundary_strength(1 / (1 + np.exp(-logits)), mask)
    assert (strength[mask] == 0).all()
    assert (strength[logits < -3] == 0).all()
    # The slope of a sigmoid near 0 is 1/4; Sobel weighs both sides of 8 pixels: 8 times that.
    assert 1.5 < strength[strength > 0].mean() < 2.0


def test_the_frame_draws_no_edge():
    mask = np.ones((20, 20), bool)
    mask[:, 12:] = False
    strength = boundary_strength(mask.astype(np.float32), mask)
    assert set(np.nonzero(strength)[1]) == {12}


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 135])
def test_thinning_leaves_a_line_of_a_pixel_where_the_ridge_is(angle):
    direction = np.deg2rad(angle)
    y, x = np.mgrid[:61, :61] - 30.0
    distance = x * np.cos(direction) + y * np.sin(direction)
    thin = thin_edges(np.exp(-((distance / 2) ** 2)).astype(np.float32))
    inner = (slice(10, -10),) * 2
    assert (np.abs(distance[inner])[thin[inner] > 0] <= 0.8).all()
    # A line across 41 pixels: one or two per row or column of its longer side.
    assert 38 <= np.count_nonzero(thin[inner]) <= 41 * 2


def test_thinning_fades_out_towards_the_frame():
    edges = np.zeros((30, 30), np.float32)
    edges[15] = 1
    thin = thin_edges(edges)
    assert thin[15, 0] == 0
    assert_allclose(thin[15, :6] / thin[15, 15], np.arange(6) / 5, atol=1e-6)


def test_normalise():
    assert_allclose(normalise(np.array([[2.0, 4.0, 3.0]], np.float32)), [[0, 1, 0.5]])
    assert not normalise(np.full((2, 2), 0.7, np.float32)).any()


def test_edges_of_a_picture(golden, predictor):
    told: list[float] = []
    edges = detect_edges(
        predictor,
        predictor.encode(golden["in:image"]),
        progress=lambda fraction, message: told.append(fraction),
    )
    assert edges.shape == (150, 200)
    assert edges.dtype == np.float32
    assert (edges.min(), edges.max()) == (0, 1)
    assert told[-1] == 1.0


def test_edges_equal_the_recipe_at_full_size(golden, predictor):
    """Regions and filters are short cuts: the same from full-size logits of all 768 masks."""
    embedding = predictor.encode(golden["in:image"])
    points = point_grid(16) * (200, 150)
    prediction = predictor.predict_batch(
        embedding, point_coords=points[:, None], point_labels=np.ones((256, 1))
    )
    logits = prediction.mask_logits().flatten(0, 1)
    boxes = np.stack([mask_to_box(mask) for mask in (logits > 0).numpy()]).astype(np.float32)
    boxes[:, 2:] -= boxes[:, 2:] > 0
    iou = prediction.iou_predictions.flatten()
    expected = np.zeros((150, 200), np.float32)
    for i in nms(torch.from_numpy(boxes), iou, 0.7).tolist():
        strength = boundary_strength(logits[i].sigmoid().numpy(), (logits[i] > 0).numpy())
        expected = np.maximum(expected, strength)
    got = detect_edges(predictor, embedding, thin=False)
    assert_allclose(got, normalise(expected), atol=1e-3)
