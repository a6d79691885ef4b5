"""Personalized segmentation: PerSAM, PerSAM-F, their ablations, baselines, and absent objects.

PerSeg's protocol: an object's IoU is the sum of its pictures' intersections over the sum of their
unions, without the reference; mIoU is the mean over objects. Boundary IoU (Cheng et al., 2021)
takes bands of 2 % of the diagonal and is pooled the same way. The threshold of "not in this
picture" is calibrated on objects of the training split, never on those it is tested on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from core.evaluation.metrics import bootstrap_interval
from core.evaluation.persam_data import Subject
from core.persam.config import FitConfig, PersamConfig
from core.persam.instances import Found, find_instances
from core.persam.pipeline import fit_weights
from core.persam.presence import calibrate_threshold
from core.persam.target import covered_cells, pool_target
from core.sam.predictor import ImageEmbedding, Predictor

BAND = 0.02  # of the picture's diagonal

RAW = PersamConfig(refinement_1=False, refinement_2=False)
UNGUIDED = PersamConfig(guided_attention=False, semantic_prompt=False)
# Left out one at a time, and the paper's ablation table, which adds them up.
ABLATIONS = {
    "without_negative_point": PersamConfig(negative_point=False),
    "without_guided_attention": PersamConfig(guided_attention=False),
    "without_semantic_prompt": PersamConfig(semantic_prompt=False),
    "without_refinement": RAW,
    "without_refinement_2": PersamConfig(refinement_2=False),
}
BUILD_UP = {
    "positive_point": replace(
        RAW, negative_point=False, guided_attention=False, semantic_prompt=False
    ),
    "with_negative_point": replace(RAW, guided_attention=False, semantic_prompt=False),
    "with_refinement": UNGUIDED,
    "with_guided_attention": PersamConfig(semantic_prompt=False),
}
MAIN = {"persam": PersamConfig(), "persam_f": PersamConfig.persam_f()}
F_ABLATION = {"persam_f_equal_weights": PersamConfig.persam_f(scale="equal")}

# PerSeg mIoU: the paper's own ViT-H figures; ViT-B and ViT-L as the P2SAM authors re-ran them.
PUBLISHED = {
    "data": "PerSeg, 40 objects",
    "sam_vit_h": {"persam_miou": 0.893, "persam_f_miou": 0.953},
    "sam_vit_l": {"persam_miou": 0.866, "persam_f_miou": 0.922},
    "sam_vit_b": {"persam_miou": 0.640, "persam_f_miou": 0.872},
}


@dataclass
class Pooled:
    """Sums over one object's pictures, in pixels."""

    intersection: float = 0.0
    union: float = 0.0
    truth: float = 0.0
    band_intersection: float = 0.0
    band_union: float = 0.0

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        self.intersection += np.count_nonzero(mask & truth)
        self.union += np.count_nonzero(mask | truth)
        self.truth += np.count_nonzero(truth)
        ours, theirs = boundary_band(mask), boundary_band(truth)
        self.band_intersection += np.count_nonzero(ours & theirs)
        self.band_union += np.count_nonzero(ours | theirs)

    @property
    def figures(self) -> dict[str, float]:
        return {
            "miou": self.intersection / max(self.union, 1),
            "biou": self.band_intersection / max(self.band_union, 1),
            "macc": self.intersection / max(self.truth, 1),
        }


@dataclass
class PersamScores:
    """Figures of every object, by variant; presence scores of pictures with and without it."""

    objects: dict[str, dict[str, Pooled]] = field(default_factory=dict)
    present: list[float] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)

    def values(self, variant: str, figure: str) -> list[float]:
        """One figure of one variant, object by object."""
        return [variants[variant].figures[figure] for variants in self.objects.values()]

    def figures(self) -> dict[str, float]:
        """Means over objects, and how often the first point lies on the object."""
        variants = next(iter(self.objects.values()))
        figures = {f"{name}_miou": float(np.mean(self.values(name, "miou"))) for name in variants}
        for name in MAIN:
            for figure in ("biou", "macc"):
                figures[f"{name}_{figure}"] = float(np.mean(self.values(name, figure)))
        return figures | {"point_on_object": float(np.mean(self.hits))}

    def details(self) -> dict[str, object]:
        """Each object's figures, and 95 % bootstrap intervals over objects."""
        rows = {
            name: {f"{v}_{k}": x for v in MAIN for k, x in variants[v].figures.items()}
            for name, variants in self.objects.items()
        }
        intervals = {name: bootstrap_interval(self.values(name, "miou")) for name in MAIN}
        return {"objects": rows, "interval_95_miou": intervals, "pictures": len(self.hits)}


