"""RobustSAM's losses, and one whole training step, equal the published code's."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.models.loading import load_weights
from core.robustsam.build import build_robust_sam
from core.sam.fast_encoder import accelerate
from core.training import robust_losses as losses
from core.training.robust_pairs import encode
from core.training.robustsam import decode_clear, decode_degraded


def test_units(robust_golden):
    unit = {n[10:]: torch.tensor(v) for n, v in robust_golden.items() if n.startswith("loss_unit/")}
    logits, target = unit["logits"], unit["target"].float()
    close = {"rtol": 1e-6, "atol": 1e-6}
    testing = torch.testing.assert_close
    testing(losses.focal_loss(logits, target).mean(), unit["focal"].float(), **close)
    testing(losses.focal_loss(logits, target, 1.0).mean(), unit["focal_noalpha"].float(), **close)
    dice = losses.dice_loss(logits, target)
    testing(dice.flatten(), unit["dice_per_sample"].flatten().float(), **close)
    testing(dice.mean(), unit["dice"].float(), **close)
    empty = losses.dice_loss(logits, torch.zeros_like(target)).mean()
    testing(empty, unit["dice_empty_target"].float(), **close)


@pytest.fixture
def step(robust_golden, robust_golden_config, robust_golden_weights):
    """The published training step: everything of the decoder learns, nothing is detached."""
    sam = build_robust_sam(robust_golden_config("image"))
    load_weights(sam, robust_golden_weights, name="golden")
    sam = accelerate(sam)
    sam.image_encoder.requires_grad_(False)
    sam.prompt_encoder.requires_grad_(False)
    sam.mask_decoder.train()
    side, size = sam.image_encoder.img_size, int(robust_golden["cfg/train_size"])

    def encoded(name, i):
        pixels = torch.tensor(robust_golden[f"train/{name}"][i]).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(
            pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
        )
        return encode(sam, pixels)

    image_pe = sam.prompt_encoder.get_dense_pe()
    clear, degraded, logits = [], [], []
    prompts = []
    for i in range(2):
        points = torch.tensor(robust_golden["train/points"][i][None]) * (side / size)
        labels = torch.ones(1, 3)
        with torch.no_grad():
            prompts.append(sam.prompt_encoder(points=(points, labels), boxes=None, masks=None))
        clear.append(decode_clear(sam.mask_decoder, encoded("clear", i), image_pe, *prompts[i]))
    for i in range(2):
        rows = torch.zeros(1, dtype=torch.long)
        output = decode_degraded(
            sam.mask_decoder, encoded("degraded", i), rows, image_pe, *prompts[i]
        )
        degraded.append(output)
        logits.append(F.interpolate(output.low_res_logits[:, :1], (side, side), mode="bilinear"))
    logits = F.interpolate(torch.cat(logits), (size, size), mode="bilinear")
    return sam, clear, degraded, logits


def test_a_training_step_equals_the_published_one(robust_golden, step):
    sam, clear, degraded, logits = step
    expected = {n[6:]: v for n, v in robust_golden.items() if n.startswith("train/")}
    clear_features = torch.cat([one.features for one in clear])
    features = torch.cat([one.mask_features for one in degraded])
    clear_tokens = torch.cat([one.tokens for one in clear])
    tokens = torch.cat([one.tokens for one in degraded])
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(clear_features.detach(), expected["clear_embeddings"], **close)
    np.testing.assert_allclose(features.detach(), expected["degraded_embeddings"], **close)
    np.testing.assert_allclose(clear_tokens.detach(), expected["clear_tokens"], **close)
    np.testing.assert_allclose(tokens.detach(), expected["degraded_tokens"], **close)
    np.testing.assert_allclose(logits.detach(), expected["degraded_logits"], **close)

    target = torch.tensor(expected["gt"]).float()[:, None]
    parts = {
        "loss_focal": losses.focal_loss(logits, target).mean(),
        "loss_dice": losses.dice_loss(logits, target).mean(),
        "loss_token_mse": F.mse_loss(tokens, clear_tokens),
        "loss_embedding_mse": F.mse_loss(features, clear_features),
        "loss_total": losses.segmentation_loss(logits, target).mean()
        + losses.consistency_loss(features, clear_features, tokens, clear_tokens),
    }
    for name, value in parts.items():
        np.testing.assert_allclose(value.detach(), expected[name], rtol=1e-4, err_msg=name)
    parts["loss_total"].backward()
    parameters = dict(sam.named_parameters())
    for name, norm in zip(expected["grad_names"], expected["grad_norms"], strict=True):
        gradient = parameters[str(name)].grad
        if norm < 0:
            assert gradient is None, name
        elif norm > 1e-3:
            np.testing.assert_allclose(gradient.norm(), norm, rtol=1e-2, err_msg=str(name))
    buffers = dict(sam.named_buffers())
    for name, value in expected.items():
        if name.startswith("bn_after/"):
            np.testing.assert_allclose(buffers[name[9:]], value, rtol=1e-5, atol=1e-5)
