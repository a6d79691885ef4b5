"""Equality with the published code on a stored case: tests/data/golden/pixellm_case1.npz."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from core.pixellm import losses
from core.pixellm.codebook import Codebook, find_groups, state_positions
from core.pixellm.decoder import fuse_masks
from core.pixellm.postprocess import mask_scores, to_masks, upscale
from core.pixellm.preprocessing import Geometry, llm_image_mask
from core.pixellm.vision import resize_position_table

CODEBOOK = Codebook(tuple(range(101, 107)), scales=2)
GEOMETRY = Geometry.of((300, 300), 448)
TOLERANCE = 2e-4


def tensor(golden, name):
    return torch.from_numpy(golden[name])


@pytest.fixture(scope="module")
def features(golden):
    return [tensor(golden, f"in/clip_feature_{name}") for name in ("deep", "shallow")]


@pytest.fixture(scope="module")
def states(golden):
    ids = golden["in/output_ids"][0].tolist()
    positions = state_positions(find_groups(ids, CODEBOOK), ids, CODEBOOK, 256)
    assert_array_equal(np.ravel(positions), golden["mid/codebook_positions"])
    return tensor(golden, "in/llm_hidden_states")[0, positions]  # (K, L·N, D)


@pytest.fixture(scope="module")
def decoder_features(golden_network, features):
    return golden_network.decoder_features(golden_network.project_to_masks(features))


@pytest.fixture(scope="module")
def scale_logits(golden_network, states, decoder_features):
    return golden_network.scale_logits(states, decoder_features)


def test_patch_masks(golden):
    patches = GEOMETRY.patch_mask(14)
    assert_array_equal(patches.flatten().float(), golden["mid/vit_patch_mask"][1:])
    assert_array_equal(llm_image_mask(patches).float(), golden["mid/llm_image_mask"])


def test_position_table(golden):
    resized = resize_position_table(tensor(golden, "pos/in_577"), 32, "reference")
    assert_allclose(resized, golden["pos/reference_1025"], atol=1e-6)


def test_projectors(golden, golden_network, features):
    tokens = golden_network.project_to_words(features[0])
    assert_allclose(tokens, golden["mid/llm_image_tokens"], atol=TOLERANCE)
    projected = torch.stack(golden_network.project_to_masks(features))
    assert_allclose(projected, golden["mid/projected_features"], atol=TOLERANCE)


def test_codebook(golden, golden_network, states):
    vectors = golden_network.codebook_vectors(states)
    assert_allclose(vectors, golden["mid/codebook_vectors"], atol=TOLERANCE)
    fused = golden_network.fusion.fuse_tokens(vectors)
    assert_allclose(fused, golden["mid/fused_prompts"], atol=TOLERANCE)


def test_neck_and_upsampling(golden, golden_network, features, decoder_features):
    projected = golden_network.project_to_masks(features)
    for level in range(2):
        grid = projected[level].transpose(1, 2).unflatten(2, (32, 32))
        neck = golden_network.image_feature_neck(grid)[0]
        assert_allclose(neck, golden[f"mid/neck_feature_scale{level}"], atol=TOLERANCE)
    assert_allclose(decoder_features[1][0], golden["mid/upsampled_feature_scale1"], atol=TOLERANCE)


def test_what_the_transformers_get_and_give(golden, golden_network, states, decoder_features):
    seen = []
    handles = [
        transformer.register_forward_hook(lambda _, args, out: seen.append((args, out)))
        for transformer in golden_network.mask_decoder.transformer
    ]
    golden_network.scale_logits(states, decoder_features)
    for handle in handles:
        handle.remove()
    dense = golden_network.prompt_encoder.no_mask_embed.weight[..., None, None]
    for level, ((_src, pos, tokens), (tokens_out, _)) in enumerate(seen):
        for name, value in (("tokens", tokens), ("pos", pos[0]), ("tokens_out", tokens_out)):
            expected = golden[f"mid/transformer_{name}_scale{level}"]
            assert_allclose(value, expected, atol=TOLERANCE, err_msg=f"{name} {level}")
    modulated = seen[1][0][0] - dense
    assert_allclose(modulated, golden["mid/modulated_feature_scale1"], atol=TOLERANCE)


def test_mask_logits(golden, golden_network, scale_logits, states, decoder_features):
    for level, logits in enumerate(scale_logits):
        assert_allclose(logits, golden[f"mid/mask_logits_scale{level}"], atol=TOLERANCE)
    fused = golden_network.decode(states, decoder_features)
    assert_allclose(fused, golden["out/fused_mask_logits"][:, 0], atol=TOLERANCE)


def test_masks_and_scores(golden, golden_network, scale_logits):
    weights = golden_network.fusion.scale_weights(golden_network.device)
    logits = upscale(fuse_masks(scale_logits, weights), GEOMETRY)
    assert_allclose(logits, golden["out/post_mask_logits"], atol=TOLERANCE)
    differ = to_masks(logits) != golden["out/masks"].astype(bool)
    assert np.abs(golden["out/post_mask_logits"][differ]).max(initial=0) < 1e-3
    assert_allclose(mask_scores(logits), golden["out/mask_scores"], atol=1e-5)


def test_losses(golden):
    logits = tensor(golden, "out/fused_mask_logits")[:, 0]
    targets = tensor(golden, "loss/targets")
    dice, bce = losses.dice_loss(logits, targets).mean(), losses.mask_loss(logits, targets).mean()
    refinement = losses.target_refinement_loss(logits, targets)
    plain = losses.target_refinement_loss(logits, targets, alpha=1.0)
    assert_allclose(dice, golden["loss/dice"], rtol=1e-5)
    assert_allclose(bce, golden["loss/bce"], rtol=1e-5)
    assert_allclose(plain, golden["loss/bce"], rtol=1e-5)
    assert_allclose(refinement, golden["loss/target_refinement_alpha2"], rtol=1e-5)
    assert_allclose(refinement - plain, golden["loss/overlap"], rtol=1e-5)
