"""Figures of several protocols: rank correlation, bootstrap intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


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
