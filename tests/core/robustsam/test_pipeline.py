"""Both models on one picture, by an engine whose models are the golden ones."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import save_file

from core.degradations import degrade
from core.engine import CancelToken, Engine
from core.errors import Cancelled, ModelUnavailable, NothingFound, PromptError
from core.masks import iou
from core.models.catalogue import Entry
from core.prompts import Boxes, Points
from core.robustsam import pipeline
from core.robustsam.exports import comparison_record, write_comparison
from core.robustsam.predictor import RobustPredictor
from core.sam import pipeline as sam_pipeline
from core.sam.everything import EverythingConfig
from core.sam.predictor import Predictor

POINT = Points(np.array([[80.0, 75.0]], np.float32), np.array([1]))
BOXES = Boxes(np.array([[20, 20, 90, 110], [100, 30, 180, 120]], np.float32))


def entry(model_id, path, builder, config) -> Entry:
    return Entry(
        id=model_id,
        method=model_id,
        set="embedded",
        title=model_id,
        note="",
        file=str(path),
        license="",
        source="",
        memory_mib=50,
        builder=builder,
        config=config,
    )


@pytest.fixture(scope="module")
def models(
    robust_golden_config, robust_golden_weights, golden_robust, tmp_path_factory
) -> dict[str, Entry]:
    """RobustSAM as published (one file, wrapped), the SAM inside it, and another SAM."""
    folder = tmp_path_factory.mktemp("models")
    added = {f"mask_decoder.{k}" for k in golden_robust("image").mask_decoder.added_parameters()}
    plain = {k: v for k, v in robust_golden_weights.items() if k not in added}
    other = {k: v + 0.01 if k == "image_encoder.pos_embed" else v for k, v in plain.items()}
    save_file(
        {f"module.{k}": v for k, v in robust_golden_weights.items()}, folder / "robust.safetensors"
    )
    save_file(plain, folder / "sam.safetensors")
    save_file(other, folder / "other.safetensors")
    sam = json.loads(json.dumps(asdict(robust_golden_config("image").sam)))
    robust = {"sam": sam, "compare_with": "sam", "norm_stats": "image"}
    build_sam = "core.sam.build:build_from_entry"
    build_robust = "core.robustsam.build:build_from_entry"
    return {
        "sam": entry("sam", folder / "sam.safetensors", build_sam, sam),
        "other": entry("other", folder / "other.safetensors", build_sam, sam),
        "robustsam": entry("robustsam", folder / "robust.safetensors", build_robust, robust),
        "unlike": entry(
            "unlike",
            folder / "robust.safetensors",
            build_robust,
            {**robust, "compare_with": "other"},
        ),
    }


@pytest.fixture(scope="module")
def engine(models) -> Engine:
    return Engine(device="cpu", models=models)


def test_both_answers_are_those_of_the_models_alone(golden, engine):
    image = golden["image"]
    found = pipeline.compare(engine, "robustsam", image, points=POINT)
    sam = sam_pipeline.segment(engine, "sam", image, points=POINT)
    robust = pipeline.segment_robust(engine, "robustsam", image, points=POINT)
    assert_array_equal(found.sam.segmentation.masks, sam.segmentation.masks)
    assert_array_equal(found.robust.segmentation.masks, robust.segmentation.masks)
    assert found.agreement == iou(sam.segmentation.masks[0], robust.segmentation.masks[0])
    assert found.robust.segmentation.method == "robustsam"
    assert found.robust.low_res_logits.shape[1] == 1  # three masks were never trained
    assert found.sam.low_res_logits.shape[1] == 3
    truth = np.zeros(image.shape[:2], bool)
    truth[30:90, 40:120] = True
    expected = [iou(one.segmentation.masks[0], truth) for one in (sam, robust)]
    assert found.ious(truth) == tuple(expected)


def test_the_picture_is_encoded_once_for_both(golden, models, monkeypatch):
    calls = []
    own = Predictor._encode
    monkeypatch.setattr(Predictor, "_encode", lambda *a: calls.append("sam") or own(*a))
    theirs = RobustPredictor._encode
    monkeypatch.setattr(RobustPredictor, "_encode", lambda *a: calls.append("robust") or theirs(*a))
    engine = Engine(device="cpu", models=models)
    pipeline.compare(engine, "robustsam", golden["image"], boxes=BOXES)
    pipeline.compare(engine, "robustsam", golden["image"], points=POINT)
    assert calls == ["robust"]
    pipeline.compare(engine, "unlike", golden["image"], points=POINT)
    assert calls == ["robust", "robust", "sam"], "another encoder encodes for itself"


def test_several_boxes_give_as_many_masks(golden, engine):
    found = pipeline.compare(engine, "robustsam", golden["image"], boxes=BOXES)
    assert len(found.sam.segmentation) == len(found.robust.segmentation) == 2


def test_everything_on_the_robust_path(golden, engine):
    config = EverythingConfig(
        points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )
    found = pipeline.segment_all_robust(engine, "robustsam", golden["image"], config)
    assert found.method == "robustsam_everything"
    assert len(found) > 3 and found.masks.any(axis=(1, 2)).all()


def test_a_sweep_degrades_compares_and_measures(golden, engine):
    image = golden["image"]
    steps = [("clear", 1), ("rain", 3), ("elastic_transform", 5)]
    done = list(pipeline.sweep(engine, "robustsam", image, steps, seed=4, points=POINT))
    assert [(step.name, step.severity) for step in done] == steps
    assert done[0].sam_iou == 1.0  # measured with SAM's own mask of the clear picture
    assert_array_equal(done[1].degraded.image, degrade(image, "rain", severity=3, seed=4).image)
    truth = pipeline.clear_mask(engine, "robustsam", image, points=POINT)
    moved = done[2].degraded.displace_mask(truth)
    assert done[2].sam_iou == done[2].comparison.ious(moved)[0]
    with pytest.raises(PromptError, match="no prompt"):
        next(pipeline.sweep(engine, "robustsam", image, steps))
    token = CancelToken()
    running = pipeline.sweep(engine, "robustsam", image, steps, points=POINT, cancel=token)
    next(running)
    token.cancel()
    with pytest.raises(Cancelled):
        next(running)


def test_a_threshold_above_all_logits_finds_nothing(golden, engine):
    with pytest.raises(NothingFound, match="lower it"):
        pipeline.compare(engine, "robustsam", golden["image"], points=POINT, threshold=1e6)


def test_one_answer_may_be_missing(golden, engine):
    """SAM finds something where RobustSAM does not: the page still shows SAM's."""
    image = golden["image"]
    sam = sam_pipeline.segment(engine, "sam", image, points=POINT).low_res_logits.max()
    robust = pipeline.segment_robust(engine, "robustsam", image, points=POINT).low_res_logits.max()
    threshold = (float(sam) + float(robust)) / 2
    found = pipeline.compare(engine, "robustsam", image, points=POINT, threshold=threshold)
    assert (found.sam is None) != (found.robust is None)
    assert found.agreement == 0


