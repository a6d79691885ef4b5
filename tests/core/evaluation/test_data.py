"""Examples come from the held-out split, and from folders in published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core import masks as mask_ops
from core.errors import ImageError
from core.evaluation import data
from core.stickers import atlas as atlas_module
from core.stickers.atlas import Atlas


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "images" / "a.png")
    return tmp_path


def test_sticker_examples_are_visible_objects_of_the_test_split(
    small_atlas: Atlas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(atlas_module, "load_atlas", lambda folder: small_atlas)
    examples = list(data.sticker_examples(tmp_path, 20))
    assert len(examples) == 20
    for example in examples:
        assert example.image.shape == (256, 256, 3) and example.image.dtype == np.uint8
        assert (example.masks.mean(axis=(1, 2)) >= data.MIN_AREA_FRACTION).all()
        assert example.masks.sum(axis=0).max() == 1, "visible masks do not overlap"
    again = next(data.sticker_examples(tmp_path, 1))
    assert np.array_equal(again.image, examples[0].image)


def test_coco_folder(picture: Path) -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:30] = True
    rle = mask_ops.encode_rle(mask)
    crowd = {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 1, 1]}
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {**crowd, "id": 1, "iscrowd": 0, "segmentation": rle, "area": 300},
            {**crowd, "segmentation": rle, "area": 300},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (picture / "instances.json").write_text(json.dumps(content))
    (example,) = data.folder_examples(picture, "coco")
    assert example.name == "a.png"
    assert np.array_equal(example.masks, mask[None])


def test_label_folder(picture: Path) -> None:
    (picture / "masks").mkdir()
    labels = np.zeros((30, 40), np.uint8)
    labels[:5], labels[10:15], labels[20:] = 1, 2, 255
    Image.fromarray(labels).save(picture / "masks" / "a.png")
    (example,) = data.folder_examples(picture, "labels")
    assert [m.sum() for m in example.masks] == [200, 200], "255 beside others is void"


@pytest.mark.parametrize(
    ("data_format", "words"),
    [("coco", "COCO JSON"), ("labels", "images/"), ("nonsense", "coco, labels")],
)
def test_a_folder_that_does_not_fit(tmp_path: Path, data_format: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        list(data.folder_examples(tmp_path, data_format))


def test_a_missing_picture_is_named(picture: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "b.png", "width": 4, "height": 3}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 1}],
        "categories": [],
    }
    (picture / "instances.json").write_text(json.dumps(content))
    with pytest.raises(ImageError, match="b.png"):
        list(data.folder_examples(picture, "coco"))
