"""Masks as a prior of deblurring: what RobustSAM's are worth there (paper, section 4.4, table 8).

The paper puts masks into networks for dehazing and deblurring. Here they guide a classical
deblurring (``restoration.deblur``) of pictures smeared by motion and covered with noise, whose
clear originals are known. The blur's kernel is given and the noise is not. The same method runs
without any mask, with SAM's and RobustSAM's masks of the bad picture, one click for each object,
and with the true masks, which bounds what any mask can do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import masks as mask_ops
from core.degradations import degrade_chain
from core.degradations.blur import centred_line_kernel
from core.errors import ImageError
from core.evaluation.data import Example
from core.evaluation.metrics import bootstrap_interval, mask_scores
from core.evaluation.robustsam import answer, make_prompts
from core.robustsam.predictor import RobustPredictor
from core.robustsam.restoration import deblur
from core.sam.predictor import Predictor

STEPS = (("motion_blur", 5), ("gauss_noise", 3))
PRIORS = ("none", "sam", "robust", "sam_boxes", "robust_boxes", "true")
NEAR = 1 / 64  # of the longer side: how far the subjects' surroundings reach


@dataclass
class PriorScores:
    """PSNR in dB and SSIM of every picture by prior; PSNR in and near the subjects; mask IoU."""

    psnr: dict[str, list[float]] = field(default_factory=dict)
    ssim: dict[str, list[float]] = field(default_factory=dict)
    subject_psnr: dict[str, list[float]] = field(default_factory=dict)
    iou: dict[str, list[float]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Means over pictures; "degraded" is the picture before deblurring."""
        return {
            f"prior_{measure}_{name}": float(np.mean(values))
            for measure in ("psnr", "ssim", "subject_psnr", "iou")
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
        image, kernel = smear(example.image, seed)
        near = mask_ops.dilate(np.any(example.masks, axis=0), NEAR * max(image.shape[:2]))
        add_qualities(scores, "degraded", image, example.image, near)
        for name, masks in find_priors(sam, robust, image, example.masks).items():
            restored = deblur(image, kernel, masks)
            add_qualities(scores, name, restored, example.image, near)
            if masks is not None and name != "true":
                scores.add("iou", name, float(mask_scores(masks, example.masks)[:, 0].mean()))
    if not len(scores):
        raise ImageError("There is no picture with a mask to evaluate on.")
    return scores


def smear(image: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Blur by motion and add noise; the picture and the blur's kernel."""
    degraded = degrade_chain(image, STEPS, seed=seed)
    drawn = degraded.parameters["steps"][0]["drawn"]
    return degraded.image, centred_line_kernel(drawn["length_px"], drawn["angle"])


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


def add_qualities(
    scores: PriorScores,
    name: str,
    image: NDArray[np.uint8],
    clear: NDArray[np.uint8],
    near: NDArray[np.bool_],
) -> None:
    from skimage.metrics import structural_similarity

    side = min(7, *clear.shape[:2]) // 2 * 2 + 1  # the usual window, unless it does not fit
    side = side if side <= min(clear.shape[:2]) else side - 2
    ssim = structural_similarity(image, clear, channel_axis=2, win_size=side)
    scores.add("psnr", name, peak_signal_to_noise(image, clear))
    scores.add("ssim", name, float(ssim))
    scores.add("subject_psnr", name, peak_signal_to_noise(image[near], clear[near]))


def peak_signal_to_noise(image: NDArray[np.uint8], clear: NDArray[np.uint8]) -> float:
    """PSNR in dB of values in [0, 255]; 100 for equal pictures."""
    error = np.mean((image.astype(np.float64) - clear.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else 100.0