def test_embeddings_of_another_model_are_refused(golden, golden_robust):
    sam = golden_robust("image")
    embedding = Predictor(sam).encode(golden["image"])
    with pytest.raises(PromptError, match="encode the picture again"):
        RobustPredictor(sam).predict(embedding, point_coords=[[1, 1]], point_labels=[1])
    robust = RobustPredictor(sam).encode(golden["image"])
    assert robust.nbytes > embedding.nbytes
    with pytest.raises(PromptError, match="no other transformer"):
        RobustPredictor(sam).predict(
            robust, point_coords=[[1, 1]], point_labels=[1], transformer=lambda *a: a
        )


def test_a_missing_or_wrong_file_is_named(models, tmp_path):
    empty = tmp_path / "empty.safetensors"
    save_file({"module.image_encoder.pos_embed": torch.zeros(1, 12, 12, 48)}, empty)
    broken = replace(models["robustsam"], file=str(empty))
    with pytest.raises(ModelUnavailable, match="do not fit robustsam: .* missing"):
        with Engine(device="cpu", models={"robustsam": broken}).model("robustsam"):
            pass


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64)])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_pictures_of_one_colour_give_numbers(golden_robust, shape, value):
    predictor = RobustPredictor(golden_robust("image"))
    embedding = predictor.encode(np.full((*shape, 3), value, np.uint8))
    assert torch.isfinite(embedding.image_features).all()
    prediction = predictor.predict(embedding, point_coords=[[0, 0]], point_labels=[1])
    assert torch.isfinite(prediction.low_res_logits).all()
    assert prediction.masks().shape[2:] == shape


def test_files_of_a_comparison(golden, engine, tmp_path):
    image = golden["image"]
    degraded = degrade(image, "fog", severity=4, seed=1)
    found = pipeline.compare(engine, "robustsam", degraded.image, boxes=BOXES)
    told = comparison_record(found, degraded.parameters, (0.25, 0.5), ("Small.",))
    files = write_comparison(degraded.image, found, told, "a picture", tmp_path / "out")
    assert all(path.is_file() for path in files.all) and len(files.overlays) == 2
    told = json.loads(files.comparison.read_text())
    assert told["degradation"]["name"] == "fog" and told["iou"] == {"sam": 0.25, "robustsam": 0.5}
    assert len(told["results"]["robustsam"]["instances"]) == 2
    assert told["warnings"] == ["Small."]
    names = zipfile.ZipFile(files.archive).namelist()
    assert sum("_sam_" in name for name in names) > 4
    assert sum("_robustsam_" in name for name in names) > 6
    alone = pipeline.Comparison(None, found.robust, None)
    told = comparison_record(alone, {}, None)
    assert told["results"]["sam"] is None and told["iou"] is None
    assert len(write_comparison(image, alone, told, "b", tmp_path / "one").overlays) == 1
