"""Mask algebra: pure functions on bool masks (H, W), one job each, no model and no drawing.

Coordinates are pixels, x then y, origin at the top left. A box is x0, y0, x1, y1 with x1, y1
exclusive, so that its area is (x1 - x0) · (y1 - y0).
"""

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SQUARE = np.ones((3, 3), np.uint8)


def area(mask: Mask) -> int:
    """Count the mask's pixels."""
    return int(np.count_nonzero(mask))


def mask_to_box(mask: Mask) -> NDArray[np.int32]:
    """Return the tight box (4,) as x0, y0, x1, y1 (x1, y1 exclusive); zeros if empty."""
    x, y, width, height = cv2.boundingRect(_bytes(mask))
    return np.array([x, y, x + width, y + height] if width else [0, 0, 0, 0], np.int32)


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union in [0, 1]; two empty masks are equal, so 1."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def pairwise_iou(a: Mask, b: Mask) -> NDArray[np.float32]:
    """Intersection over union of every mask in `a` (N, H, W) with every one in `b` (M, H, W).

    Returns:
        (N, M) in [0, 1]; two empty masks are equal, so 1.
    """
    pixels = a.shape[1] * a.shape[2]
    flat_a = a.reshape(len(a), pixels).astype(np.float32)  # (N, H·W)
    flat_b = b.reshape(len(b), pixels).astype(np.float32)  # (M, H·W)
    intersection = flat_a @ flat_b.T  # (N, M)
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1)[None, :] - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 1).astype(np.float32)


def boundary(mask: Mask) -> Mask:
    """Mask pixels with a 4-neighbour outside; beyond the frame counts as outside."""
    inner = cv2.erode(_bytes(mask), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return mask & ~inner.astype(bool)


def outer_boundary(mask: Mask) -> Mask:
    """Pixels outside that touch the mask: its 3×3 dilation less the mask."""
    return cv2.dilate(_bytes(mask), _SQUARE).astype(bool) & ~mask


def farthest_point(mask: Mask) -> tuple[int, int]:
    """Return (x, y) of the mask pixel farthest from the mask's edge.

    Beyond the frame counts as outside. Where many pixels are equally far (the spine of a bar),
    the one nearest to their mean is taken.

    Raises:
        ValueError: the mask is empty.
    """
    x0, y0, x1, y1 = mask_to_box(mask)
    if x0 == x1:
        raise ValueError("An empty mask has no farthest point.")
    crop = np.pad(_bytes(mask[y0:y1, x0:x1]), 1)
    distance = cv2.distanceTransform(crop, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ys, xs = np.nonzero(distance >= distance.max() - 1e-4)
    nearest = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    return int(x0 + xs[nearest] - 1), int(y0 + ys[nearest] - 1)


def remove_small_regions(mask: Mask, min_area: int, mode: Literal["holes", "islands"]) -> Mask:
    """Fill holes, or drop islands, of fewer than `min_area` pixels (8-connected).

    If every island is small, the largest stays.

    Reference: segment_anything.utils.amg.remove_small_regions, without its `modified` flag.
    """
    fill = mode == "holes"
    count, regions, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask ^ fill), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]  # label 0 is the background
    small = sizes < min_area
    if not small.any():
        return mask
    if not fill and small.all():
        small[np.argmax(sizes)] = False
    changed = np.zeros(count, bool)
    changed[1:] = small
    return mask ^ changed[regions]


def largest_component(mask: Mask) -> Mask:
    """Keep the largest 8-connected region; an empty mask stays empty."""
    count, regions, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    if count <= 2:
        return mask
    return regions == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])


def dilate(mask: Mask, px: float) -> Mask:
    """Grow by a disc of radius `px`: every pixel within that distance of the mask."""
    if px <= 0 or not mask.any():
        return mask
    distance = cv2.distanceTransform(_bytes(~mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= px


def erode(mask: Mask, px: float) -> Mask:
    """Shrink by a disc of radius `px`; the frame does not eat into the mask."""
    return ~dilate(~mask, px)


def encode_rle(mask: Mask) -> dict[str, Any]:
    """Encode as COCO's compressed run lengths: {"size": [H, W], "counts": text}."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def decode_rle(rle: dict[str, Any]) -> Mask:
    """Decode COCO's compressed run lengths to (H, W)."""
    from pycocotools import mask as coco

    return coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def to_polygons(mask: Mask, tolerance: float = 1.0) -> list[list[float]]:
    """Trace the outline of each 8-connected region as a COCO polygon [x, y, x, y, …].

    Vertices are pixel corners, so that tolerance 0 encloses exactly the mask's pixels. COCO's
    polygons know no holes: these are filled, and the run lengths stay the exact form.

    Args:
        tolerance: most px that the simplified outline may be off.
    """
    if not mask.any():
        return []
    x0, y0, x1, y1 = mask_to_box(mask)
    crop = np.repeat(np.repeat(_bytes(mask[y0:y1, x0:x1]), 2, axis=0), 2, axis=1)  # (2h, 2w)
    contours, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        # The trace runs on half pixels: an even one lies on the left or top half of its pixel, an
        # odd one on the right or bottom half. Move each to that side's corner.
        corners = (contour[:, 0, :] + contour[:, 0, :] % 2) // 2 + (x0, y0)  # (K, 2)
        outline = _without_repeats(corners.astype(np.int32))
        simple = cv2.approxPolyDP(outline, tolerance, True)[:, 0, :]
        if len(simple) < 3:
            simple = outline
        polygons.append(simple.astype(float).ravel().tolist())
    return polygons


def label_map(masks: Mask, scores: ArrayLike) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int]:
    """Flatten instances into one map; where they overlap, the higher score wins.

    Args:
        masks: (N, H, W).
        scores: (N,); not-a-number counts as lowest, among equals the earlier mask wins.

    Returns:
        The map (H, W), k for `masks[k - 1]` and 0 for none, uint16 above 255 masks; and the
        number of pixels that more than one mask claims.
    """
    ranks = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, neginf=-np.inf)
    labels = np.zeros(masks.shape[1:], np.uint8 if len(masks) < 256 else np.uint16)
    claimed, overlap = np.zeros(masks.shape[1:], bool), np.zeros(masks.shape[1:], bool)
    for index in np.argsort(-ranks, kind="stable")[::-1]:
        x0, y0, x1, y1 = mask_to_box(masks[index])
        window = slice(y0, y1), slice(x0, x1)
        mask = masks[index][window]
        overlap[window] |= claimed[window] & mask
        claimed[window] |= mask
        np.copyto(labels[window], index + 1, where=mask, casting="unsafe")
    return labels, area(overlap)


def _bytes(mask: Mask) -> NDArray[np.uint8]:
    """View as the 0/1 bytes that OpenCV wants; copies only what is not contiguous."""
    return np.ascontiguousarray(mask, dtype=bool).view(np.uint8)


def _without_repeats(points: NDArray[np.int32]) -> NDArray[np.int32]:
    changed = np.any(points != np.roll(points, 1, axis=0), axis=1)
    return points[changed]
