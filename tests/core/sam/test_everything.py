from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from core.engine.cancellation import CancelToken
from core.errors import Cancelled, PromptError
from core.sam.everything import EverythingConfig, crop_boxes, segment_everything
from core.sam.fast_encoder import accelerate
from core.sam.predictor import Predictor

ALL = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


@pytest.fixture(scope="module")
def blob_sam(golden_sam: Sam) -> Sam:
    """The golden model with all mask logits lowered by 4: its masks become blobs of all sizes."""
    sam = deepcopy(golden_sam)
    sam.mask_decoder.output_upscaling[3].weight[:, 0] = 0
    sam.mask_decoder.output_upscaling[3].bias[0] = 10  # a channel that is always 10
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight[0] = 0
        mlp.layers[-1].bias[0] = -0.4
    return sam


@pytest.fixture(scope="module")
def blobs(blob_sam) -> Predictor:
    return Predictor(accelerate(blob_sam), model_id="blobs")


@pytest.mark.parametrize(
    "settings",
    [
        {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.005, "box_nms_thresh": 0.97},
        {**ALL, "box_nms_thresh": 0.9, "points_per_batch": 7},
        {**ALL, "pred_iou_thresh": 0.3, "stability_score_offset": 0.5},
        {**ALL, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        {**ALL, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "box_nms_thresh": 0.9},
        {**ALL, "min_mask_region_area": 60, "box_nms_thresh": 0.9},
        {**ALL, "min_mask_region_area": 200, "crop_n_layers": 1, "crop_nms_thresh": 0.5},
    ],
)
def test_records_equal_the_package_s(golden, blob_sam, blobs, settings):
    image = golden["in:image"]
    settings = {"points_per_side": 8, **settings}
    expected = SamAutomaticMaskGenerator(blob_sam, **settings).generate(image)
    records = segment_everything(blobs, image, EverythingConfig(**settings))
    assert len(records) == len(expected) > 3
    for record, want in zip(records, expected, strict=True):
        got = record.to_dict("binary_mask")
        assert got.keys() == want.keys()
        assert (got["segmentation"] != want["segmentation"]).sum() <= 2  # logits within 1e-4 of 0
        assert got["point_coords"] == want["point_coords"]
        assert got["bbox"] == want["bbox"]
        assert got["crop_box"] == want["crop_box"]
        assert abs(got["area"] - want["area"]) <= 2
        assert got["predicted_iou"] == pytest.approx(want["predicted_iou"], abs=1e-4)
        # Where both shifted masks are empty the package has 0/0.
        stability = np.nan_to_num(want["stability_score"])
        assert got["stability_score"] == pytest.approx(stability, abs=1e-2)


def test_coco_rle_equals_the_package_s(golden, blob_sam, blobs):
    settings = {"points_per_side": 4, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.0}
    expected = SamAutomaticMaskGenerator(blob_sam, output_mode="coco_rle", **settings).generate(
        golden["in:image"]
    )
    records = segment_everything(blobs, golden["in:image"], EverythingConfig(**settings))
    for record, want in zip(records, expected, strict=True):
        got = record.to_dict("coco_rle")["segmentation"]
        assert got["size"] == want["segmentation"]["size"]
        assert_array_equal(coco.decode(got), record.mask)
        assert (coco.decode(got) != coco.decode(want["segmentation"])).sum() <= 2


def test_a_given_embedding_is_used(golden, blobs, monkeypatch):
    image = golden["in:image"]
    config = EverythingConfig(points_per_side=4, **ALL)
    expected = segment_everything(blobs, image, config)
    embedding = blobs.encode(image)
    monkeypatch.setattr(blobs, "encode", None)
    got = segment_everything(blobs, image, config, embedding=embedding)
    assert [record.bbox for record in got] == [record.bbox for record in expected]


def test_masks_of_nearly_everything_can_be_dropped(golden, predictor):
    """The golden model's own masks cover most of the picture."""
    image = golden["in:image"]
    limit = 0.95 * image.shape[0] * image.shape[1]
    keep = EverythingConfig(points_per_side=4, box_nms_thresh=1.0, **ALL)
    drop = EverythingConfig(points_per_side=4, box_nms_thresh=1.0, drop_full_image=True, **ALL)

    def fill(mode: EverythingConfig) -> list[int]:
        return [r.area for r in segment_everything(flooded, image, mode)]

    sam = deepcopy(predictor.sam)
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight[0] = 0
        mlp.layers[-1].bias[0] = 0.5
    sam.mask_decoder.output_upscaling[3].weight[:, 0] = 0
    sam.mask_decoder.output_upscaling[3].bias[0] = 10
    flooded = Predictor(sam)
    assert max(fill(keep)) >= limit
    assert max(fill(drop), default=0) < limit


def test_nothing_passing_gives_no_records(golden, blobs):
    config = EverythingConfig(points_per_side=2, pred_iou_thresh=99.0)
    assert segment_everything(blobs, golden["in:image"], config) == []


def test_progress_runs_to_the_end_and_names_crops(golden, blobs):
    told: list[tuple[float, str]] = []
    config = EverythingConfig(points_per_side=4, points_per_batch=6, crop_n_layers=1, **ALL)
    segment_everything(
        blobs, golden["in:image"], config, progress=lambda *report: told.append(report)
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert told[0] == (pytest.approx(6 / 16 / 5), "6 of 16 points, crop 1 of 5")


def test_cancelling_stops_between_batches(golden, blobs):
    token = CancelToken()
    config = EverythingConfig(points_per_side=4, points_per_batch=4, **ALL)
    with pytest.raises(Cancelled, match="after 4 of 16 points"):
        segment_everything(
            blobs,
            golden["in:image"],
            config,
            cancel=token,
            progress=lambda fraction, message: token.cancel(),
        )


@pytest.mark.parametrize(("size", "layers"), [((150, 200), 2), ((31, 500), 1), ((1000, 999), 3)])
def test_crops_are_the_package_s(size, layers):
    from segment_anything.utils.amg import generate_crop_boxes

    boxes, layer_of = generate_crop_boxes(size, layers, 512 / 1500)
    crops = list(crop_boxes(size, layers, 512 / 1500))
    assert [list(box) for box, _ in crops] == boxes
    assert [layer for _, layer in crops] == layer_of


@pytest.mark.parametrize("values", [{"points_per_side": 0}, {"crop_n_layers": 4}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(PromptError, match="choose"):
        EverythingConfig(**values)


def test_defaults_are_the_package_s():
    package = SamAutomaticMaskGenerator.__init__.__defaults__
    names = SamAutomaticMaskGenerator.__init__.__code__.co_varnames[2:]
    theirs = dict(zip(names, package, strict=False))
    config = EverythingConfig()
    for name in vars(config).keys() & theirs.keys() - {"points_per_batch"}:
        assert getattr(config, name) == theirs[name], name


def test_memory_of_a_batch_is_not_kept(golden, blobs):
    """A candidate's logits are a copy, not a view of all that its batch predicted."""
    from core.sam.candidates import find_candidates

    found = find_candidates(
        blobs, blobs.encode(golden["in:image"]), np.array([[50.0, 60.0], [120.0, 90.0]])
    )
    visible = [candidate for candidate in found if candidate.area]
    assert visible
    assert all(c.low_res_logits.untyped_storage().nbytes() == 64 * 64 * 4 for c in visible)
    assert all(isinstance(c.low_res_logits, torch.Tensor) for c in found)
