"""Results as files: mask and label PNGs, cut-outs, records, COCO JSON, and all of it in a ZIP.

Every name is `<stem>_<method>_<UTC time>…`, made of slugs, so that nothing a visitor typed can
lead out of the folder. Pixel files have the original picture's size.
"""

import io
import json
import math
import os
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.images import content_hash
from core.masks import encode_rle, label_map, mask_to_box, to_polygons
from core.overlays import draw, hex_color, palette
from core.results import Segmentation

# Run lengths with one fixed filter: on a photograph twice as fast as the default of trying all
# filters, and no larger. Flat pictures (masks) are best left unfiltered.
_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
_FLAT_PNG = (*_PNG, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
_PHOTO_PNG = (*_PNG, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG)


@dataclass(frozen=True)
class Files:
    """Where `write_all` put everything; masks and cut-outs in the result's order."""

    overlay: Path
    masks: tuple[Path, ...]
    labels: Path
    cutouts: tuple[Path, ...]
    instances: Path
    coco: Path
    archive: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file but the archive, which holds them."""
        return (
            self.overlay,
            *self.masks,
            self.labels,
            *self.cutouts,
            self.instances,
            self.coco,
        )


def record(result: Segmentation) -> dict[str, Any]:
    """Describe a result as JSON values: what the API returns and `…_instances.json` holds.

    `box_xyxy` is in pixels with x1, y1 exclusive; a score is None where the method gives none;
    `overlap_px` counts the pixels that more than one instance claims.
    """
    height, width = result.size
    return {
        "method": result.method,
        "model": result.model,
        "model_set": result.model_set,
        "image": {"width": width, "height": height},
        "parameters": dict(result.parameters),
        "seed": result.seed,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "instances": [_instance(result, index) for index in range(len(result))],
        "overlap_px": label_map(result.masks, result.scores)[1],
        "dropped": [asdict(dropped) for dropped in result.dropped],
        "warnings": list(result.warnings),
    }


def coco(result: Segmentation, stem: str) -> dict[str, Any]:
    """Write a result as a COCO annotation file for one picture.

    `segmentation` is the exact mask in compressed run lengths (as pycocotools reads them), and
    `polygons` its outline for tools that want polygons; `bbox` is x, y, width, height. Instances
    without a label share the category "object".
    """
    height, width = result.size
    names = list(dict.fromkeys(label or "object" for label in result.labels))
    return _coco_file(
        f"{result.method} ({result.model}) on {stem}",
        [{"id": 1, "file_name": stem, "width": width, "height": height}],
        names,
        [_annotation(result, index, names) for index in range(len(result))],
    )


def merge_coco(
    files: Sequence[dict[str, Any]], description: str, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Make one COCO file of those of several pictures.

    Pictures are numbered in the order given and annotations on through all of them; categories
    of one name become one.

    Args:
        files: as `coco` returns them, one for each picture.
        names: categories that come first, also those that no picture shows.
    """
    labels = [category["name"] for file in files for category in file["categories"]]
    names = list(dict.fromkeys([*names, *labels]))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, file in enumerate(files, start=1):
        own = {category["id"]: category["name"] for category in file["categories"]}
        used = max((annotation["id"] for annotation in annotations), default=0)
        images += [{**image, "id": number} for image in file["images"]]
        annotations += [
            {
                **annotation,
                "id": used + annotation["id"],
                "image_id": number,
                "category_id": 1 + names.index(own[annotation["category_id"]]),
            }
            for annotation in file["annotations"]
        ]
    return _coco_file(description, images, names, annotations)


def picture_png(picture: NDArray[np.uint8]) -> bytes:
    """Encode RGB or RGBA uint8 (H, W, 3 or 4) as PNG."""
    code = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return cv2.imencode(".png", cv2.cvtColor(picture, code), _PHOTO_PNG)[1].tobytes()


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask as 8-bit single-channel PNG, 0 and 255."""
    grey = mask.astype(np.uint8) * np.uint8(255)
    return cv2.imencode(".png", grey, _FLAT_PNG)[1].tobytes()


def labels_png(result: Segmentation) -> bytes:
    """Encode all instances in one PNG: value k is instance k, 0 is none.

    Indexed, with the legend's colours as palette; 16-bit grey if a number is above 255. Where
    instances overlap the higher score is shown; the record counts those pixels.
    """
    indices, _ = label_map(result.masks, result.scores)
    numbers = np.array([0, *result.numbers])
    if numbers.max() > 255:
        return cv2.imencode(".png", numbers.astype(np.uint16)[indices], _FLAT_PNG)[1].tobytes()
    picture = Image.fromarray(numbers.astype(np.uint8)[indices])
    colors = [(0, 0, 0), *(palette(k) for k in range(1, int(numbers.max()) + 1))]
    picture.putpalette([channel for color in colors for channel in color])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def cutout(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bytes:
    """Encode a picture (H, W, 3) as RGBA PNG with the mask (H, W) as alpha.

    Pixels outside the mask are black as well as transparent, so that they are gone.
    """
    alpha = mask.astype(np.uint8) * np.uint8(255)
    kept = cv2.bitwise_and(image, image, mask=alpha)
    return picture_png(np.asarray(cv2.merge([*cv2.split(kept), alpha]), np.uint8))


def write_all(
    image: NDArray[np.uint8],
    result: Segmentation,
    stem: str,
    folder: Path,
    when: datetime | None = None,
    *,
    overlay: NDArray[np.uint8] | None = None,
) -> Files:
    """Write every download of a result.

    Args:
        image: RGB uint8 (H, W, 3), the original picture.
        stem: the upload's name; slugged here.
        folder: made if it is not there; give each call its own.
        when: the time in the names, now if None.
        overlay: RGB(A) as the visitor sees it; drawn with the defaults if None.

    Returns:
        The files' paths. The archive also holds `parameters.json`: what to give the same method
        to get the same result.
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    prefix = name_prefix(stem, result.method, when)
    folder.mkdir(parents=True, exist_ok=True)

    shown = draw(image, result.masks, ids=result.numbers) if overlay is None else overlay
    numbered = list(zip(result.numbers, result.labels, result.masks, strict=True))
    masks = {_mask_name(k, label): partial(mask_png, mask) for k, label, mask in numbered}
    cutouts = {f"cutout_{k}.png": partial(cutout, image, mask) for k, _, mask in numbered}
    encoders: dict[str, Callable[[], bytes]] = {
        "overlay.png": lambda: picture_png(shown),
        **cutouts,
        **masks,
        "labels.png": lambda: labels_png(result),
        "instances.json": lambda: to_json(record(result)),
        "coco.json": lambda: to_json(coco(result, stem)),
    }
    paths = {name: folder / f"{prefix}_{name}" for name in encoders}
    # Encoding PNGs is most of the work, and OpenCV does it outside of Python's lock.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda name: paths[name].write_bytes(encoders[name]()), encoders))
    files = Files(
        overlay=paths["overlay.png"],
        masks=tuple(paths[name] for name in masks),
        labels=paths["labels.png"],
        cutouts=tuple(paths[name] for name in cutouts),
        instances=paths["instances.json"],
        coco=paths["coco.json"],
        archive=folder / f"{prefix}_all.zip",
    )
    entries = [(path.name, path.read_bytes()) for path in files.all]
    entries.append(("parameters.json", to_json(_parameters(image, result, stem))))
    write_zip(files.archive, entries, when)
    return files


def name_prefix(stem: str, method: str, when: datetime) -> str:
    """Begin the name of a result's file: what it is of, how and when (UTC) it was made."""
    return f"{slug(stem) or 'image'}_{slug(method)}_{when.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def slug(text: str, most: int = 40) -> str:
    """Reduce text to letters and digits of any script with single hyphens between them."""
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", text))[:most]
    # 80 bytes: a file name holds 255, and two slugs with the rest must fit.
    return words.encode()[:80].decode(errors="ignore").strip("-")


def to_json(value: Any) -> bytes:
    """Encode a record as a JSON file in UTF-8. Raises ValueError on not-a-number."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1).encode()


def write_zip(path: Path, entries: Iterable[tuple[str, bytes]], when: datetime) -> Path:
    """Write files (name in the archive, contents), all of one time; only texts are compressed."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name, when.timetuple()[:6])
            # PNGs and clips are compressed already.
            is_text = name.endswith(".json")
            info.compress_type = zipfile.ZIP_DEFLATED if is_text else zipfile.ZIP_STORED
            archive.writestr(info, data)
    return path


def _instance(result: Segmentation, index: int) -> dict[str, Any]:
    mask, score = result.masks[index], float(result.scores[index])
    area_px = int(np.count_nonzero(mask))
    return {
        "id": result.numbers[index],
        "label": result.labels[index],
        "score": None if math.isnan(score) else round(score, 4),
        "score_kind": result.score_kind,
        "area_px": area_px,
        "area_fraction": round(area_px / mask.size, 6),
        "box_xyxy": mask_to_box(mask).tolist(),
        "rle": encode_rle(mask),
        "color": hex_color(result.numbers[index]),
    }


def _coco_file(
    description: str,
    images: list[dict[str, Any]],
    names: Sequence[str],
    annotations: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "info": {"description": description, "version": "1.0"},
        "images": images,
        "categories": [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": annotations,
    }


def _annotation(result: Segmentation, index: int, names: list[str]) -> dict[str, Any]:
    instance = _instance(result, index)
    x0, y0, x1, y1 = instance["box_xyxy"]
    return {
        "id": instance["id"],
        "image_id": 1,
        "category_id": 1 + names.index(instance["label"] or "object"),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": instance["area_px"],
        "segmentation": instance["rle"],
        "polygons": to_polygons(result.masks[index]),
        "iscrowd": 0,
        "score": instance["score"],
    }


def _mask_name(k: int, label: str) -> str:
    return "_".join(part for part in (f"mask_{k}", slug(label)) if part) + ".png"


def _parameters(image: NDArray[np.uint8], result: Segmentation, stem: str) -> dict[str, Any]:
    height, width = result.size
    return {
        "method": result.method,
        "model": result.model,
        "model_set": result.model_set,
        "parameters": dict(result.parameters),
        "seed": result.seed,
        "image": {
            "name": stem,
            "width": width,
            "height": height,
            "content_hash": content_hash(image),
        },
    }