def evaluate(
    predictor: Predictor,
    subjects: Iterable[Subject],
    *,
    ablations: bool = True,
    fit: FitConfig | None = None,
    mask_value: int = 255,
) -> PersamScores:
    """Score PerSAM and PerSAM-F on every picture of every subject.

    Args:
        ablations: also every technique left out, the paper's build-up, and both baselines.
        fit: of PerSAM-F's weights.
        mask_value: of the reference masks; PerSeg's published figures come from 128.
    """
    scores = PersamScores()
    as_given = PersamConfig(mask_value=mask_value)
    configs = dict(MAIN)
    if ablations:
        configs |= ABLATIONS | BUILD_UP | F_ABLATION
    for subject in subjects:
        reference = subject.reference
        embedding = predictor.encode(reference.image)
        target, _ = pool_target(predictor, embedding, reference.mask, as_given)
        fitted = fit_weights(
            predictor, [embedding], [reference], target, MAIN["persam_f"], fit or FitConfig()
        )
        pooled: dict[str, Pooled] = defaultdict(Pooled)
        for example in subject.examples:
            truth = example.masks[0]
            seen = predictor.encode(example.image)
            for name, config in configs.items():
                _, (found,) = find_instances(predictor, seen, target, fitted.weights, config)
                pooled[name].add(found.mask, truth)
                if name in MAIN:
                    pooled[f"{name}_oracle"].add(closest_reading(found, truth), truth)
                if name == "persam":
                    scores.present.append(found.presence.score)
                    x, y = found.points.coords[0].astype(int)
                    scores.hits.append(bool(truth[y, x]))
            if ablations:
                pooled["centre_point"].add(centre_point_mask(predictor, seen), truth)
                nearest = nearest_feature_mask(embedding, reference.mask, seen)
                pooled["nearest_feature"].add(nearest, truth)
        for image in subject.absent:
            _, (found,) = find_instances(
                predictor, predictor.encode(image), target, None, MAIN["persam"]
            )
            scores.absent.append(found.presence.score)
        scores.objects[subject.name] = dict(pooled)
    return scores


def presence_figures(scores: PersamScores, calibration: PersamScores) -> dict[str, float]:
    """How well "not in this picture" is answered, with the threshold of other objects.

    ``absent_recall`` is the share of pictures without the object that are answered so,
    ``absent_false_alarm`` that of pictures with it;
    ``presence_auc`` does not depend on the threshold: 0.5 is chance.
    """
    threshold = calibrate_threshold(calibration.present, calibration.absent)
    return {
        "absent_recall": float(np.mean(np.array(scores.absent) < threshold)),
        "absent_false_alarm": float(np.mean(np.array(scores.present) < threshold)),
        "presence_threshold": threshold,
        "presence_auc": float(
            np.mean([np.mean(p > np.array(scores.absent)) for p in scores.present])
        ),
    }


def boundary_band(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask pixels within 2 % of the diagonal from the mask's edge; the frame is an edge too."""
    steps = max(1, round(BAND * float(np.hypot(*mask.shape))))
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
    return mask & (inner == 0)


def closest_reading(found: Found, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the last pass's readings the one nearest to the truth: what choosing costs."""
    readings = found.stages[-1].masks()
    overlap = (readings & truth).sum(axis=(1, 2)) / (readings | truth).sum(axis=(1, 2))
    return readings[int(overlap.argmax())]


def centre_point_mask(predictor: Predictor, embedding: ImageEmbedding) -> NDArray[np.bool_]:
    """Baseline: SAM clicked in the picture's centre."""
    height, width = embedding.original_size
    prediction = predictor.predict(
        embedding, point_coords=[[width / 2, height / 2]], point_labels=[1]
    )
    return prediction.masks()[0, prediction.best()[0]]


def nearest_feature_mask(
    reference: ImageEmbedding, mask: NDArray[np.bool_], embedding: ImageEmbedding
) -> NDArray[np.bool_]:
    """Baseline without SAM's decoder: cells nearest to one of the reference object's cells.

    Each cell takes the label of the reference cell of the highest cosine; the margin between
    object and background is upscaled as mask logits are.
    """
    side = reference.features.shape[-1]
    inside = covered_cells(mask, reference.geometry, side).flatten()
    known = F.normalize(reference.features[0].flatten(1), dim=0).cpu()  # (C, g*g)
    cells = F.normalize(embedding.features[0].flatten(1), dim=0).cpu()
    cosine = known.T @ cells  # (reference cell, cell)
    if inside.all():
        return np.ones(embedding.original_size, bool)
    margin = cosine[inside].amax(dim=0) - cosine[~inside].amax(dim=0)
    low_res = F.interpolate(margin.view(1, 1, side, side), scale_factor=4, mode="bilinear")
    return (embedding.geometry.upscale(low_res)[0, 0] > 0).numpy()
