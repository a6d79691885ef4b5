"""DAVIS 2017, semi-supervised: region J, boundary F, their recall and decay, and its folders.

Perazzi et al., CVPR 2016, and Pont-Tuset et al., arXiv 1704.00675. The first frame is given and
the last one left out; each object of each sequence counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError
from core.images import load
from core.masks import iou

TOLERANCE = 0.008  # of the diagonal, within which boundaries match
RECALL_ABOVE = 0.5
VOID = 255


@dataclass(frozen=True, eq=False)
class VideoSequence:
    """Frames RGB uint8 (H, W, 3), and truth uint8 (T, H, W): value k is object k, 0 background."""

    name: str
    frames: tuple[NDArray[np.uint8], ...]
    labels: NDArray[np.uint8]

    @property
    def objects(self) -> list[int]:
        """Numbers of all objects, in order."""
        return [int(k) for k in np.unique(self.labels) if k not in (0, VOID)]

    def start(self, k: int) -> int:
        """The first frame that shows an object."""
        return int((self.labels == k).any(axis=(1, 2)).argmax())


def score_sequence(truth: NDArray[np.uint8], ours: NDArray[np.uint8], k: int) -> dict[str, float]:
    """Mean, recall and decay of J and F of one object; frames before it begins are left out.

    Args:
        truth, ours: label maps (T, H, W), void pixels of the truth count as background.
    """
    start = int((truth == k).any(axis=(1, 2)).argmax())
    frames = range(start + 1, max(len(truth) - 1, start + 2))
    frames = range(frames.start, min(frames.stop, len(truth)))
    j = [iou(truth[t] == k, ours[t] == k) for t in frames]
    f = [boundary_f(truth[t] == k, ours[t] == k) for t in frames]
    return {f"j_{n}": v for n, v in statistics(j).items()} | {
        f"f_{n}": v for n, v in statistics(f).items()
    }


def statistics(values: Sequence[float]) -> dict[str, float]:
    """Mean, share above 0.5, and how much the first quarter is better than the last."""
    if not len(values):
        return {"mean": float("nan"), "recall": float("nan"), "decay": float("nan")}
    series = np.asarray(values, float)
    edges = np.round(np.linspace(1, len(series), 5) + 1e-10).astype(int) - 1
    first, last = series[edges[0] : edges[1] + 1], series[edges[3] : edges[4] + 1]
    return {
        "mean": float(series.mean()),
        "recall": float((series > RECALL_ABOVE).mean()),
        "decay": float(first.mean() - last.mean()),
    }


def boundary_f(truth: NDArray[np.bool_], ours: NDArray[np.bool_]) -> float:
    """F measure of two masks' boundaries, matched within the tolerance."""
    reach = math.ceil(TOLERANCE * float(np.hypot(*truth.shape)))
    theirs, mine = boundary_map(truth), boundary_map(ours)
    if not theirs.any() and not mine.any():
        return 1.0
    if not theirs.any() or not mine.any():
        return 0.0
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x * x + y * y <= reach * reach).astype(np.uint8)
    near_theirs, near_mine = (
        cv2.dilate(edge.astype(np.uint8), disc).astype(bool) for edge in (theirs, mine)
    )
    precision = np.count_nonzero(mine & near_theirs) / np.count_nonzero(mine)
    recall = np.count_nonzero(theirs & near_mine) / np.count_nonzero(theirs)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that differ from the one to the right, below, or below on the right; thin.

    As DAVIS and BSDS draw it: the last row looks to the right only, the last column down.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    edge = (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])
    edge[-1, -1] = False
    return edge


def davis_sequences(folder: Path, split: str = "val") -> Iterator[VideoSequence]:
    """Read DAVIS 2017: ``JPEGImages/480p``, ``Annotations/480p``, ``ImageSets/2017``.

    Raises:
        ImageError: the list of sequences is missing, or a frame has no annotation.
    """
    listing = folder / "ImageSets" / "2017" / f"{split}.txt"
    if not listing.is_file():
        raise ImageError(f"{folder} has no ImageSets/2017/{split}.txt (DAVIS 2017).")
    for name in listing.read_text().split():
        pictures = sorted((folder / "JPEGImages" / "480p" / name).glob("*.jpg"))
        labels = []
        for path in pictures:
            annotation = folder / "Annotations" / "480p" / name / f"{path.stem}.png"
            if not annotation.is_file():
                raise ImageError(f"{annotation.name} of {name} is missing: get all annotations.")
            with Image.open(annotation) as picture:
                labels.append(np.array(picture))
        frames = tuple(load(path).image for path in pictures)
        yield VideoSequence(name, frames, np.stack(labels))
