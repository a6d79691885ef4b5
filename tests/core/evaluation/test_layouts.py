"""Every published layout, read from a tiny folder of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core import masks as mask_ops
from core.errors import ImageError
from core.evaluation.data import folder_examples
from core.evaluation.layouts import LAYOUTS, DegradedExample

SIZE = (30, 40)


def save_picture(path: Path, colour: str = "teal") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], colour).save(path)


def square(top: int = 5, left: int = 10, side: int = 15) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco_like(image: dict[str, Any]) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 7, "category_id": 1, "area": 225}
    return {
        "images": [{"id": 7, "width": SIZE[1], "height": SIZE[0], **image}],
        "annotations": [{**annotation, "segmentation": mask_ops.encode_rle(square())}],
        "categories": [{"id": 1, "name": "thing"}],
    }


def via(name: str, regions: Any) -> dict[str, Any]:
    return {f"{name}123": {"filename": name, "size": 123, "regions": regions}}


def outline(shape: str = "polygon") -> dict[str, Any]:
    points = {"all_points_x": [10, 24, 24, 10], "all_points_y": [5, 5, 19, 19]}
    return {"region_attributes": {}, "shape_attributes": {"name": shape, **points}}


def make_robust_seg(root: Path) -> None:
    for kind in ("clear", "rain", "fog"):
        for stem in ("a", "b"):
            save_picture(root / kind / f"{stem}.jpg")
    (root / "masks").mkdir()
    np.save(root / "masks" / "a.npy", square()[None])
    np.save(root / "masks" / "b.npy", square())


def make_lvis(root: Path) -> None:
    address = {"coco_url": "http://images.cocodataset.org/val2017/a.jpg"}
    write_json(root / "annotations" / "lvis_v1_val.json", coco_like(address))
    write_json(root / "annotations" / "lvis_v1_train.json", coco_like(address))
    save_picture(root / "val2017" / "a.jpg")


def make_lis(root: Path) -> None:
    for part in ("test", "train"):
        content = coco_like({"file_name": "a.JPG"})
        write_json(root / "annotations" / f"lis_coco_JPG_{part}+1.json", content)
    save_picture(root / "RGB-dark" / "JPEGImages" / "a.JPG")
    save_picture(root / "RGB-normal" / "JPEGImages" / "a.JPG", "white")


def make_bdd100k(root: Path) -> None:
    save_picture(root / "images" / "10k" / "val" / "a.jpg")
    bitmask = np.zeros((*SIZE, 4), np.uint8)
    bitmask[square()] = (3, 0b1100, 1, 2)  # a truncated, occluded car of number 258
    bitmask[25:, :5] = (1, 0b0010, 0, 9)  # a crowd
    bitmask[25:, 30:] = (1, 0b0001, 0, 8)  # to be ignored
    path = root / "labels" / "ins_seg" / "bitmasks" / "val" / "a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(bitmask).save(path)


def make_ndd20(root: Path) -> None:
    write_json(root / "ABOVE_LABELS.json", via("a.jpg", [outline("polyline")]))
    write_json(root / "BELOW_LABELS.json", via("b.jpg", []))
    save_picture(root / "ABOVE" / "a.jpg")


def make_streets(root: Path) -> None:
    point = {"shape_attributes": {"name": "point", "cx": 3, "cy": 3}}
    labels = root / "vehicleannotations" / "annotations" / "vehicle-annotations.json"
    write_json(labels, via("cam-1.jpg", {"0": outline(), "1": point}))
    save_picture(root / "vehicleannotations" / "images" / "cam-1.jpg")


def save_mask(path: Path) -> None:
    Image.fromarray(square().astype(np.uint8) * 255).convert("RGB").save(path)


def make_fss1000(root: Path) -> None:
    for number in (10, 2):
        save_picture(root / "fewshot_data" / "bus" / f"{number}.jpg")
        save_mask(root / "fewshot_data" / "bus" / f"{number}.png")


def make_msra10k(root: Path) -> None:
    save_picture(root / "Imgs" / "7.jpg")
    save_mask(root / "Imgs" / "7.png")


MAKERS: dict[str, Callable[[Path], None]] = {
    "robust-seg": make_robust_seg,
    "lvis": make_lvis,
    "lis": make_lis,
    "bdd100k": make_bdd100k,
    "ndd20": make_ndd20,
    "streets": make_streets,
    "fss1000": make_fss1000,
    "msra10k": make_msra10k,
}
NAMES = {
    "robust-seg": ["a.jpg", "b.jpg"],
    "lvis": ["a.jpg"],
    "lis": ["a.JPG"],
    "bdd100k": ["a.jpg"],
    "ndd20": ["a.jpg"],
    "streets": ["cam-1.jpg"],
    "fss1000": ["bus/2.jpg", "bus/10.jpg"],
    "msra10k": ["Imgs/7.jpg"],
}


def test_every_layout_is_tested() -> None:
    assert MAKERS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_a_layout(name: str, tmp_path: Path) -> None:
    """Same object everywhere; the picture is dark where there is a bright one, too."""
    MAKERS[name](tmp_path)
    examples = list(folder_examples(tmp_path, name))
    assert [example.name for example in examples] == NAMES[name]
    for example in examples:
        assert example.image.shape == (*SIZE, 3) and example.image.mean() < 100
        assert np.array_equal(example.masks, square()[None])


@pytest.mark.parametrize("name", MAKERS)
def test_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    save_picture(tmp_path / "holiday" / "beach.png")
    with pytest.raises(ImageError, match=tmp_path.name):
        list(folder_examples(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("robust-seg", "fog/b.jpg", r"clear/b.jpg has no counterpart fog/b\.\*"),
        ("robust-seg", "masks/a.npy", "clear/a.jpg has no masks/a.npy"),
        ("lvis", "val2017/a.jpg", "a.jpg is named in lvis_v1_val.json"),
        ("lis", "RGB-dark/JPEGImages/a.JPG", "a.JPG is named in lis_coco_JPG_test"),
        ("bdd100k", "images/10k/val/a.jpg", "val/a.png has no picture"),
        ("ndd20", "ABOVE/a.jpg", "a.jpg is named in ABOVE_LABELS.json but is not in ABOVE/"),
        ("streets", "vehicleannotations/images/cam-1.jpg", "cam-1.jpg is named in vehicle"),
        ("fss1000", "fewshot_data/bus/2.png", "2.jpg has no mask 2.png in bus/"),
        ("msra10k", "Imgs/7.png", "7.jpg has no mask 7.png"),
    ],
)
def test_a_missing_file_is_named(name: str, missing: str, words: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ImageError, match=words):
        list(folder_examples(tmp_path, name))


def test_robust_seg_pairs_by_name(tmp_path: Path) -> None:
    """One degraded picture more does not shift the others, and another suffix fits as well."""
    make_robust_seg(tmp_path)
    save_picture(tmp_path / "rain" / "0.jpg")
    (tmp_path / "rain" / "a.jpg").rename(tmp_path / "rain" / "a.png")
    first, second = folder_examples(tmp_path, "robust-seg")
    assert isinstance(first, DegradedExample) and isinstance(second, DegradedExample)
    assert {kind: path.name for kind, path in first.degraded.items()} == {
        "fog": "a.jpg",
        "rain": "a.png",
    }
    assert second.degraded["rain"].name == "b.jpg"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((1, 9, 9), bool), r"masks/a.npy has shape \(1, 9, 9\), its picture \(30, 40\)"),
        (np.array({"a": 1}), "no plain .npy array"),
    ],
)
def test_robust_seg_masks_have_to_fit(array: np.ndarray, words: str, tmp_path: Path) -> None:
    make_robust_seg(tmp_path)
    np.save(tmp_path / "masks" / "a.npy", array)
    with pytest.raises(ImageError, match=words):
        list(folder_examples(tmp_path, "robust-seg"))


def test_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    make_msra10k(tmp_path)
    Image.new("L", (9, 9)).save(tmp_path / "Imgs" / "7.png")
    with pytest.raises(ImageError, match="7.png is"):
        list(folder_examples(tmp_path, "msra10k"))
