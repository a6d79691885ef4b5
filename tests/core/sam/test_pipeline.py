import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file

from core.engine import CancelToken, Engine
from core.errors import Cancelled, NothingFound, PromptError
from core.models.catalogue import Entry
from core.prompts import Boxes, MaskPrompt, Points
from core.sam import pipeline
from core.sam.everything import EverythingConfig
from core.sam.pipeline import (
    encode,
    find_edges,
    find_proposals,
    points_of_boxes,
    segment,
    segment_all,
)
from core.sam.predictor import Predictor
from core.sam.proposals import ProposalConfig

SIZE = (150, 200)


@pytest.fixture(scope="module")
def engine(golden, golden_sam, tmp_path_factory) -> Engine:
    """An engine whose only model is the golden one, loaded from a file."""
    import json

    path = tmp_path_factory.mktemp("models") / "golden.safetensors"
    save_file(golden_sam.state_dict(), path)
    entry = Entry(
        id="golden",
        method="sam",
        set="embedded",
        title="Golden",
        note="",
        file=str(path),
        license="",
        source="",
        memory_mib=50,
        builder="core.sam.build:build_from_entry",
        config=json.loads(bytes(golden["config"])),
    )
    return Engine(device="cpu", models={"golden": entry})


@pytest.fixture
def image(golden) -> np.ndarray:
    return golden["in:image"]


def points(*rows: tuple[float, float, int]) -> Points:
    return Points.parse(list(rows), SIZE)


def test_a_click_gives_three_readings_and_the_best(engine, image, golden):
    x, y = golden["in:one_point"][0]
    result = segment(engine, "golden", image, points=points((x, y, 1)))
    assert result.candidates is not None
    assert len(result.candidates) == 3
    assert result.low_res_logits.shape == (1, 3, 64, 64)
    assert_allclose(result.low_res_logits[0], golden["out:one_point.low_res"], atol=1e-3)
    best = int(golden["out:one_point.iou"].argmax())
    assert result.chosen.tolist() == [best]
    assert_array_equal(result.segmentation.masks[0], result.candidates.masks[best])
    segmentation = result.segmentation
    assert (segmentation.method, segmentation.model, segmentation.model_set) == (
        "sam",
        "golden",
        "embedded",
    )
    assert segmentation.size == SIZE
    assert segmentation.seconds.keys() == {"encode", "predict", "total"}
    assert 0 <= segmentation.scores[0] <= 1
    assert segmentation.parameters["multimask"] is True


def test_more_than_one_prompt_gives_one_reading(engine, image):
    clicks = points((60, 70, 1), (10, 10, 0))
    result = segment(engine, "golden", image, points=clicks)
    assert result.low_res_logits.shape[1] == 1
    forced = segment(engine, "golden", image, points=clicks, multimask=True)
    assert forced.low_res_logits.shape[1] == 3


def test_a_correction_click_reuses_the_logits(engine, image, golden):
    first = segment(engine, "golden", image, points=Points(golden["in:one_point"], np.array([1])))
    second = segment(
        engine,
        "golden",
        image,
        points=Points(golden["in:one_point"], np.array([1])),
        mask_input=first.mask_input,
    )
    assert_allclose(second.low_res_logits[0], golden["out:point_mask.low_res"], atol=2e-3)


def test_another_reading_can_be_chosen(engine, image):
    result = segment(engine, "golden", image, points=points((60, 70, 1)))
    for reading in range(3):
        other = result.choose(reading)
        assert_array_equal(other.segmentation.masks[0], result.candidates.masks[reading])
        assert_array_equal(other.mask_input[0], result.low_res_logits[0, reading])
    with pytest.raises(PromptError, match="reading 4"):
        result.choose(3)


def test_boxes_give_an_instance_each(engine, image, golden):
    boxes = Boxes(golden["in:boxes"])
    result = segment(engine, "golden", image, boxes=boxes, multimask=False)
    assert len(result.segmentation) == 4
    assert result.candidates is None
    assert_allclose(result.low_res_logits, golden["out:boxes.low_res"], atol=1e-3)
    with pytest.raises(PromptError, match="has 0"):
        result.choose(0)
    # Their logits go back as a batch too.
    again = segment(engine, "golden", image, boxes=boxes, mask_input=result.mask_input)
    assert len(again.segmentation) == 4


def test_points_go_to_the_boxes_around_them():
    boxes = Boxes.parse([[0, 0, 50, 50], [40, 40, 90, 90]], SIZE)
    clicks = points((10, 10, 1), (45, 45, 1), (199, 60, 1), (120, 20, 0))
    concerns = points_of_boxes(clicks, boxes)
    assert concerns.tolist() == [[True, True, False, True], [False, True, True, True]]


