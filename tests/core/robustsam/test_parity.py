"""The robust path equals the published code, stage by stage, on its golden case."""

import ast

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from core.robustsam.predictor import RobustPredictor
from core.sam.predictor import Predictor

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
STATS = {"bn_batch": "image", "bn_running": "running", "box_bn_batch": "image"}
STATS |= {"points_bn_batch": "image", "box_mask_bn_batch": "image"}
AMFG = {
    "early": "fourier_first_layer_features",
    "final": "fourier_last_layer_features",
    "maskf": "fourier_mask_features",
}
PARTS = {
    "sel.conv1": "dnc_block_combined.SEMBlock.maxpool_conv.0.conv1",
    "sel.conv2": "dnc_block_combined.SEMBlock.maxpool_conv.0.conv2",
    "sel.selector#0": "dnc_block_combined.SEMBlock.maxpool_conv.0.selector",
    "sel": "dnc_block_combined.SEMBlock.maxpool_conv.0",
    "dnc": "dnc_block_combined",
    "fds": "fgm_block",
    "reduce3x3": "conv_layer",
}


def groups(golden):
    return sorted({name.split("/")[0] for name in golden if name.endswith("/out.low_res_logits")})


def prompts_of(golden, group):
    """The group's prompts in pixels of the picture, as a predictor takes them."""
    height, width = golden["image"].shape[:2]
    side = int(golden["cfg/img_size"])
    scale = side / max(height, width)
    new = np.array([int(width * scale + 0.5), int(height * scale + 0.5)])
    to_picture = np.array([width, height]) / new
    part = {
        name: golden.get(f"{group}/in.{name}")
        for name in ("point_coords", "point_labels", "boxes", "mask_inputs")
    }
    return {
        "point_coords": None if part["point_coords"] is None else part["point_coords"] * to_picture,
        "point_labels": part["point_labels"],
        "boxes": None
        if part["boxes"] is None
        else (part["boxes"].reshape(-1, 2, 2) * to_picture).reshape(-1, 4),
        "mask_input": part["mask_inputs"],
    }


def test_low_res_logits_scores_and_masks(golden, golden_robust):
    names = groups(golden)
    assert len(names) >= 3
    for group in names:
        predictor = RobustPredictor(golden_robust(STATS[group]), resize="tensor")
        embedding = predictor.encode(golden["image"])
        prediction = predictor.predict_batch(
            embedding, **prompts_of(golden, group), multimask_output=False
        )
        assert_allclose(prediction.low_res_logits, golden[f"{group}/out.low_res_logits"], **CLOSE)
        assert_allclose(prediction.iou_predictions, golden[f"{group}/out.iou"], **CLOSE)
        differing = prediction.masks() != golden[f"{group}/out.masks"].astype(bool)
        assert differing.mean() <= 1e-3


def test_the_two_kinds_of_statistics_differ(golden):
    batch, running = (golden[f"{g}/out.low_res_logits"] for g in ("bn_batch", "bn_running"))
    assert np.abs(batch - running).max() > 100 * CLOSE["atol"]


def test_every_stage_of_the_features(golden, golden_robust):
    sam = golden_robust("image")
    seen = {}

    def keep(name):
        def hook(module, inputs, output):
            seen.setdefault(name, (inputs[0], output))

        return hook

    for short, name in AMFG.items():
        block = sam.mask_decoder.get_submodule(name)
        block.register_forward_hook(keep(short))
        for part, path in PARTS.items():
            block.get_submodule(path).register_forward_hook(keep(f"{short}.{part}"))
    predictor = RobustPredictor(sam, resize="tensor")
    embedding = predictor.encode(golden["image"])
    predictor.predict_batch(embedding, **prompts_of(golden, "bn_batch"), multimask_output=False)
    for name, (_, output) in seen.items():
        assert_allclose(output, golden[f"bn_batch/mid.{name}"], err_msg=name, **CLOSE)
    assert_allclose(seen["early"][0], golden["bn_batch/mid.early#in"], **CLOSE)
    assert_allclose(embedding.features, golden["bn_batch/mid.enc.image_embeddings"], **CLOSE)
    assert_allclose(embedding.image_features, golden["bn_batch/mid.robust_features"], **CLOSE)
    for short in AMFG:
        spectrum = torch.fft.fft2(seen[f"{short}.dnc"][1])
        expected = golden[f"bn_batch/mid.{short}.fds.amplitude"]
        assert_allclose(spectrum.abs(), expected, rtol=1e-3, atol=1e-3)
        phase = golden[f"bn_batch/mid.{short}.fds.phase"]
        assert_allclose(spectrum.real, expected * np.cos(phase), rtol=1e-3, atol=1e-3)
        assert_allclose(spectrum.imag, expected * np.sin(phase), rtol=1e-3, atol=1e-3)


