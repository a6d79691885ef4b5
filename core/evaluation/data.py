"""Pictures with true masks: the held-out sticker scenes, or a real data set's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError
from core.images import load

MIN_AREA_FRACTION = 0.004
MIN_VISIBLE_FRACTION = 0.35  # of an object: less than that is hardly that object any more
STICKER_SEED = 2026
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True, eq=False)
class Example:
    """One picture, RGB uint8 (H, W, 3), and its true masks, bool (N, H, W)."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def sticker_examples(
    folder: Path, count: int, *, held_out_style: bool = False, seed: int = STICKER_SEED
) -> Iterator[Example]:
    """Yield ``count`` scenes at 256 px of objects, and on photographs, never trained on.

    Objects that cover under 0.4 % of the picture or are hidden by more than 65 % are no targets;
    a scene without any target is drawn anew.
    """
    from core.stickers.atlas import load_atlas
    from core.stickers.scenes import SceneGenerator

    atlas = load_atlas(folder)
    sprites = atlas.test_sprites(held_out_style=held_out_style)
    generator = SceneGenerator(atlas, sprites, seed=seed, test_photos=True)

    def scenes() -> Iterator[Example]:
        while True:
            batch = generator.batch(16)
            for image, ids, visible in zip(
                batch.images.permute(0, 2, 3, 1).cpu().numpy(),
                batch.instance_ids.cpu().numpy(),
                batch.visible_fractions.numpy(),
                strict=True,
            ):
                masks = np.stack([ids == k + 1 for k in range(len(visible))])
                masks = masks[visible >= MIN_VISIBLE_FRACTION]
                masks = masks[masks.mean(axis=(1, 2)) >= MIN_AREA_FRACTION]
                if len(masks):
                    yield Example("scene", np.ascontiguousarray(image), masks)

    return islice(scenes(), count)


def coco_examples(folder: Path) -> Iterator[Example]:
    """Yield the pictures of a COCO-style folder: one ``*.json`` with images and annotations,
    pictures anywhere below. Crowd regions are left out.

    Raises ImageError if there is not exactly one JSON file or a picture is missing.
    """
    files = sorted(folder.glob("*.json")) or sorted(
        (folder / "annotations").glob("instances*.json")
    )
    if len(files) != 1:
        raise ImageError(f"{folder} has {len(files)} COCO JSON files: exactly one is needed.")
    return annotated_examples(files[0], folder)


def annotated_examples(annotations: Path, folder: Path) -> Iterator[Example]:
    """Yield the pictures of one JSON file in COCO's form, found anywhere below a folder.

    LVIS's form counts, too: its pictures have an address in place of a name, and its annotations
    know no crowds.

    Raises ImageError if a picture is missing.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = json.loads(annotations.read_text("utf-8"))
    coco.createIndex()
    paths = {p.name: p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES}
    for image_id in sorted(coco.getImgIds()):
        (info,) = coco.loadImgs([image_id])
        found = [a for a in coco.loadAnns(coco.getAnnIds([image_id])) if not a.get("iscrowd")]
        if not found:
            continue
        name = Path(info.get("file_name") or info["coco_url"]).name
        if name not in paths:
            raise ImageError(f"{name} is named in {annotations.name} but is not below {folder}.")
        masks = np.stack([coco.annToMask(a).astype(bool) for a in found])
        if masks.any():
            yield Example(name, load(paths[name]).image, masks[masks.any(axis=(1, 2))])


def label_examples(folder: Path) -> Iterator[Example]:
    """Yield pictures of ``images/`` with label PNGs of the same stem in ``masks/``.

    Every value of a label picture but 0 (and 255 where there are others: void) is one object.
    """
    pictures = sorted(p for p in (folder / "images").glob("*") if p.suffix in PICTURE_SUFFIXES)
    if not pictures:
        raise ImageError(f"{folder} has no images/ with pictures and masks/ with label PNGs.")
    for path in pictures:
        labels = np.array(Image.open(folder / "masks" / f"{path.stem}.png"))
        labels = labels if labels.ndim == 2 else labels[..., 0]
        values = [v for v in np.unique(labels) if v]
        if len(values) > 1:
            values = [v for v in values if v != 255]
        if values:
            yield Example(path.name, load(path).image, np.stack([labels == v for v in values]))


Reader = Callable[[Path], Iterator[Example]]

FORMATS: dict[str, Reader] = {
    "coco": coco_examples,
    "labels": label_examples,
}


def folder_examples(folder: Path, data_format: str | None) -> Iterator[Example]:
    """Yield the examples of a real data set. Raises ImageError on an unknown format."""
    from core.evaluation.layouts import LAYOUTS

    readers = FORMATS | LAYOUTS
    if data_format not in readers:
        raise ImageError(f"Unknown --format {data_format}: use one of {', '.join(readers)}.")
    return readers[data_format](folder)