def test_points_and_several_boxes_are_each_box_alone(engine, image):
    boxes = Boxes.parse([[10, 10, 80, 80], [90, 20, 180, 140]], SIZE)
    clicks = points((40, 40, 1), (120, 60, 1))
    batch = segment(engine, "golden", image, boxes=boxes, points=clicks)
    with engine.model("golden") as sam:
        predictor = Predictor(sam)
        embedding = predictor.encode(image)
        for i in range(2):
            alone = predictor.predict(
                embedding,
                box=boxes.xyxy[i],
                point_coords=clicks.coords,
                point_labels=[(1, -1), (-1, 1)][i],
                multimask_output=False,
            )
            assert_allclose(batch.low_res_logits[i], alone.low_res_logits[0], atol=1e-4)


def test_refining_feeds_the_first_mask_back(engine, image):
    boxes = Boxes.parse([[20, 20, 150, 120]], SIZE)
    refined = segment(engine, "golden", image, boxes=boxes, refine=True)
    first = segment(engine, "golden", image, boxes=boxes)
    expected = segment(
        engine, "golden", image, boxes=boxes, mask_input=first.mask_input, multimask=False
    )
    assert_allclose(refined.low_res_logits, expected.low_res_logits, atol=1e-4)


def test_a_drawn_mask_is_a_prompt(engine, image):
    drawn = np.zeros(SIZE, bool)
    drawn[40:100, 50:120] = True
    result = segment(engine, "golden", image, mask_input=MaskPrompt.parse(drawn, SIZE))
    assert len(result.segmentation) == 1


def test_the_threshold_is_on_logits(engine, image):
    click = points((60, 70, 1))
    areas = [
        segment(engine, "golden", image, points=click, threshold=t).segmentation.areas[0]
        for t in (-2.0, 0.0, 2.0)
    ]
    assert areas[0] > areas[1] > areas[2]


def test_what_is_wrong_is_said(engine, image):
    with pytest.raises(PromptError, match="click"):
        segment(engine, "golden", image)
    with pytest.raises(PromptError, match="64"):
        segment(engine, "golden", image, mask_input=np.zeros((1, 256, 256), np.float32))
    with pytest.raises(NothingFound, match="threshold 999") as caught:
        segment(engine, "golden", image, points=points((60, 70, 1)), threshold=999.0)
    assert caught.value.best_score is not None


def test_small_masks_are_warned_about():
    warnings = pipeline._warnings(np.array([0, 10, 9000]), SIZE)
    assert warnings[0] == "Box 1 gave an empty mask."
    assert "Small" in warnings[1]
    assert pipeline._warnings(np.array([9000]), SIZE) == ()


def test_a_second_click_does_not_encode_again(engine, image):
    engine.embeddings.clear()
    hits = engine.embeddings.stats().hits
    encode(engine, "golden", image)
    segment(engine, "golden", image, points=points((60, 70, 1)))
    assert engine.embeddings.stats().hits == hits + 1


def test_visitors_do_not_see_each_other_s_pictures(engine, image):
    images = [image, image[:, ::-1].copy(), 255 - image]
    click = points((60, 70, 1))
    alone = [segment(engine, "golden", i, points=click).mask_input for i in images]
    engine.embeddings.clear()
    results: dict[int, np.ndarray] = {}

    def visit(k: int) -> None:
        results[k] = segment(engine, "golden", images[k % 3], points=click).mask_input

    threads = [threading.Thread(target=visit, args=(k,)) for k in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, mask_input in results.items():
        assert_allclose(mask_input, alone[k % 3], atol=1e-5)


def test_everything_is_sorted_by_area(engine, image):
    config = EverythingConfig(
        points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1.0
    )
    result = segment_all(engine, "golden", image, config)
    assert result.method == "sam_everything"
    assert result.areas.tolist() == sorted(result.areas, reverse=True)
    assert result.parameters["points_per_side"] == 4
    assert result.seconds.keys() == {"encode", "predict", "total"}


def test_everything_can_find_nothing(engine, image):
    config = EverythingConfig(points_per_side=2, pred_iou_thresh=50)
    with pytest.raises(NothingFound, match=r"50\.00"):
        segment_all(engine, "golden", image, config)


def test_settings_follow_the_model_set(engine, image, monkeypatch):
    seen: list[EverythingConfig] = []

    def record(predictor, image, config, **rest):
        seen.append(config)
        return []

    monkeypatch.setattr(pipeline, "segment_everything", record)
    with pytest.raises(NothingFound):
        segment_all(engine, "golden", image)
    assert seen == [EverythingConfig.embedded()]


def test_edges_and_proposals(engine, image):
    edges = find_edges(engine, "golden", image)
    assert edges.edges.shape == SIZE
    assert (edges.model, edges.model_set) == ("golden", "embedded")
    proposals = find_proposals(engine, "golden", image, ProposalConfig(points_per_side=3))
    assert proposals.method == "sam_proposals"
    assert len(proposals) > 0


@pytest.mark.parametrize("task", [segment_all, find_edges, find_proposals, encode])
def test_tasks_stop_on_request(engine, image, task):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        task(engine, "golden", image, cancel=token)