def decode_all(sam, golden, group, early=None):
    """The training path on the golden picture: RobustOutput."""
    predictor = RobustPredictor(sam, resize="tensor")
    embedding = predictor.encode(golden["image"])
    prompts = predictor._prepare(embedding.geometry, *prompts_of(golden, group).values())
    sparse, dense = predictor._encode_prompts(prompts, slice(None))
    return sam.mask_decoder.decode_robust(
        image_embeddings=embedding.features,
        image_features=embedding.image_features,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


@torch.no_grad()
def test_tokens_and_all_sixteen_masks(golden, golden_robust):
    sam = golden_robust("image")
    output = decode_all(sam, golden, "bn_batch")
    assert_allclose(output.tokens, golden["bn_batch/out.robust_token"], **CLOSE)
    assert_allclose(output.mask_features, golden["bn_batch/out.robust_embeddings"], **CLOSE)
    assert_allclose(output.iou_predictions, golden["bn_batch/mid.all4_iou"], **CLOSE)
    rows = sam.mask_decoder.custom_token_block(output.tokens)  # (1, 4 tokens, 4 chunks, D)
    assert_allclose(rows[0], golden["bn_batch/mid.aotg"], **CLOSE)
    weights = sam.mask_decoder.robust_mlp(rows)
    assert_allclose(weights[0], golden["bn_batch/mid.robust_mlp"], **CLOSE)
    masks = torch.einsum("btkc,bchw->bkthw", weights, output.mask_features).flatten(1, 2)
    assert_allclose(masks[..., ::2, ::2], golden["bn_batch/mid.all16_low_res_logits_s2"], **CLOSE)
    assert_allclose(masks[:, :4], output.low_res_logits, **CLOSE)


def test_the_clear_path_is_plain_sam(golden, golden_robust):
    sam = golden_robust("image")
    embedding = RobustPredictor(sam, resize="tensor").encode(golden["image"])
    for multimask in (False, True):
        prediction = Predictor(sam).predict_batch(
            embedding, **prompts_of(golden, "bn_batch"), multimask_output=multimask
        )
        suffix = f"multimask{int(multimask)}"
        expected = golden[f"clear_path/low_res_logits_{suffix}"]
        assert_allclose(prediction.low_res_logits, expected, **CLOSE)
        assert_allclose(prediction.iou_predictions, golden[f"clear_path/iou_{suffix}"], **CLOSE)


@torch.no_grad()
def test_clear_features_skip_what_takes_degradation_out(golden, golden_robust):
    sam = golden_robust("image")
    early = torch.from_numpy(golden["bn_batch/mid.early#in"])
    final = torch.from_numpy(golden["bn_batch/mid.enc.image_embeddings"])
    decoder = sam.mask_decoder
    first = decoder.fourier_first_layer_features(early, clear=True)
    assert_allclose(first, golden["clear_path/early"], **CLOSE)
    last = decoder.fourier_last_layer_features(final, clear=True)
    assert_allclose(last, golden["clear_path/final"], **CLOSE)
    assert_allclose(decoder.image_features(early, final, clear=True), first + last, **CLOSE)


def test_three_masks_of_the_robust_path_keep_sams_scores(golden, golden_robust):
    predictor = RobustPredictor(golden_robust("image"), resize="tensor")
    embedding = predictor.encode(golden["image"])
    prediction = predictor.predict_batch(embedding, **prompts_of(golden, "bn_batch"))
    assert prediction.low_res_logits.shape[1] == 3  # the published code returns 15
    assert_allclose(prediction.iou_predictions, golden["multimask/iou"], **CLOSE)


def test_the_resized_picture(golden, golden_robust):
    predictor = RobustPredictor(golden_robust("image"), resize="tensor")
    geometry = predictor.encode(golden["image"]).geometry
    pixels = predictor._pixels(golden["image"], geometry)
    expected = golden["bn_batch/mid.enc.preprocessed_s4"]
    assert_allclose(pixels[..., ::4, ::4], expected, **CLOSE)
    assert ast.literal_eval(str(golden["prompt/json"]))["labels"]


@pytest.mark.parametrize("norm_stats", ["image", "running"])
def test_prompts_of_a_batch_do_not_see_each_other(golden, golden_robust, norm_stats):
    predictor = RobustPredictor(golden_robust(norm_stats))
    embedding = predictor.encode(golden["image"])
    points = np.array([[[60, 60]], [[80, 75]], [[170, 30]]], np.float32)
    labels = np.ones((3, 1))
    together = predictor.predict_batch(
        embedding, point_coords=points, point_labels=labels, multimask_output=False
    )
    for row in range(3):
        alone = predictor.predict(
            embedding, point_coords=points[row], point_labels=labels[row], multimask_output=False
        )
        assert_allclose(together.low_res_logits[row], alone.low_res_logits[0], **CLOSE)
