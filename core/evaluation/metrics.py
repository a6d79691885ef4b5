"""Figures of several protocols: rank correlation, bootstrap intervals, overlap of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_correlation(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Spearman's correlation of two (N,) series; NaN for fewer than two or constant values."""
    from scipy.stats import spearmanr

    predicted, measured = np.asarray(predicted), np.asarray(measured)
    if len(predicted) < 2 or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return float("nan")
    return float(spearmanr(predicted, measured).statistic)


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of (N,) values."""
    values = np.asarray(values, float)
    random = np.random.default_rng(seed)
    means = values[random.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def mask_scores(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU, Dice and pixel accuracy of every mask in (N, H, W) with its truth: (N, 3).

    Two empty masks agree: 1.
    """
    axes = (1, 2)
    intersection = (masks & truth).sum(axis=axes)
    total = masks.sum(axis=axes) + truth.sum(axis=axes)
    union = total - intersection
    iou = np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
    dice = np.where(total > 0, 2 * intersection / np.maximum(total, 1), 1.0)
    return np.stack([iou, dice, (masks == truth).mean(axis=axes)], axis=1)
