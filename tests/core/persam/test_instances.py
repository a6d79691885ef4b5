"""Several instances, absent objects, corrections and competition, on the golden model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine import CancelToken
from core.errors import Cancelled, PromptError
from core.masks import iou
from core.persam.cascade import Prompt, Stage, as_prediction, refine, run_cascade, stage_of
from core.persam.config import PersamConfig
from core.persam.instances import compete, correct_instance, find_instances
from core.persam.scale import ScaleWeights
from core.persam.target import Target, pool_target
from core.prompts import Points
from core.sam.geometry import Geometry

ALL = PersamConfig(max_instances=6, instance_ratio=0.0)


@pytest.fixture(scope="module")
def target(predictor, reference, reference_embedding):
    return pool_target(predictor, reference_embedding, reference.mask, PersamConfig())[0]


def test_instances_are_new_places(predictor, test_embedding, target):
    _, found = find_instances(predictor, test_embedding, target, None, ALL)
    peaks = [f.presence.peak for f in found]
    assert peaks == sorted(peaks, reverse=True)
    for i, one in enumerate(found):
        x, y = one.points.coords[0].astype(int)
        assert not any(other.mask[y, x] for other in found[:i])
        assert all(iou(one.mask, other.mask) < ALL.same_instance_iou for other in found[:i])


def test_the_ratio_stops(predictor, test_embedding, target):
    config = replace(ALL, instance_ratio=1.01)
    _, found = find_instances(predictor, test_embedding, target, None, config)
    assert len(found) == 1


def test_taken_places_are_not_looked_at(predictor, test_embedding, target):
    _, (first,) = find_instances(predictor, test_embedding, target, None, PersamConfig())
    x, y = first.points.coords[0].astype(int)
    taken = np.zeros_like(first.mask)
    taken[max(0, y - 30) : y + 30, max(0, x - 30) : x + 30] = True
    _, (other,) = find_instances(
        predictor, test_embedding, target, None, PersamConfig(), taken=[taken]
    )
    x, y = other.points.coords[0].astype(int)
    assert not taken[y, x]


@pytest.mark.parametrize(("threshold", "accepted"), [(None, True), (0.0, True), (1.01, False)])
def test_below_the_threshold_it_is_not_there(
    predictor, test_embedding, target, threshold, accepted
):
    config = replace(ALL, presence_threshold=threshold)
    _, found = find_instances(predictor, test_embedding, target, None, config)
    assert found[0].accepted is accepted
    if not accepted:
        assert len(found) == 1 and found[0].mask.any(), "what was considered is kept"


def test_features_of_another_size_are_refused(predictor, test_embedding, target):
    foreign = Target(torch.ones(1, 9), torch.ones(1, 9))
    with pytest.raises(PromptError, match="9 channels"):
        find_instances(predictor, test_embedding, foreign, None, PersamConfig())


def test_learned_weights_have_to_be_there(predictor, test_embedding, target):
    with pytest.raises(PromptError, match="PerSAM-F"):
        find_instances(predictor, test_embedding, target, None, PersamConfig.persam_f())
    equal = PersamConfig.persam_f(scale="equal")
    third = ScaleWeights()
    _, (a,) = find_instances(predictor, test_embedding, target, None, equal)
    _, (b,) = find_instances(predictor, test_embedding, target, third, PersamConfig.persam_f())
    assert np.array_equal(a.mask, b.mask)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["first", "refinement_1", "refinement_2"]),
        ({"refinement_1": False}, ["first", "refinement_2"]),
        ({"refinement_2": False}, ["first", "refinement_1"]),
        ({"refinement_1": False, "refinement_2": False}, ["first"]),
    ],
)
def test_passes_can_be_left_out(predictor, test_embedding, target, changes, names):
    _, (found,) = find_instances(predictor, test_embedding, target, None, PersamConfig(**changes))
    assert [stage.name for stage in found.stages] == names


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_weight": 3.0},
        {"aligned_guidance": True},
        {"guided_attention": False},
        {"semantic_prompt": False},
        {"negative_point": False},
        {"points": 2},
        {"points": 2, "distinct_points": False},
        {"pooling": "mean_max"},
        {"refinement_1_box": True},
        {"scale": "equal"},
    ],
)
def test_each_switch_does_something(golden, predictor, target, changes):
    embedding = predictor.encode(golden["in.test_image"][:90])  # not square: one corrects for that
    answers = [
        find_instances(predictor, embedding, target, None, config)[1][0]
        for config in (PersamConfig(), PersamConfig(**changes))
    ]
    different = [
        a.low_res_logits.shape != b.low_res_logits.shape
        or not np.array_equal(a.low_res_logits, b.low_res_logits)
        for a, b in zip(*(answer.stages for answer in answers), strict=True)
    ]
    assert any(different)


def test_an_empty_mask_is_followed_by_the_next_pass(predictor, test_embedding):
    """The published code fails here."""
    size = test_embedding.original_size
    points = Points.parse([[5, 5, 1]], size)
    empty = np.full((64, 64), -9, np.float32)
    former = stage_of("first", as_prediction(empty[None], test_embedding.geometry), 0)
    assert not former.mask.any()
    stage = refine("refinement_2", predictor, test_embedding, points, former, use_box=True)
    assert stage.box is None
    stages = run_cascade(predictor, test_embedding, Prompt(points), PersamConfig())
    assert len(stages) == 3


def test_correction_joins_the_personal_points(predictor, test_embedding, target):
    similarity, (found,) = find_instances(predictor, test_embedding, target, None, PersamConfig())
    size = test_embedding.original_size
    far = Points.parse([[size[1] - 2, size[0] - 2, 1]], size)
    cell = similarity.cell_side
    corrected = correct_instance(
        predictor, test_embedding, target, found, far, cell, PersamConfig()
    )
    assert corrected.stages[-1].name == "correction"
    assert len(corrected.points) == len(found.points) + 1
    assert corrected.stages[:-1] == found.stages


def test_a_click_outweighs_the_personal_point_under_it(predictor, test_embedding, target):
    similarity, (found,) = find_instances(predictor, test_embedding, target, None, PersamConfig())
    x, y = found.points.coords[0]
    against = Points.parse([[x, y, 0]], test_embedding.original_size)
    corrected = correct_instance(
        predictor, test_embedding, target, found, against, similarity.cell_side, PersamConfig()
    )
    assert corrected.points.labels.tolist() == [0, 0]


def test_where_nothing_was_found_clicks_say_where(predictor, test_embedding, target):
    config = PersamConfig(presence_threshold=1.01)
    similarity, (absent,) = find_instances(predictor, test_embedding, target, None, config)
    size, cell = test_embedding.original_size, similarity.cell_side
    for clicks, message in (
        (Points.empty(), "no correction"),
        (Points.parse([[3, 3, 0]], size), "click on it first"),
    ):
        with pytest.raises(PromptError, match=message):
            correct_instance(predictor, test_embedding, target, absent, clicks, cell, config)
    click = Points.parse([[30, 40, 1]], size)
    there = correct_instance(predictor, test_embedding, target, absent, click, cell, config)
    assert there.accepted == there.mask.any()
    assert there.points.labels.tolist() == [0, 1], "the personal positive point was wrong"


def test_it_can_be_cancelled(predictor, test_embedding, target):
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        find_instances(predictor, test_embedding, target, None, ALL, cancel=cancel)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(20, 80), st.integers(20, 80))
def test_competition_leaves_each_pixel_to_one(count, height, width):
    geometry = Geometry.of((height, width), 64)
    random = torch.Generator().manual_seed(count * 6400 + height * 80 + width)
    logits = torch.randn(count, 16, 16, generator=random).numpy()
    stages: list[Stage] = [
        stage_of("first", as_prediction(layer[None], geometry), 0) for layer in logits
    ]
    masks = compete(stages, (height, width))
    single = np.stack([stage.mask for stage in stages])
    assert (masks.sum(axis=0) <= 1).all()
    assert not (masks & ~single).any(), "nobody wins what it did not claim"
    full = as_prediction(logits, geometry).mask_logits()[0].numpy()
    clear = full.max(axis=0) > 1e-4
    assert (masks.any(axis=0) | ~clear).all(), "what was claimed goes to somebody"


def test_nobody_competes_alone():
    assert compete([], (4, 5)).shape == (0, 4, 5)
