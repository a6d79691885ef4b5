"""Everything mode: automatic mask generation (paper, section 5 and appendix B; "AMG").

Records equal those of segment_anything's SamAutomaticMaskGenerator up to rounding, in the same
order: a grid of points, filters by predicted IoU and stability, box NMS, and the same again on
crops if asked for. What it adds: a given or cached embedding, progress, cancelling, and the
paper's filter for masks of nearly the whole picture, which the published code lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.masks import encode_rle, mask_to_box, remove_small_regions
from core.models.presets import EverythingConfig
from core.sam.candidates import (
    Candidate,
    Progress,
    find_candidates,
    point_grid,
    suppress_duplicates,
)
from core.sam.geometry import Geometry
from core.sam.predictor import ImageEmbedding, Predictor
from core.sam.regions import upscaler_for

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken

CROP_EDGE_TOLERANCE = 20.0  # px: a box this near to a crop's edge was probably cut by it
FULL_IMAGE_SHARE = 0.95  # paper, appendix B: masks covering 95 % of the picture or more

Box = tuple[int, int, int, int]  # x0, y0, x1, y1, the last ones excluded


@dataclass(frozen=True, eq=False)
class MaskRecord:
    """One mask of everything mode, as segment_anything records it.

    Args:
        mask: bool (H, W).
        area: its pixels.
        bbox: x, y, width, height, where the width is the last column less the first.
        predicted_iou, stability_score: the two qualities it was filtered by.
        point_coords: x, y of the point that gave it.
        crop_box: x, y, width, height of the crop it was found in.
    """

    mask: NDArray[np.bool_]
    area: int
    bbox: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float
    point_coords: tuple[float, float]
    crop_box: tuple[int, int, int, int]

    def to_dict(self, output_mode: Literal["binary_mask", "coco_rle"]) -> dict[str, Any]:
        """The record in segment_anything's form, with the mask as an array or as COCO RLE."""
        return {
            "segmentation": self.mask if output_mode == "binary_mask" else encode_rle(self.mask),
            "area": self.area,
            "bbox": list(self.bbox),
            "predicted_iou": self.predicted_iou,
            "point_coords": [list(self.point_coords)],
            "stability_score": self.stability_score,
            "crop_box": list(self.crop_box),
        }


@dataclass(frozen=True, eq=False)
class _Found:
    """A candidate with its crop; its box and point are in the frame of the whole picture."""

    candidate: Candidate
    geometry: Geometry
    crop: Box


