"""Zero-shot edge detection (SAM paper, section 7.2): ODS, OIS, AP and R50 beside Sobel and Canny.

Pixels of a thinned edge map are matched one to one with pixels of the truth within 0.0075 of the
picture's diagonal, as on BSDS500. ODS is the best F-score of one threshold for all pictures, OIS
of one for each picture; AP the area under the precision-recall curve; R50 recall at half
precision. Here the truth are the outlines of the visible objects, so edges inside objects and of
the background count against every method alike: compare rows, not with BSDS500's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from core.evaluation.data import Example
from core.masks import boundary
from core.sam.edges import detect_edges, normalise, thin_edges
from core.sam.predictor import Predictor

TOLERANCE = 0.0075  # of the diagonal
THRESHOLDS = np.linspace(0.02, 0.98, 25)

Edges = NDArray[np.float32]


@dataclass(frozen=True)
class Counts:
    """Matched and present edge pixels of one picture at every threshold, each (T,)."""

    matched: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: int


def outline(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Union (H, W) of the masks' boundaries, less the picture's own frame."""
    edges = np.any([boundary(m) for m in masks], axis=0)
    edges[[0, -1]] = False
    edges[:, [0, -1]] = False
    return edges


def count_matches(edges: Edges, truth: NDArray[np.bool_]) -> Counts:
    """Match the edge pixels above each threshold one to one with the truth's."""
    reach = TOLERANCE * float(np.hypot(*truth.shape))
    true_points = np.argwhere(truth)
    tree = cKDTree(true_points) if len(true_points) else None
    matched, predicted = [], []
    for threshold in THRESHOLDS:
        points = np.argwhere(skeletonize(edges >= threshold))  # as BSDS500's benchmark thins
        predicted.append(len(points))
        matched.append(_matches(points, tree, reach) if tree and len(points) else 0)
    return Counts(np.array(matched), np.array(predicted), len(true_points))


def _matches(points: NDArray[np.intp], truth: cKDTree, reach: float) -> int:
    """Size of the largest one-to-one matching of ``points`` with the truth within ``reach``."""
    pairs = cKDTree(points).sparse_distance_matrix(truth, reach, output_type="coo_matrix")
    graph = coo_array((np.ones(pairs.nnz, np.int8), (pairs.row, pairs.col)), shape=pairs.shape)
    return int((maximum_bipartite_matching(graph.tocsr(), perm_type="column") >= 0).sum())


def edge_figures(counts: list[Counts]) -> dict[str, float]:
    """ODS, OIS, AP and R50 (fractions) of a method over all pictures."""
    matched = np.stack([c.matched for c in counts])  # (pictures, T)
    predicted = np.stack([c.predicted for c in counts])
    true = np.array([c.true for c in counts])
    precision = matched.sum(axis=0) / np.maximum(predicted.sum(axis=0), 1)
    recall = matched.sum(axis=0) / max(true.sum(), 1)
    each = _f_score(matched / np.maximum(predicted, 1), matched / np.maximum(true, 1)[:, None])
    best = each.argmax(axis=1)
    rows = np.arange(len(counts))
    oracle_precision = matched[rows, best].sum() / max(predicted[rows, best].sum(), 1)
    oracle_recall = matched[rows, best].sum() / max(true.sum(), 1)
    order = np.argsort(recall)
    return {
        "ods": float(_f_score(precision, recall).max()),
        "ois": float(_f_score(oracle_precision, oracle_recall)),
        "ap": float(np.trapezoid(precision[order], recall[order])),
        "r50": float(recall[precision >= 0.5].max(initial=0)),
    }


def _f_score(precision: NDArray, recall: NDArray) -> NDArray:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-9)


def sobel_edges(image: NDArray[np.uint8]) -> Edges:
    """Sobel magnitude of the grey picture, thinned like SAM's edges."""
    from skimage.color import rgb2gray
    from skimage.filters import sobel

    return normalise(thin_edges(normalise(sobel(rgb2gray(image)).astype(np.float32))))


def canny_edges(image: NDArray[np.uint8]) -> Edges:
    """For each pixel the highest of the thresholds at which Canny (sigma 1.5) marks it."""
    from skimage.color import rgb2gray
    from skimage.feature import canny

    grey = rgb2gray(image)
    strength = np.zeros(grey.shape, np.float32)
    for threshold in THRESHOLDS:
        high = 0.5 * threshold**2  # gradients of grey pictures are small: spread the low end
        strength[canny(grey, 1.5, low_threshold=0.4 * high, high_threshold=high)] = threshold
    return strength


def evaluate_edges(predictor: Predictor, examples: Iterable[Example]) -> dict[str, float]:
    """Figures of SAM's edges, Sobel's and Canny's on the same pictures."""
    methods: dict[str, Callable[[NDArray[np.uint8]], Edges]] = {
        "sam": lambda image: detect_edges(predictor, predictor.encode(image)),
        "sobel": sobel_edges,
        "canny": canny_edges,
    }
    counts: dict[str, list[Counts]] = {name: [] for name in methods}
    for example in examples:
        truth = outline(example.masks)
        for name, method in methods.items():
            counts[name].append(count_matches(method(example.image), truth))
    return {
        f"{name}_{figure}": value
        for name, rows in counts.items()
        for figure, value in edge_figures(rows).items()
    }
