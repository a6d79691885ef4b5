"""Masks as a prior of deblurring: what RobustSAM's are worth there (paper, section 4.4, table 8).

The paper puts masks into networks for dehazing and deblurring. Here they guide a classical
deblurring (``restoration.deblur``) of pictures smeared by motion and covered with noise, whose
clear originals are known. The blur's kernel is given and the noise is not. The same method runs
without any mask, with SAM's and RobustSAM's masks of the bad picture, one click for each object,
and with the true masks, which bounds what any mask can do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.degradations import degrade_chain
from core.errors import ImageError
from core.evaluation.data import Example
from core.evaluation.metrics import bootstrap_interval, mask_scores
from core.evaluation.robustsam import answer, make_prompts
from core.robustsam.predictor import RobustPredictor
from core.robustsam.priors import around, read_smear, restore_with_priors
from core.sam.predictor import Predictor

STEPS = (("motion_blur", 5), ("gauss_noise", 3))
MEASURES = ("psnr", "ssim", "subject_psnr", "subject_ssim", "iou")
PRIORS = ("none", "sam", "robust", "sam_boxes", "robust_boxes", "true")


@dataclass
class PriorScores:
    """PSNR in dB and SSIM of every picture by prior, as a whole and near the subjects; mask IoU."""

    psnr: dict[str, list[float]] = field(default_factory=dict)
    ssim: dict[str, list[float]] = field(default_factory=dict)
    subject_psnr: dict[str, list[float]] = field(default_factory=dict)
    subject_ssim: dict[str, list[float]] = field(default_factory=dict)
    iou: dict[str, list[float]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Means over pictures; "degraded" is the picture before deblurring."""
        return {
            f"prior_{measure}_{name}": float(np.mean(values))
            for measure in MEASURES
            for name, values in getattr(self, measure).items()
        }

    def details(self) -> dict[str, Any]:
        """95 % bootstrap intervals of the differences that matter."""
        pairs = {
            "robust_over_sam": ("robust", "sam"),
            "robust_over_none": ("robust", "none"),
            "true_over_none": ("true", "none"),
        }
        intervals = {
            f"{measure}_{name}": bootstrap_interval(np.subtract(values[better], values[worse]))
            for measure, values in (("psnr", self.psnr), ("subject_psnr", self.subject_psnr))
            for name, (better, worse) in pairs.items()
        }
        return {"degradations": STEPS, "interval_95": intervals, "scored_pictures": len(self)}

    def add(self, measure: str, name: str, value: float) -> None:
        getattr(self, measure).setdefault(name, []).append(value)

    def __len__(self) -> int:
        return len(self.psnr.get("none", ()))


def evaluate_prior(
    sam: Predictor, robust: RobustPredictor, examples: Iterable[Example]
) -> PriorScores:
    """Deblur every example under every prior. Raises ImageError if there is no example."""
    scores = PriorScores()
    for seed, example in enumerate(examples):
        clear = example.image
        smear = read_smear(clear, degrade_chain(clear, STEPS, seed=seed))
        priors = find_priors(sam, robust, smear.image, example.masks)
        near = around(np.any(example.masks, axis=0))
        for one in restore_with_priors(smear.image, smear.kernel, priors, clear, near):
            for measure, value in asdict(one.quality).items():
                scores.add(measure, one.name, value)
        for name, masks in priors.items():
            if masks is not None and name != "true":
                scores.add("iou", name, float(mask_scores(masks, example.masks)[:, 0].mean()))
    if not len(scores):
        raise ImageError("There is no picture with a mask to evaluate on.")
    return scores


def find_priors(
    sam: Predictor, robust: RobustPredictor, image: NDArray[np.uint8], truth: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_] | None]:
    """Masks (N, H, W) by prior: answers to one click, or to a box, for each object."""
    prompts = make_prompts(truth)
    priors: dict[str, NDArray[np.bool_] | None] = {"none": None, "true": truth}
    for prompt, suffix in (("points", ""), ("boxes", "_boxes")):
        for name, predictor in (("sam", sam), ("robust", robust)):
            priors[name + suffix] = answer(
                predictor, predictor.encode(image), prompts[prompt], multimask=prompt == "points"
            )
    return {name: priors[name] for name in PRIORS}
