import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from segment_anything.modeling import Sam

from core.engine.cache import EmbeddingCache
from core.errors import ImageError, PromptError
from core.sam.predictor import ImageEmbedding, Prediction, Predictor

CALLS = {
    "one_point": ("one_point", "one_label", None, False, True),
    "points": ("points", "labels", None, False, False),
    "box": (None, None, "box", False, False),
    "box_points": ("boxpt", "boxpt_labels", "box", False, False),
    "point_mask": ("one_point", "one_label", None, True, False),
    "mask_only": (None, None, None, True, True),
}


@pytest.fixture(scope="module", params=["package encoder", "fast encoder"])
def encoded(request, golden, golden_sam, fast_golden_sam) -> tuple[Predictor, ImageEmbedding]:
    predictor = Predictor(golden_sam if request.param == "package encoder" else fast_golden_sam)
    return predictor, predictor.encode(golden["in:image"])


def test_resizing_and_embedding_equal_the_golden_ones(golden, encoded):
    _, embedding = encoded
    assert_array_equal(embedding.geometry.resize(golden["in:image"]), golden["out:resized_image"])
    assert embedding.input_size == tuple(golden["out:input_size"])
    assert embedding.original_size == tuple(golden["out:original_size"])
    assert_allclose(embedding.features, golden["out:image_embedding"], rtol=0, atol=1e-4)
    assert embedding.nbytes == 128 * 16 * 16 * 4


@pytest.mark.parametrize("name", CALLS)
def test_predict_equals_the_golden_call(golden, encoded, name):
    predictor, embedding = encoded
    coords, labels, box, uses_mask, multimask = CALLS[name]
    prediction = predictor.predict(
        embedding,
        point_coords=golden[f"in:{coords}"] if coords else None,
        point_labels=golden[f"in:{labels}"] if labels else None,
        box=golden[f"in:{box}"] if box else None,
        mask_input=golden["out:mask_input"] if uses_mask else None,
        multimask_output=multimask,
    )
    check_against_golden(golden, name, prediction, batched=False)


def test_batches_equal_the_golden_calls(golden, encoded):
    predictor, embedding = encoded
    boxes = predictor.predict_batch(embedding, boxes=golden["in:boxes"], multimask_output=False)
    check_against_golden(golden, "boxes", boxes, batched=True)
    points = predictor.predict_batch(
        embedding, point_coords=golden["in:batch_points"], point_labels=golden["in:batch_labels"]
    )
    check_against_golden(golden, "batch_points", points, batched=True)


def check_against_golden(golden, name: str, prediction: Prediction, *, batched: bool) -> None:
    """Tolerances of the golden case: logits 1e-3, IoU 1e-4, mask bits only where |logit| < 1e-3."""
    low_res, iou = prediction.low_res_logits, prediction.iou_predictions
    logits, masks = prediction.mask_logits(), prediction.masks()
    if not batched:
        low_res, iou, logits, masks = low_res[0], iou[0], logits[0], masks[0]
    assert_allclose(low_res, golden[f"out:{name}.low_res"], rtol=0, atol=1e-3)
    assert_allclose(iou, golden[f"out:{name}.iou"], rtol=0, atol=1e-4)
    if f"out:{name}.logits" in golden:
        assert_allclose(logits, golden[f"out:{name}.logits"], rtol=0, atol=1e-3)
    bits = np.unpackbits(golden[f"out:{name}.mask_bits"], axis=-1, count=200).astype(bool)
    assert (np.abs(logits.numpy()[masks != bits]) < 1e-3).all()


def test_one_batch_equals_single_prompts(golden, predictor):
    """Chunks of two, a padded point row, and points together with boxes."""
    embedding = predictor.encode(golden["in:image"])
    small_chunks = Predictor(predictor.sam, batch_size=2)
    coords = np.array([[[30, 40], [0, 0]], [[150, 20], [60, 90]], [[99, 120], [5, 5]]], np.float32)
    labels = np.array([[1, -1], [1, 0], [1, 1]])
    boxes = golden["in:boxes"][:3]
    batch = small_chunks.predict_batch(
        embedding, point_coords=coords, point_labels=labels, boxes=boxes
    )
    for i in range(3):
        single = predictor.predict(
            embedding, point_coords=coords[i], point_labels=labels[i], box=boxes[i]
        )
        assert_allclose(batch.low_res_logits[i], single.low_res_logits[0], rtol=0, atol=1e-4)
        assert_allclose(batch.iou_predictions[i], single.iou_predictions[0], rtol=0, atol=1e-5)


def test_mask_inputs_belong_to_their_prompts(golden, predictor):
    embedding = predictor.encode(golden["in:image"])
    masks = np.stack([golden["out:mask_input"], -golden["out:mask_input"]])
    batch = predictor.predict_batch(
        embedding,
        boxes=golden["in:boxes"][:2],
        mask_input=torch.from_numpy(masks),
        multimask_output=False,
    )
    for i in range(2):
        single = predictor.predict(
            embedding, box=golden["in:boxes"][i], mask_input=masks[i], multimask_output=False
        )
        assert_allclose(batch.low_res_logits[i], single.low_res_logits[0], rtol=0, atol=1e-4)


