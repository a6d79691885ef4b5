"""The folders of RobustSAM's data sets as they were published, and of its own Robust-Seg.

Each reader yields pictures with their true masks and pairs files by name, never by position: the
published code pairs by sorted order, which one missing file puts out of step without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError
from core.evaluation.data import PICTURE_SUFFIXES, Example, Reader, annotated_examples
from core.images import load

FOREGROUND = 128  # grey level from which a mask's pixel counts; JPEG-like fringes lie below
LIS_LABELS = ("traintest", "test", "train")  # of the dark pictures, the most complete first
# Bits of BDD-100k's attribute channel.
BDD_IGNORE, BDD_CROWD = 1, 2


@dataclass(frozen=True, eq=False)
class DegradedExample(Example):
    """A clear picture with its masks, and files that show it degraded, by kind."""

    degraded: Mapping[str, Path] = field(default_factory=dict)


def robust_seg_examples(folder: Path) -> Iterator[Example]:
    """Yield what a Robust-Seg folder holds: clear/, masks/ and one folder for each degradation.

    ``masks/<stem>.npy`` is bool (N, H, W), or one mask (H, W); a degraded picture has the stem of
    its clear one. All names are checked before the first picture is read.

    Raises:
        ImageError: a folder or a file of a pair is missing, or a mask has another size.
    """
    clear = _by_stem(folder / "clear")
    if not clear or not (folder / "masks").is_dir():
        raise ImageError(f"{folder} has no clear/ with pictures and masks/ with .npy files.")
    kinds = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and path.name not in ("clear", "masks") and path.name[0] != "."
    )
    degraded = {kind: _by_stem(folder / kind) for kind in kinds}
    for stem, path in clear.items():
        for kind in kinds:
            if stem not in degraded[kind]:
                raise ImageError(
                    f"clear/{path.name} has no counterpart {kind}/{stem}.*: every folder needs one."
                )
        if not (folder / "masks" / f"{stem}.npy").is_file():
            raise ImageError(f"clear/{path.name} has no masks/{stem}.npy: every picture needs one.")
    for stem, path in clear.items():
        image = load(path).image
        masks = _npy_masks(folder / "masks" / f"{stem}.npy", (image.shape[0], image.shape[1]))
        if len(masks):
            yield DegradedExample(
                path.name, image, masks, {kind: degraded[kind][stem] for kind in kinds}
            )


def _npy_masks(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        masks = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise ImageError(f"masks/{path.name} is no plain .npy array: write it anew.") from error
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or masks.shape[1:] != size:
        raise ImageError(
            f"masks/{path.name} has shape {masks.shape}, its picture {size}: it has to be "
            "(N, H, W) of the same size."
        )
    masks = masks.astype(bool)
    return masks[masks.any(axis=(1, 2))]


def lvis_examples(folder: Path) -> Iterator[Example]:
    """Yield LVIS v1: ``lvis_v1_val.json`` here or in annotations/, COCO's pictures below.

    Raises ImageError if there is not exactly one such file, or a picture is missing.
    """
    files = sorted(folder.glob("lvis*.json")) or sorted((folder / "annotations").glob("lvis*.json"))
    validation = [path for path in files if "val" in path.stem]
    files = validation or files
    if len(files) != 1:
        raise ImageError(f"{folder} has {len(files)} lvis_*.json files: exactly one is needed.")
    return annotated_examples(files[0], folder)


def lis_examples(folder: Path) -> Iterator[Example]:
    """Yield LIS's dark pictures as its camera developed them: RGB-dark/ and their annotations.

    Of ``annotations/lis_coco_JPG_{traintest,test,train}+1.json`` the most complete is taken; "+1"
    stands for dark pictures.

    Raises ImageError if none is there, or a picture is missing.
    """
    candidates = [folder / "annotations" / f"lis_coco_JPG_{part}+1.json" for part in LIS_LABELS]
    files = [path for path in candidates if path.is_file()]
    if not files or not (folder / "RGB-dark").is_dir():
        raise ImageError(f"{folder} has no RGB-dark/ and annotations/lis_coco_JPG_*+1.json (LIS).")
    return annotated_examples(files[0], folder / "RGB-dark")


def bdd100k_examples(folder: Path) -> Iterator[Example]:
    """Yield BDD-100k's instances: labels/ins_seg/bitmasks/<split>/*.png with images/10k/<split>/.

    The PNG's red is the category (0 none), green the attributes, blue and alpha the instance's
    number. Crowds and what is marked to be ignored are left out, as in the official evaluation.

    Raises ImageError if the folders are missing, or a bitmask has no picture.
    """
    bitmasks = sorted((folder / "labels" / "ins_seg" / "bitmasks").glob("*/*.png"))
    if not bitmasks:
        raise ImageError(
            f"{folder} has no labels/ins_seg/bitmasks/<split>/*.png and images/10k/ (BDD-100k)."
        )
    for path in bitmasks:
        split = path.parent.name
        picture = folder / "images" / "10k" / split / f"{path.stem}.jpg"
        if not picture.is_file():
            raise ImageError(
                f"{split}/{path.name} has no picture images/10k/{split}/{path.stem}.jpg."
            )
        with Image.open(path) as opened:
            masks = _bdd_instances(np.asarray(opened.convert("RGBA")))
        if len(masks):
            yield Example(picture.name, load(picture).image, masks)


def _bdd_instances(bitmask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Masks (N, H, W) of a bitmask RGBA (H, W, 4)."""
    category, attributes = bitmask[..., 0], bitmask[..., 1]
    number = bitmask[..., 2].astype(np.int32) << 8 | bitmask[..., 3]
    counted = (category > 0) & (attributes & (BDD_IGNORE | BDD_CROWD) == 0)
    values = np.unique(number[counted])
    return (number[None] == values[:, None, None]) & counted


