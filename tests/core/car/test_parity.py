"""CaR equals the published code, array by array, on its golden case."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from core.car import cam, classifier, crf, refinement
from core.car.config import CarConfig, SamMatching
from core.car.pipeline import merged_mask, segment_phrases, segment_text
from core.car.referring import merge_phrases
from core.car.sam_ensemble import match_masks, snap_masks
from core.car.visual_prompts import VisualPrompter
from core.clip import towers

STEPS = (1, 2, 3)
SIZE = (96, 96)


def exact(actual, expected, atol=0.0):
    assert_allclose(np.asarray(actual, np.float64), expected, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def encoded(golden, generator):
    return cam.encode_image(generator, golden["image"], half_positions=True)


@pytest.fixture(scope="module")
def background(golden):
    return torch.from_numpy(golden["text_bg"])


def words_of(golden, step):
    rows = golden["text_raw" if step == 1 else "text_origami"]
    return torch.from_numpy(rows[golden[f"step{step}_live"]])


def test_the_picture_as_the_generator_takes_it(golden, generator):
    exact(cam.preprocess(generator, golden["image"], (6, 6)), golden["gen_input"])
    table = towers.resize_positions(generator.visual, (6, 6), half_positions=True)
    exact(table.half(), golden["gen_pos_embed_resized"])


def test_the_trunk_and_the_affinity(golden, generator, encoded):
    trunk = towers.run_trunk(generator, torch.from_numpy(golden["gen_input"]), half_positions=True)
    exact(trunk.tokens, golden["gen_penultimate"], atol=2e-5)
    last = towers.run_last_block(generator.visual, trunk.tokens)
    mean = (trunk.attention + last.attention) / 8
    exact(mean[1:, 1:], golden["attn_mean"], atol=1e-7)
    assert trunk.attention_blocks == 7
    exact(encoded.affinity @ encoded.affinity, golden["trans_mat"], atol=1e-6)
    target = encoded.last.target[0, 1:].T.reshape(-1, 6, 6)
    exact(target, golden["target_act"], atol=1e-5)


@pytest.mark.parametrize("step", STEPS)
def test_the_maps_of_each_step(golden, encoded, background, step):
    words = words_of(golden, step)
    probabilities = cam.word_probabilities(encoded, words, background)
    exact(probabilities.detach(), golden[f"step{step}_prob"][0, : len(words)], atol=1e-6)
    weights = cam.channel_weights(probabilities, encoded.last, 2)
    exact(weights, golden[f"step{step}_chan_weight"], atol=1e-8)
    maps = cam.gradcam(encoded, words, background)
    exact(maps, golden[f"step{step}_cam"], atol=1e-5)
    boxes = refinement.box_masks(maps, 0.4, short_boxes=True)
    exact(boxes, golden[f"step{step}_box_mask"])
    refined = refinement.refine_maps(encoded.affinity, maps, boxes)
    exact(refined, golden[f"step{step}_refined_low"], atol=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_the_scores_of_each_step(golden, classifier_scores, step):
    scores = classifier_scores(step)
    exact(scores.similarity, golden[f"step{step}_P"], atol=1e-5)
    exact(scores.own, golden[f"step{step}_scores"], atol=1e-5)


@pytest.fixture
def classifier_scores(golden, classifier_model, golden_config):
    def score(step):
        features = classifier.encode_pictures(
            classifier_model, golden[f"step{step}_prompted"], golden_config
        )
        words = torch.from_numpy(golden["text_cls"])[:, golden[f"step{step}_live"]]
        return classifier.score_pictures(
            features, words, words.new_zeros(0, 24), classifier_model.scale
        )

    return score


@pytest.mark.parametrize("step", STEPS)
def test_the_pictures_as_the_classifier_takes_them(golden, classifier_model, step):
    squares = [
        classifier.to_square(picture, classifier_model, "centre_crop")
        for picture in golden[f"step{step}_prompted"]
    ]
    pixels = cam.normalise_pixels(classifier_model, np.stack(squares))
    exact(pixels, golden[f"step{step}_cls_input"])


@pytest.mark.usefixtures("needs_crf")
def test_the_whole_run(golden, golden_json, golden_config, generator, classifier_model):
    result = segment_text(
        generator, classifier_model, golden["image"], golden_json["names"], golden_config
    )
    assert len(result.steps) == golden["n_steps"]
    for number, step in enumerate(result.steps, start=1):
        assert_array_equal(step.live, golden[f"step{number}_live"])
        assert_array_equal(step.kept, golden[f"step{number}_kept"])
        exact(step.cams, golden[f"step{number}_cam"], atol=1e-5)
        exact(step.boxes, golden[f"step{number}_box_mask"])
        exact(step.scores.similarity, golden[f"step{number}_P"], atol=1e-5)
        for row in range(len(step.live)):
            proposal = step.proposal(row, SIZE)
            exact(proposal, golden[f"step{number}_proposals"][row], atol=5e-5)
            marked = result.marked(number - 1, row)
            assert_array_equal(marked, golden[f"step{number}_prompted"][row])
    assert_array_equal(result.steps[-1].kept, golden["final_live"])
    exact(result.scores_of_queries(), golden["final_scores"], atol=1e-5)
    differing = result.masks_of_queries() != golden["final_masks_crf"].astype(bool)
    assert differing.mean() <= 1e-3
    labels = np.zeros(SIZE, int)
    for mask, number in zip(result.segmentation.masks, result.segmentation.ids, strict=True):
        labels[mask] = number
    assert (labels != golden["label_crf"]).mean() <= 1e-3
    assert result.post_process == "crf"


def test_the_whole_run_without_the_crf(
    golden, golden_json, golden_config, generator, classifier_model
):
    config = replace(golden_config, use_crf=False)
    result = segment_text(
        generator, classifier_model, golden["image"], golden_json["names"], config
    )
    labels = np.zeros(SIZE, int)
    for mask, number in zip(result.segmentation.masks, result.segmentation.ids, strict=True):
        labels[mask] = number
    assert (labels != golden["label_nocrf"]).mean() <= 1e-3
    assert result.post_process == "argmax"


@pytest.mark.parametrize(
    "kinds", ["blur", "gray", "black", "circle", "rectangle", "contour", "blur_gray_circle"]
)
def test_visual_prompts(golden, kinds):
    order = sorted(kinds.split("_"))  # whatever their order, the drawing's is fixed
    drawn = VisualPrompter(golden["image"], order).draw(golden["vp_mask"].astype(bool))
    assert_array_equal(drawn, golden[f"vp_{kinds}"])


@pytest.mark.usefixtures("needs_crf")
def test_the_crf(golden):
    probabilities = crf.with_background(golden["crf_cams"], 1.0)
    exact(probabilities, golden["crf_prob"], atol=1e-7)
    exact(crf.unary_energy(probabilities), golden["crf_unary"], atol=1e-6)
    assert_array_equal(crf.wrap_image(golden["crf_image_rgb"]), golden["crf_image_fed"])
    exact(crf.infer(golden["crf_image_fed"], probabilities), golden["crf_q"], atol=1e-4)
    plain = crf.infer(golden["crf_image_rgb"], probabilities)
    exact(plain, golden["crf_q_plain_rgb"], atol=1e-4)
    labels = crf.label_pixels(golden["crf_image_rgb"], golden["crf_cams"], CarConfig())
    assert (labels != golden["crf_label_plain_rgb"]).mean() <= 1e-3
    labels = crf.label_pixels(golden["crf_image_rgb"], golden["crf_cams"], CarConfig.parity())
    assert (labels != golden["crf_label"]).mean() <= 1e-3
    masks = labels == np.arange(1, 3)[:, None, None]
    assert (masks != golden["crf_masks"]).mean() <= 1e-3


@pytest.mark.parametrize("case", "abc")
def test_the_sam_ensemble(golden, case):
    iom, cover, least_iou, count = golden[f"sam_{case}_params"].tolist()
    config = SamMatching(iom_threshold=iom, min_cover=cover, iou_threshold=least_iou)
    masks, sam_masks = golden["sam_crf_masks"] > 0, golden["sam_masks"][: int(count)]
    matches = match_masks(masks, sam_masks, config)
    exact(matches.iom, golden[f"sam_{case}_iom"], atol=1e-6)
    assert_array_equal(matches.matched, golden[f"sam_{case}_kept"])
    assert_array_equal(matches.unions, golden[f"sam_{case}_union"])
    exact(matches.ious, golden[f"sam_{case}_iou"], atol=1e-6)
    evaluated = snap_masks(masks, sam_masks, config)
    assert_array_equal(evaluated, golden[f"sam_{case}_out_eval"] > 0)
    shown = snap_masks(masks, sam_masks, replace(config, always_replace=True))
    assert_array_equal(shown, golden[f"sam_{case}_out_demo"] > 0)


@pytest.mark.usefixtures("needs_crf")
def test_referring_step_by_step(golden, golden_config, encoded, background, classifier_model):
    words = torch.from_numpy(golden["text_raw"])
    maps = cam.gradcam(encoded, words, background, alone=True)
    exact(maps, golden["refer_cam"], atol=1e-5)
    prompter = VisualPrompter(golden["image"], ["circle"])
    proposals = golden["refer_proposals"]
    marked = [prompter.draw(proposal > 0.4) for proposal in proposals]
    features = classifier.encode_pictures(classifier_model, marked, golden_config)
    phrases = torch.from_numpy(golden["refer_text_cls"])[None]
    scores = classifier.score_pictures(
        features, phrases, phrases.new_zeros(0, 24), classifier_model.scale, ensemble=False
    )
    exact(scores.similarity, golden["refer_P"], atol=1e-5)
    masks = np.stack(
        [crf.label_pixels(golden["image"], one[None], golden_config) == 1 for one in proposals]
    )
    assert (masks != golden["refer_masks_crf"].astype(bool)).mean() <= 1e-3
    merged = merge_phrases(golden["refer_masks_crf"].astype(bool), golden["refer_scores"])
    assert_array_equal(merged, golden["refer_merged"] > 0)


@pytest.mark.usefixtures("needs_crf")
def test_referring_as_a_whole(golden, golden_json, golden_config, generator, classifier_model):
    """Nothing dropped and one step: the golden arrays are those of step 1."""
    config = replace(golden_config, templates=(), visual_prompts=("circle",), recurrence=False)
    result = segment_phrases(
        generator, classifier_model, golden["image"], golden_json["names"], config
    )
    (step,) = result.steps
    for row, expected in enumerate(golden["refer_proposals"]):
        exact(step.proposal(row, SIZE), expected, atol=5e-5)
    exact(result.scores_of_queries(), golden["refer_scores"], atol=1e-5)
    expected = golden["refer_masks_crf"].astype(bool)
    assert (result.masks_of_queries() != expected).mean() <= 1e-3
    assert (merged_mask(result) != (golden["refer_merged"] > 0)).mean() <= 1e-3