def segment_everything(
    predictor: Predictor,
    image: NDArray[np.uint8],
    config: EverythingConfig | None = None,
    *,
    embedding: ImageEmbedding | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> list[MaskRecord]:
    """Segment all that a grid of points finds in a picture.

    Args:
        image: RGB uint8 (H, W, 3).
        config: None: the package's defaults.
        embedding: of the whole picture, if there is one; crops are always encoded.
        cancel: looked at before each batch of points.
        progress: told after each batch.

    Returns:
        Records, best predicted IoU first; with crops, the most zoomed first.

    Raises:
        Cancelled: on request.
    """
    config = config or EverythingConfig()
    size = (image.shape[0], image.shape[1])
    crops = list(crop_boxes(size, config.crop_n_layers, config.crop_overlap_ratio))
    found: list[_Found] = []
    for index, (crop, layer) in enumerate(crops):
        x0, y0, x1, y1 = crop
        if embedding is None or layer > 0:
            view = np.ascontiguousarray(image[y0:y1, x0:x1])
            embedding = predictor.encode(view)
        report = _part_of(progress, index, len(crops))
        found += _search_crop(predictor, embedding, size, crop, layer, config, cancel, report)
    if len(crops) > 1:
        scores = [1 / ((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in (f.crop for f in found)]
        kept = suppress_duplicates([f.candidate.box for f in found], scores, config.crop_nms_thresh)
        found = [found[i] for i in kept]
    records = _draw(predictor, found, size)
    if config.min_mask_region_area > 0:
        nms_thresh = max(config.box_nms_thresh, config.crop_nms_thresh)
        records = _clean(records, config.min_mask_region_area, nms_thresh)
    return records


def crop_boxes(
    size: tuple[int, int], n_layers: int, overlap_ratio: float
) -> Iterator[tuple[Box, int]]:
    """Yield the crops of a picture (H, W) with their layers, the whole picture first.

    Layer i has 2^i x 2^i crops, column by column.
    """
    height, width = size
    yield (0, 0, width, height), 0
    for layer in range(1, n_layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        crop_width, crop_height = (
            -(-(overlap * (count - 1) + side) // count) for side in (width, height)
        )
        for x0 in ((crop_width - overlap) * i for i in range(count)):
            for y0 in ((crop_height - overlap) * i for i in range(count)):
                yield (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)), layer


def _search_crop(
    predictor: Predictor,
    embedding: ImageEmbedding,
    size: tuple[int, int],
    crop: Box,
    layer: int,
    config: EverythingConfig,
    cancel: CancelToken | None,
    progress: Progress | None,
) -> list[_Found]:
    """Find the masks of one crop and bring them into the frame of the whole picture."""
    x0, y0, x1, y1 = crop
    grid = point_grid(int(config.points_per_side / config.crop_n_points_downscale_factor**layer))
    candidates = find_candidates(
        predictor,
        embedding,
        grid * (x1 - x0, y1 - y0),
        pred_iou_thresh=config.pred_iou_thresh,
        stability_score_thresh=config.stability_score_thresh,
        stability_score_offset=config.stability_score_offset,
        points_per_batch=config.points_per_batch,
        cancel=cancel,
        progress=progress,
    )
    limit = FULL_IMAGE_SHARE * size[0] * size[1] if config.drop_full_image else np.inf
    candidates = [c for c in candidates if c.area < limit and not _is_cut(c.box, crop, size)]
    kept = suppress_duplicates(
        [c.box for c in candidates], [c.predicted_iou for c in candidates], config.box_nms_thresh
    )
    offset = np.array([x0, y0, x0, y0], np.float32)
    return [
        _Found(replace(c, box=c.box + offset, point=c.point + offset[:2]), embedding.geometry, crop)
        for c in (candidates[i] for i in kept)
    ]


def _is_cut(box: NDArray[np.float32], crop: Box, size: tuple[int, int]) -> bool:
    """Whether a box in a crop touches an edge of it that is no edge of the picture."""
    whole = np.array([0, 0, size[1], size[0]], np.float32)
    box = box + np.array([crop[0], crop[1], crop[0], crop[1]], np.float32)
    near_crop = np.abs(box - np.array(crop, np.float32)) <= CROP_EDGE_TOLERANCE
    near_image = np.abs(box - whole) <= CROP_EDGE_TOLERANCE
    return bool((near_crop & ~near_image).any())


def _draw(predictor: Predictor, found: list[_Found], size: tuple[int, int]) -> list[MaskRecord]:
    """Make full-size masks of what stayed."""
    records = []
    for item in found:
        upscaler = upscaler_for(item.geometry, predictor.low_res_side, predictor.device)
        x0, y0, x1, y1 = item.crop
        mask = np.zeros(size, bool)
        mask[y0:y1, x0:x1] = upscaler.mask(item.candidate.low_res_logits)
        left, top, right, bottom = item.candidate.box.tolist()
        records.append(
            MaskRecord(
                mask=mask,
                area=item.candidate.area,
                bbox=(left, top, right - left, bottom - top),
                predicted_iou=item.candidate.predicted_iou,
                stability_score=item.candidate.stability_score,
                point_coords=(item.candidate.point[0].item(), item.candidate.point[1].item()),
                crop_box=(x0, y0, x1 - x0, y1 - y0),
            )
        )
    return records


def _clean(records: list[MaskRecord], min_area: int, nms_thresh: float) -> list[MaskRecord]:
    """Fill small holes, drop small islands, and suppress the duplicates that this makes.

    Masks that needed no cleaning win over those that did.
    """
    cleaned = [_without_small_regions(record, min_area) for record in records]
    scores = [float(new is old) for new, old in zip(cleaned, records, strict=True)]
    boxes = [
        np.array([x, y, x + width, y + height], np.float32)
        for x, y, width, height in (record.bbox for record in cleaned)
    ]
    return [cleaned[i] for i in suppress_duplicates(boxes, scores, nms_thresh)]


def _without_small_regions(record: MaskRecord, min_area: int) -> MaskRecord:
    mask = remove_small_regions(record.mask, min_area, "holes")
    mask = remove_small_regions(mask, min_area, "islands")
    if mask is record.mask:
        return record
    x0, y0, x1, y1 = mask_to_box(mask).tolist()
    bbox = (float(x0), float(y0), float(x1 - 1 - x0), float(y1 - 1 - y0))
    return replace(record, mask=mask, area=int(np.count_nonzero(mask)), bbox=bbox)


def _part_of(progress: Progress | None, index: int, count: int) -> Progress | None:
    """Progress of one of several equal parts as progress of the whole."""
    if progress is None:
        return None
    where = f", crop {index + 1} of {count}" if count > 1 else ""
    return lambda fraction, message: progress((index + fraction) / count, message + where)
