"""Referring expressions: their wording, and one mask from several phrases for one object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 0.05  # of the picture, below which the phrases' masks are united instead


def clean_phrase(phrase: str) -> str:
    """Lower-case, without quotes and slashes, as the published evaluation prepares sentences."""
    return phrase.lower().replace('"', "").replace("/", "").strip()


def merge_phrases(masks: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Merge the masks of several phrases that mean the same object.

    Pixels whose mean over the masks, weighted by the scores, is at least a half; all masks
    together where that is at most 5 % of the picture.

    Args:
        masks: (n, H, W), those of dropped phrases empty.
        scores: (n,), 0 for dropped phrases.

    Returns:
        (H, W); empty if all scores are 0.
    """
    total = float(scores.sum())
    if total <= 0:
        return np.zeros(masks.shape[1:], bool)
    mean = np.tensordot(scores / total, masks.astype(np.float32), axes=1)  # (H, W)
    merged = mean >= 0.5
    return merged if merged.mean() > LEAST_SHARE else np.asarray(masks.any(axis=0))
