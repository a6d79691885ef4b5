"""Edge detection by SAM without training for it (paper, section 7.2 and appendix D.2).

A 16 x 16 grid of points gives 768 masks; duplicates go; each mask's probability map is Sobel
filtered along its outer boundary; the maximum over masks, normalised, is the edge map, thinned by
edge NMS. The authors' code is not public. Where the paper leaves a choice: "outer boundary" is
the 3 x 3 dilation less the mask, borders are replicated (zeros would draw a frame), the NMS
threshold is the generator's 0.7, and thinning takes its direction from a smoothed copy of the map
as structured-forest edge NMS does, for Canny's own splits thick responses in two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from core.masks import outer_boundary
from core.sam.candidates import Progress, find_candidates, point_grid, suppress_duplicates
from core.sam.predictor import ImageEmbedding, Predictor
from core.sam.regions import upscaler_for

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken

POINTS_PER_SIDE = 16  # paper: 16 x 16 regular grid of foreground points
BOX_NMS_THRESH = 0.7
ORIENTATION_SIGMA = 2.0  # px, smoothing before second derivatives
FRAME_FADE = 5  # px over which edges fade out towards the frame
NMS_TOLERANCE = 1.01  # a ridge two pixels wide survives rounding


def detect_edges(
    predictor: Predictor,
    embedding: ImageEmbedding,
    *,
    thin: bool = True,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Compute the edge strength of every pixel.

    Args:
        thin: suppress what is no ridge, for lines of one pixel; else the map before edge NMS.
        cancel: looked at before each batch of points.
        progress: told after each batch.

    Returns:
        (H, W) in [0, 1].

    Raises:
        Cancelled: on request.
    """
    height, width = embedding.original_size
    found = find_candidates(
        predictor,
        embedding,
        point_grid(POINTS_PER_SIDE) * (width, height),
        cancel=cancel,
        progress=progress,
    )
    kept = suppress_duplicates(
        [c.box for c in found], [c.predicted_iou for c in found], BOX_NMS_THRESH
    )
    upscaler = upscaler_for(embedding.geometry, predictor.low_res_side, predictor.device)
    edges = np.zeros((height, width), np.float32)
    for candidate in (found[i] for i in kept):
        # One pixel outside of the mask belongs to its outer boundary, Sobel needs one more.
        (region,) = upscaler.regions(candidate.low_res_logits[None], above=0.0, margin=2)
        if region is None:
            continue
        logits = upscaler.upscale(candidate.low_res_logits, region)
        strength = boundary_strength(logits.sigmoid().cpu().numpy(), (logits > 0).cpu().numpy())
        view = edges[region.y, region.x]
        np.maximum(view, strength, out=view)
    edges = normalise(edges)
    return normalise(thin_edges(edges)) if thin else edges


def boundary_strength(
    probability: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Sobel magnitude of a probability map (H, W) on the mask's outer boundary, 0 elsewhere."""
    gradients = [
        cv2.Sobel(probability, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE)
        for dx, dy in ((1, 0), (0, 1))
    ]
    magnitude = cv2.magnitude(*gradients)
    return np.where(outer_boundary(mask), magnitude, 0).astype(np.float32)


def normalise(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map linearly onto [0, 1]; a constant map becomes zeros."""
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros_like(values)
    return (values - low) / (high - low)


def thin_edges(edges: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep ridges of an edge map (H, W) and fade out towards the frame.

    Each pixel is compared with the two points at distance 1 across the ridge, interpolated; the
    direction across is that of the strongest curvature of the smoothed map.
    """
    blurred = cv2.GaussianBlur(edges, (3, 3), 0, borderType=cv2.BORDER_REPLICATE)
    angle = _angle_across(blurred.astype(np.float32, copy=False))
    across = np.cos(angle), np.sin(angle)
    height, width = edges.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    is_ridge = np.ones(edges.shape, bool)
    for side in (-1, 1):
        neighbour = cv2.remap(
            blurred,
            x + side * across[0],
            y + side * across[1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        is_ridge &= blurred * NMS_TOLERANCE >= neighbour
    to_frame = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    return np.where(is_ridge, blurred * np.minimum(to_frame / FRAME_FADE, 1), 0).astype(np.float32)


def _angle_across(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Angle of the strongest second derivative at each pixel, from the x axis."""
    smooth = cv2.GaussianBlur(values, (0, 0), ORIENTATION_SIGMA, borderType=cv2.BORDER_REPLICATE)
    xx, yy, xy = (
        cv2.Sobel(smooth, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE)
        for dx, dy in ((2, 0), (0, 2), (1, 1))
    )
    # Half the angle of (xx - yy, 2 xy) is the axis of the Hessian's largest eigenvalue, and the
    # smallest is perpendicular to it. Beside a ridge, where the map is hollow, the largest counts.
    axis = 0.5 * np.arctan2(2 * xy, xx - yy)
    return np.where(xx + yy < 0, axis + np.pi / 2, axis).astype(np.float32)