def ndd20_examples(folder: Path) -> Iterator[Example]:
    """Yield NDD20's dolphins: ABOVE/ and BELOW/ with {ABOVE,BELOW}_LABELS.json.

    Raises ImageError if neither pair is there, or a picture is missing.
    """
    parts = [name for name in ("ABOVE", "BELOW") if (folder / f"{name}_LABELS.json").is_file()]
    if not parts:
        raise ImageError(f"{folder} has neither ABOVE_LABELS.json nor BELOW_LABELS.json (NDD20).")
    for name in parts:
        yield from _via_examples(folder / f"{name}_LABELS.json", folder / name)


def streets_examples(folder: Path) -> Iterator[Example]:
    """Yield STREETS' vehicles: vehicleannotations/images/ and .../annotations/*.json beside it.

    All vehicles count; its authors' own counting leaves out those beside the road.

    Raises ImageError if the file is not there, or a picture is missing.
    """
    for root in (folder, folder / "vehicleannotations"):
        labels = root / "annotations" / "vehicle-annotations.json"
        if labels.is_file():
            return _via_examples(labels, root / "images")
    raise ImageError(
        f"{folder} has no vehicleannotations/annotations/vehicle-annotations.json (STREETS)."
    )


def _via_examples(labels: Path, pictures: Path) -> Iterator[Example]:
    """Pictures of a VGG Image Annotator file; its regions are a list or, in version 1, a dict."""
    for record in json.loads(labels.read_text("utf-8")).values():
        regions = record["regions"]
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if not regions:
            continue
        path = pictures / record["filename"]
        if not path.is_file():
            raise ImageError(
                f"{path.name} is named in {labels.name} but is not in {pictures.name}/."
            )
        image = load(path).image
        masks = _polygon_masks((region["shape_attributes"] for region in regions), image.shape[:2])
        if len(masks):
            yield Example(path.name, image, masks)


def _polygon_masks(shapes: Iterable[dict[str, Any]], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Fill outlines of three points or more; a polyline is closed. Other shapes do not count."""
    masks = []
    for shape in shapes:
        outline = np.array([shape.get("all_points_x", ()), shape.get("all_points_y", ())])
        if outline.shape[1] >= 3:
            canvas = np.zeros(size, np.uint8)
            cv2.fillPoly(canvas, [np.rint(outline.T).astype(np.int32)], 1)
            masks.append(canvas.astype(bool))
    filled = np.array(masks, bool).reshape(-1, *size)
    return filled[filled.any(axis=(1, 2))]


def fss1000_examples(folder: Path) -> Iterator[Example]:
    """Yield FSS-1000: a folder for each class with 1.jpg to 10.jpg and 1.png to 10.png.

    Raises ImageError if there is no such folder, or a picture has no mask.
    """
    root = folder / "fewshot_data" if (folder / "fewshot_data").is_dir() else folder
    pictures = sorted(root.glob("*/*.jpg"), key=lambda path: (path.parent.name, _number(path)))
    if not pictures:
        raise ImageError(f"{folder} has no folders of classes with 1.jpg and 1.png (FSS-1000).")
    return _figure_and_ground(pictures)


def msra10k_examples(folder: Path) -> Iterator[Example]:
    """Yield MSRA10K: pictures *.jpg and masks *.png of the same stem, here or in Imgs/.

    Raises ImageError if there are none, or a picture has no mask.
    """
    root = folder / "Imgs" if (folder / "Imgs").is_dir() else folder
    pictures = sorted(root.glob("*.jpg"))
    if not pictures:
        raise ImageError(f"{folder} has no pictures *.jpg with masks *.png beside them (MSRA10K).")
    return _figure_and_ground(pictures)


def _figure_and_ground(pictures: Iterable[Path]) -> Iterator[Example]:
    """One object a picture; its mask is the PNG of the same stem beside it."""
    for path in pictures:
        mask_path = path.with_suffix(".png")
        if not mask_path.is_file():
            raise ImageError(f"{path.name} has no mask {mask_path.name} in {path.parent.name}/.")
        image = load(path).image
        with Image.open(mask_path) as opened:
            mask = np.asarray(opened.convert("L")) >= FOREGROUND
        if mask.shape != image.shape[:2]:
            raise ImageError(
                f"{mask_path.name} is {mask.shape}, its picture {image.shape[:2]} (height, width)."
            )
        if mask.any():
            yield Example(f"{path.parent.name}/{path.name}", image, mask[None])


def _by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by file stem, in order; none if there is no such folder."""
    if not folder.is_dir():
        return {}
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
    return {path.stem: path for path in paths}


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0


LAYOUTS: dict[str, Reader] = {
    "robust-seg": robust_seg_examples,
    "lvis": lvis_examples,
    "bdd100k": bdd100k_examples,
    "lis": lis_examples,
    "ndd20": ndd20_examples,
    "streets": streets_examples,
    "fss1000": fss1000_examples,
    "msra10k": msra10k_examples,
}
# Their pictures were taken in bad conditions: they are evaluated as they are.
REAL_DEGRADATIONS = ("bdd100k", "lis")
