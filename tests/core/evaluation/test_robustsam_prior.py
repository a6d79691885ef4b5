"""Masks as a prior of deblurring: true ones help, and every prior meets the same picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from core.errors import ImageError
from core.evaluation.data import Example
from core.evaluation.robustsam_prior import PRIORS, evaluate_prior
from core.sam.geometry import Geometry
from core.sam.predictor import Prediction

SIZE = 64


class Fixed:
    """Answers every prompt with the same masks."""

    multimask = True

    def __init__(self, masks: np.ndarray) -> None:
        self.logits = torch.from_numpy(masks).float()[:, None] * 20 - 10

    def encode(self, image: np.ndarray) -> None:
        assert image.shape == (SIZE, SIZE, 3)

    def predict_batch(self, embedding: None, **prompt: Any) -> Prediction:
        return Prediction(
            self.logits, torch.ones(len(self.logits), 1), Geometry.of((SIZE, SIZE), SIZE)
        )


@pytest.fixture
def example() -> Example:
    y, x = np.mgrid[:SIZE, :SIZE]
    mask = (y - 32) ** 2 + (x - 30) ** 2 < 15**2
    image = np.where(mask[..., None], [210, 60, 40], [90, 100, 200]).astype(np.uint8)
    return Example("disc", image, mask[None])


def test_true_masks_bound_what_a_prior_can_do(example: Example) -> None:
    sam, robust = Fixed(np.roll(example.masks, 9, axis=2)), Fixed(example.masks)
    scores = evaluate_prior(sam, robust, [example] * 3)  # type: ignore[arg-type]
    figures = scores.figures()
    names = {
        f"prior_{m}_{p}" for m in ("psnr", "ssim", "subject_psnr", "subject_ssim") for p in PRIORS
    }
    assert names <= figures.keys()
    assert figures["prior_psnr_none"] > figures["prior_psnr_degraded"] + 2
    assert figures["prior_psnr_true"] > figures["prior_psnr_none"]
    assert figures["prior_subject_psnr_true"] > figures["prior_subject_psnr_sam"]
    assert figures["prior_subject_ssim_true"] > figures["prior_subject_ssim_degraded"]
    assert figures["prior_psnr_robust"] == figures["prior_psnr_true"], "the same masks"
    assert figures["prior_iou_robust"] == 1 > figures["prior_iou_sam"]
    details = scores.details()
    assert details["scored_pictures"] == 3
    assert details["interval_95"]["psnr_true_over_none"][0] > 0
    with pytest.raises(ImageError, match="no picture"):
        evaluate_prior(sam, robust, [])  # type: ignore[arg-type]