def test_best_and_select_take_the_highest_predicted_iou(golden, predictor):
    prediction = predictor.predict(
        predictor.encode(golden["in:image"]), point_coords=[[100, 80]], point_labels=[1]
    )
    chosen = prediction.select(prediction.best())
    assert chosen.iou_predictions.item() == prediction.iou_predictions.max().item()
    best = prediction.iou_predictions[0].argmax()
    assert_array_equal(chosen.masks()[0, 0], prediction.masks()[0, best])


def test_threshold_moves_the_masks(golden, predictor):
    prediction = predictor.predict(
        predictor.encode(golden["in:image"]), point_coords=[[100, 80]], point_labels=[1]
    )
    median = prediction.mask_logits().median().item()
    small, large = (prediction.masks(median + step).sum() for step in (1.0, -1.0))
    assert 0 < small < large


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "no prompt"),
        ({"point_coords": [[1, 2]]}, "labels"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, "shape"),
        ({"point_coords": [1, 2], "point_labels": [1]}, "shape"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, "1 and 0"),
        ({"box": [[0, 0, 9, 9]]}, "shape"),
        ({"box": [0, 0, 9]}, "shape"),
        ({"mask_input": np.zeros((1, 256, 256))}, "64"),
    ],
)
def test_malformed_prompts_are_named(golden, predictor, prompt, message):
    embedding = predictor.encode(golden["in:image"])
    with pytest.raises(PromptError, match=message):
        predictor.predict(embedding, **prompt)


def test_parts_of_a_batch_have_to_be_as_many(golden, predictor):
    embedding = predictor.encode(golden["in:image"])
    with pytest.raises(PromptError, match="rows"):
        predictor.predict_batch(
            embedding,
            point_coords=np.zeros((2, 1, 2)),
            point_labels=np.ones((2, 1)),
            boxes=golden["in:boxes"],
        )


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
)
def test_only_rgb_bytes_are_encoded(predictor, image):
    with pytest.raises(ImageError, match="RGB"):
        predictor.encode(image)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (37, 1), (300, 40)])
def test_extreme_shapes_come_back_at_their_size(predictor, size):
    image = np.full((*size, 3), 127, np.uint8)
    embedding = predictor.encode(image)
    prediction = predictor.predict(embedding, point_coords=[[0, 0]], point_labels=[1])
    assert max(embedding.input_size) == predictor.image_size
    assert prediction.masks().shape == (1, 3, *size)
    assert torch.isfinite(prediction.mask_logits()).all()


def test_the_cache_encodes_each_picture_once(golden, fast_golden_sam, monkeypatch):
    cache = EmbeddingCache(2**20)
    predictor = Predictor(fast_golden_sam, model_id="golden", cache=cache)
    image = golden["in:image"]
    first = predictor.encode(image)
    assert predictor.encode(image.copy()) is first
    assert predictor.encode(image[:, ::-1].copy()) is not first
    other = Predictor(fast_golden_sam, model_id="another", cache=cache)
    assert other.encode(image) is not first
    assert cache.stats().misses == 3


def test_threads_share_a_predictor(golden, predictor):
    """Two visitors with different pictures get what each would get alone."""
    images = [golden["in:image"], golden["in:image"][::-1].copy()]
    alone = [run_one(predictor, image) for image in images]
    results: list[np.ndarray | None] = [None] * 8

    def visit(i: int) -> None:
        results[i] = run_one(predictor, images[i % 2])

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in enumerate(results):
        assert_array_equal(result, alone[i % 2])


def run_one(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    prediction = predictor.predict(
        predictor.encode(image), point_coords=[[60, 70]], point_labels=[1]
    )
    return prediction.low_res_logits.numpy()


def test_a_batch_that_does_not_fit_is_halved(golden, fast_golden_sam, monkeypatch):
    predictor = Predictor(fast_golden_sam, batch_size=4)
    embedding = predictor.encode(golden["in:image"])
    expected = predictor.predict_batch(embedding, boxes=golden["in:boxes"])
    sizes: list[int] = []
    encode_prompts = predictor._encode_prompts

    def encode_two_at_most(prompts, rows):
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return encode_prompts(prompts, rows)

    monkeypatch.setattr(predictor, "_encode_prompts", encode_two_at_most)
    got = predictor.predict_batch(embedding, boxes=golden["in:boxes"])
    assert sizes == [4, 2, 2]
    assert_allclose(got.low_res_logits, expected.low_res_logits, rtol=0, atol=1e-4)


def test_other_errors_are_not_swallowed(golden, fast_golden_sam: Sam, monkeypatch):
    predictor = Predictor(fast_golden_sam)
    embedding = predictor.encode(golden["in:image"])

    def fail(prompts, rows):
        raise RuntimeError("something else")

    monkeypatch.setattr(predictor, "_encode_prompts", fail)
    with pytest.raises(RuntimeError, match="something else"):
        predictor.predict_batch(embedding, boxes=golden["in:boxes"])
