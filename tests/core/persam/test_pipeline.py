"""From pictures to results on an engine."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import save_file

from core.engine import CancelToken, Engine
from core.errors import Cancelled, PromptError
from core.exports import record
from core.models.catalogue import Entry
from core.persam.config import FitConfig, PersamConfig
from core.persam.pipeline import correct, find, learn
from core.persam.profile import MAX_REFERENCES, Profile
from core.persam.target import Reference
from core.prompts import Points

FIT = FitConfig(steps=20, max_pixels=None)


@pytest.fixture(scope="module")
def engine(sam, sam_config, tmp_path_factory) -> Engine:
    """An engine whose models are the golden one, twice."""
    path = tmp_path_factory.mktemp("models") / "golden.safetensors"
    save_file(sam.state_dict(), path)
    entries = {
        name: Entry(
            id=name,
            method="sam",
            set="embedded",
            title=name.title(),
            note="",
            file=str(path),
            license="",
            source="",
            memory_mib=50,
            builder="core.sam.build:build_from_entry",
            config=vars(sam_config),
        )
        for name in ("golden", "other")
    }
    return Engine(device="cpu", models=entries)


@pytest.fixture(scope="module")
def learned(engine, reference):
    return learn(engine, "golden", [reference], name="ellipse", fit=FIT)


@pytest.fixture
def image(golden) -> np.ndarray:
    return golden["in.test_image"]


def test_learning_gives_a_profile_and_a_curve(learned, golden):
    assert learned.profile.name == "ellipse"
    assert learned.warnings == ()
    assert learned.seconds.keys() == {"encode", "fit", "total"}
    assert len(learned.fit.loss) == 20
    np.testing.assert_allclose(
        learned.profile.scale_weights.vector, golden["out.f20_weights3"][:, 0], atol=1e-5
    )


def test_finding_is_the_golden_answer(engine, learned, golden, image):
    result = find(engine, "golden", image, learned.profile)
    segmentation = result.segmentation
    assert (segmentation.method, segmentation.labels) == ("persam", ("ellipse",))
    assert segmentation.score_kind == "persam_iou"
    assert segmentation.seconds.keys() == {"encode", "predict", "total"}
    assert (segmentation.masks[0] != golden["out.final_mask"]).mean() < 1e-3
    (trace,) = result.traces
    assert [stage.name for stage in trace.found[0].stages] == [
        "first",
        "refinement_1",
        "refinement_2",
    ]
    assert trace.similarity.full().shape == image.shape[:2]
    json.dumps(record(segmentation))


def test_persam_f_uses_the_learned_weights(engine, learned, golden, image):
    result = find(engine, "golden", image, learned.profile, PersamConfig.persam_f())
    assert result.segmentation.method == "persam_f"
    assert (result.segmentation.masks[0] != golden["out.f20_final_mask"]).mean() < 1e-3


def test_a_saved_profile_finds_the_same(engine, learned, image, tmp_path):
    again = Profile.read(learned.profile.save(tmp_path / "ellipse.safetensors"))
    config = PersamConfig.persam_f()
    masks = [
        find(engine, "golden", image, profile, config).segmentation.masks
        for profile in (learned.profile, again)
    ]
    assert_array_equal(*masks)


def test_a_profile_of_another_model_is_refused(engine, learned, image):
    with pytest.raises(PromptError, match="golden, not with other"):
        find(engine, "other", image, learned.profile)


def test_absent_is_an_answer_with_its_score(engine, learned, image):
    result = find(engine, "golden", image, learned.profile, PersamConfig(presence_threshold=1.01))
    assert len(result.segmentation) == 0
    (dropped,) = result.segmentation.dropped
    assert dropped.label == "ellipse" and 0 <= dropped.score <= 1
    assert "not in this picture" in dropped.reason and "1.01" in dropped.reason
    assert result.traces[0].found[0].mask.any(), "the panel shows what was considered"


def test_several_references_become_one_object(engine, reference, image):
    turned = Reference(reference.image[::-1].copy(), reference.mask[::-1].copy())
    learned = learn(engine, "golden", [reference, turned], fit=FIT)
    assert len(learned.profile.target.means) == 2
    assert len(find(engine, "golden", image, learned.profile).segmentation) == 1


def test_objects_compete_for_pixels(engine, learned, reference, image):
    other = np.zeros_like(reference.mask)
    other[:40, :40] = True
    corner = learn(engine, "golden", [Reference(reference.image, other)], name="corner")
    result = find(engine, "golden", image, [learned.profile, corner.profile])
    segmentation = result.segmentation
    assert segmentation.masks.sum(axis=0).max() <= 1
    assert set(segmentation.labels) | {d.label for d in segmentation.dropped} == {
        "ellipse",
        "corner",
    }
    assert len(result.traces) == 2


def test_corrections_keep_numbers_and_the_others(engine, learned, image):
    config = PersamConfig(max_instances=4, instance_ratio=0.0)
    result = find(engine, "golden", image, learned.profile, config)
    number = result.segmentation.numbers[-1]
    clicks = Points.parse([[10, 10, 0]], image.shape[:2])
    new = correct(engine, "golden", image, result, number, clicks)
    assert new.find(number)[1].stages[-1].name == "correction"
    for other in set(result.segmentation.numbers) - {number}:
        assert new.find(other)[1] is result.find(other)[1]
    with pytest.raises(PromptError, match="no instance 99"):
        correct(engine, "golden", image, result, 99, clicks)


def test_what_was_not_found_can_be_clicked(engine, learned, image):
    result = find(engine, "golden", image, learned.profile, PersamConfig(presence_threshold=1.01))
    click = Points.parse([[60, 60, 1]], image.shape[:2])
    new = correct(engine, "golden", image, result, 1, click)
    assert new.segmentation.numbers == (1,) or new.segmentation.dropped


def test_learning_needs_references_and_can_be_cancelled(engine, reference):
    for count in (0, MAX_REFERENCES + 1):
        with pytest.raises(PromptError, match=f"There are {count} reference"):
            learn(engine, "golden", [reference] * count)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        learn(engine, "golden", [reference], cancel=cancel)


def test_finding_needs_an_object(engine, image):
    with pytest.raises(PromptError, match="no object"):
        find(engine, "golden", image, [])


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (200, 17)])
def test_pictures_of_any_shape(engine, learned, size):
    image = np.full((*size, 3), 120, np.uint8)
    result = find(engine, "golden", image, learned.profile)
    assert result.segmentation.masks.shape[1:] == size
    assert torch.isfinite(result.traces[0].similarity.full()).all()
