"""PixelLM's data sets, read from tiny files in their published layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from core.errors import ImageError
from core.evaluation import pixellm_layouts as layouts
from core.evaluation import pixellm_run
from tests.core.evaluation.test_pixellm import arguments
from tests.core.pixellm.conftest import small_model

WIDTH, HEIGHT = 20, 12
LEFT = [[0, 0, 10, 0, 10, 12, 0, 12]]  # a polygon
RIGHT = [[10, 0, 20, 0, 20, 12, 10, 12]]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(path)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def instance(segmentation: object, name: str, described: str | None = None) -> dict:
    target = {"category_name": name, "segmentation": segmentation, "bbox": [0, 0, 10, 12]}
    return target | ({"rephrased_name": described} if described else {})


def muse(folder: Path, **changes: object) -> Path:
    picture(folder / "train2014" / "one.jpg")
    record = {
        "file_name": "one.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "ann_list": [],
        "questions": ["What do I need for tea?", "What is broken here?"],
        "answers": [
            [instance(LEFT, "tea_cup", "the small cup"), instance(RIGHT, "kettle")],
            [instance(LEFT, "tea_cup"), instance(RIGHT, "kettle")],
        ],
        "text_answers": ["Take the small cup {seg} and the kettle {seg}.", "The cup {seg}."],
    }
    write_json(folder / "muse" / "muse_val.json", [record | changes])
    return folder


def test_muse(tmp_path: Path) -> None:
    talks = list(layouts.muse_talks(muse(tmp_path)))
    assert len(talks) == 1, "the second answer has a place too few"
    (asked,) = talks[0].asked
    assert talks[0].image.shape == (HEIGHT, WIDTH, 3)
    assert asked.question == "What do I need for tea?" and asked.style == "mask"
    assert asked.descriptions == (("the small cup", "tea cup"), ("kettle",))
    assert asked.truth[0, :, :10].all() and not asked.truth[0, :, 10:].any()
    assert asked.kind == "few"


def test_muse_without_written_answers_and_by_address(tmp_path: Path) -> None:
    changes = {"text_answers": None, "file_name": None, "coco_url": "http://x/train2017/one.jpg"}
    assert len(list(layouts.muse_talks(muse(tmp_path, **changes)))) == 2


def test_faults_of_muse_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no muse_val.json"):
        list(layouts.muse_talks(tmp_path))
    with pytest.raises(ImageError, match="no split nine"):
        list(layouts.muse_talks(muse(tmp_path), "nine"))
    muse(tmp_path, file_name="two.jpg")
    with pytest.raises(ImageError, match="two.jpg is named in muse_val.json"):
        list(layouts.muse_talks(tmp_path))
    write_json(tmp_path / "muse" / "muse_val.json", [{"file_name": "one.jpg"}])
    with pytest.raises(ImageError, match="without name, questions or answers"):
        list(layouts.muse_talks(tmp_path))


def test_segmentations_in_each_form() -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, :10] = True
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": compressed["size"], "counts": compressed["counts"].decode()}
    plain = {"size": [HEIGHT, WIDTH], "counts": [0, 120, 120]}
    for form in (LEFT, compressed, text, plain):
        assert np.array_equal(layouts.segmentation_mask(form, (HEIGHT, WIDTH)), mask)
    with pytest.raises(ImageError, match="its picture"):
        layouts.segmentation_mask(text, (5, 5))
    with pytest.raises(ImageError, match="neither polygons"):
        layouts.segmentation_mask({"rle": 1}, (5, 5))


def reasonseg(folder: Path, **changes: object) -> Path:
    picture(folder / "val" / "one.jpg")
    box = [[0, 0], [9, 0], [9, 11], [0, 11]]
    inner = [[2, 2], [4, 2], [4, 4], [2, 4]]
    record = {
        "text": ["the part that opens", "another one"],
        "is_sentence": False,
        "shapes": [
            {"label": "ignore", "points": inner},
            {"label": "target", "points": box},
            {"label": "flag", "points": [[0, 0]]},
        ],
    }
    write_json(folder / "val" / "one.json", record | changes)
    return folder


def test_reasonseg(tmp_path: Path) -> None:
    (talk,) = layouts.reasonseg_talks(reasonseg(tmp_path))
    (asked,) = talk.asked
    assert asked.question == "What is the part that opens in this image?"
    assert asked.matching == "merged" and asked.kind == "short"
    assert asked.truth[0, :, :10].sum() == 120 - 9 and not asked.truth[0, :, 10:].any()
    assert asked.ignored is not None and asked.ignored.sum() == 9, "the small region lies on top"
    (talk,) = layouts.reasonseg_talks(reasonseg(tmp_path, text=["Why?"], is_sentence=True))
    assert talk.asked[0].question == "Why?"


def test_faults_of_reasonseg_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no val/"):
        list(layouts.reasonseg_talks(tmp_path))
    reasonseg(tmp_path, text=[])
    with pytest.raises(ImageError, match="no text, is_sentence and shapes"):
        list(layouts.reasonseg_talks(tmp_path))
    (tmp_path / "val" / "one.jpg").unlink()
    with pytest.raises(ImageError, match="has no picture one.jpg"):
        list(layouts.reasonseg_talks(tmp_path))


def refcoco(folder: Path, phrases: int = 2) -> Path:
    root = folder / "refcoco"
    picture(folder / "images" / "one.jpg")
    annotations = [
        {
            "id": k,
            "image_id": 7,
            "segmentation": shape,
            "area": 120,
            "bbox": [0, 0, 1, 1],
            "category_id": 1,
            "iscrowd": 0,
        }
        for k, shape in ((1, LEFT), (2, RIGHT))
    ]
    images = [{"id": 7, "file_name": "one.jpg", "height": HEIGHT, "width": WIDTH}]
    write_json(
        root / "instances.json",
        {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]},
    )
    refs = [
        {
            "ref_id": k,
            "ann_id": k,
            "image_id": 7,
            "split": "val",
            "sentences": [{"sent": f"{name} number {n}"} for n in range(phrases)],
        }
        for k, name in ((1, "Left"), (2, "right"))
    ]
    (root / "refs(unc).p").write_bytes(pickle.dumps(refs))
    return root


def test_refcoco_asks_for_each_expression(tmp_path: Path) -> None:
    talks = list(layouts.refcoco_talks(refcoco(tmp_path)))
    assert [t.asked[0].question for t in talks][::3] == [
        "What is Left number 0 in this image?",
        "What is right number 1 in this image?",
    ]
    assert talks[0].asked[0].truth[0, :, :10].all()


def test_multi_refcoco_asks_for_several_in_order(tmp_path: Path) -> None:
    first, second = layouts.multi_refcoco_talks(refcoco(tmp_path, phrases=4))
    asked = first.asked[0]
    assert asked.question.startswith("What is left number 0, left number 1, left number 2, ")
    assert asked.question.endswith(" and right number 1 in this image?")
    assert asked.truth.shape == (6, HEIGHT, WIDTH) and asked.matching == "ordered"
    assert len(second.asked[0].truth) == 2
    sizes = [len(chunk) for chunk in layouts.in_chunks(range(17))]
    assert sizes == [6, 5, 4, 2]


@pytest.mark.parametrize(
    ("form", "build", "column"),
    [
        ("muse", muse, "muse_val"),
        ("reasonseg", reasonseg, "reasonseg_val"),
        ("refcoco", refcoco, "refcoco_val"),
        ("multi_refcoco", refcoco, "multi_refcoco_val"),
    ],
)
def test_real_data_sets_through_the_protocol(tmp_path: Path, form, build, column) -> None:
    args = arguments(data=build(tmp_path), format=form, limit=2)
    assert pixellm_run.column(args) == column
    figures, details = pixellm_run.run_pixellm(small_model(), args)
    assert 0 <= figures["giou"] <= 1
    assert "this run" in {row["method"] for row in details["beside"]}


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="use one of muse, reasonseg"):
        pixellm_run.run_pixellm(small_model(), arguments(data=tmp_path, format="voc"))
