import io
import json
import time
import zipfile
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from core import exports
from core.images import content_hash
from core.masks import decode_rle
from core.overlays import hex_color, palette
from core.results import Dropped, Segmentation

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SIZE = (60, 80)


def picture(size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


def result(**changes):
    stack = np.zeros((3, *SIZE), bool)
    stack[0, 5:30, 10:40] = True
    stack[1, 20:50, 30:70] = True  # 10·10 px over the first
    stack[2, 55, 75] = True
    values = {
        "method": "sam_everything",
        "model": "sam_embedded",
        "model_set": "embedded",
        "size": SIZE,
        "masks": stack,
        "labels": ("dog", "", "<img src=x onerror=alert(1)>"),
        "scores": np.array([0.95, 0.71, np.nan], np.float32),
        "dropped": (Dropped("cat", 0.2, "below 0.60"),),
        "warnings": ("Transparent parts were put on white.",),
        "parameters": {"points_per_side": 16},
        "seed": 7,
        "seconds": {"encode": 0.123456, "predict": 0.01, "total": 0.133456},
    }
    return Segmentation(**{**values, **changes})


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_record_has_exactly_the_specified_keys():
    record = exports.record(result())
    assert set(record) == {
        *("method", "model", "model_set", "image", "parameters", "seed", "seconds"),
        *("instances", "overlap_px", "dropped", "warnings"),
    }
    assert record["image"] == {"width": 80, "height": 60}
    assert record["dropped"] == [{"label": "cat", "score": 0.2, "reason": "below 0.60"}]
    assert record["overlap_px"] == 100
    assert record["seconds"] == {"encode": 0.1235, "predict": 0.01, "total": 0.1335}
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_record_of_an_instance():
    first, _, third = exports.record(result())["instances"]
    assert {key: first[key] for key in first if key != "rle"} == {
        "id": 1,
        "label": "dog",
        "score": 0.95,
        "score_kind": "predicted_iou",
        "area_px": 750,
        "area_fraction": 750 / 4800,
        "box_xyxy": [10, 5, 40, 30],
        "color": "#0072b2",
    }
    np.testing.assert_array_equal(decode_rle(first["rle"]), result().masks[0])
    assert third["score"] is None
    assert third["box_xyxy"] == [75, 55, 76, 56]


def test_numbers_and_colours_follow_the_instance_when_others_are_hidden():
    shown = result().select([2, 0])
    instances = exports.record(shown)["instances"]
    assert [i["id"] for i in instances] == [3, 1]
    assert [i["color"] for i in instances] == [hex_color(3), hex_color(1)]
    labels = decoded(exports.labels_png(shown))
    assert labels[55, 75] == 3 and labels[10, 15] == 1


def test_coco_is_read_by_pycocotools(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps(exports.coco(result(), "beach")))
    dataset = COCO(str(tmp_path / "coco.json"))
    annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=[1]))
    assert [a["id"] for a in annotations] == [1, 2, 3]
    for annotation, mask in zip(annotations, result().masks, strict=True):
        np.testing.assert_array_equal(dataset.annToMask(annotation).astype(bool), mask)
        as_polygons = dataset.annToMask({**annotation, "segmentation": annotation["polygons"]})
        np.testing.assert_array_equal(as_polygons.astype(bool), mask)
    assert annotations[0]["bbox"] == [10, 5, 30, 25]
    names = [c["name"] for c in dataset.loadCats(dataset.getCatIds())]
    assert names == ["dog", "object", "<img src=x onerror=alert(1)>"]


def test_coco_files_of_several_pictures_become_one(tmp_path):
    first, second = result().select([2, 0]), result(labels=("cat", "dog", "cat"))
    singles = [
        exports.coco(one, f"p{n}") for n, one in enumerate((first, result().select([]), second))
    ]
    merged = exports.merge_coco(singles, "three pictures", ["bird", "dog"])
    (tmp_path / "coco.json").write_text(json.dumps(merged))
    dataset = COCO(str(tmp_path / "coco.json"))
    assert [image["file_name"] for image in dataset.loadImgs([1, 2, 3])] == ["p0", "p1", "p2"]
    names = [c["name"] for c in dataset.loadCats(dataset.getCatIds())]
    assert names == ["bird", "dog", "<img src=x onerror=alert(1)>", "cat"]
    for image_id, one in ((1, first), (2, result().select([])), (3, second)):
        annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=[image_id]))
        shown = [dataset.cats[a["category_id"]]["name"] for a in annotations]
        assert shown == list(one.labels)
        for annotation, mask in zip(annotations, one.masks, strict=True):
            np.testing.assert_array_equal(dataset.annToMask(annotation).astype(bool), mask)
    assert len(dataset.anns) == 5, "every annotation has a number of its own"
    assert exports.merge_coco(singles[2:], "p2")["annotations"] == singles[2]["annotations"]


def test_mask_png_is_single_channel_zero_and_255():
    mask = result().masks[0]
    file = Image.open(io.BytesIO(exports.mask_png(mask)))
    assert (file.format, file.mode, file.size) == ("PNG", "L", (80, 60))
    np.testing.assert_array_equal(np.asarray(file), np.where(mask, 255, 0))


def test_labels_png_is_indexed_in_the_legends_colours_and_prefers_scores():
    file = Image.open(io.BytesIO(exports.labels_png(result())))
    assert file.mode == "P"
    labels = np.asarray(file)
    assert labels[25, 35] == 1, "the higher score wins the overlap"
    assert labels[45, 60] == 2 and labels[0, 0] == 0
    colors = np.asarray(file.convert("RGB"))
    assert tuple(colors[45, 60]) == palette(2) and tuple(colors[0, 0]) == (0, 0, 0)


def test_labels_png_above_255_instances_is_sixteen_bit():
    many = result().select([0])
    many = Segmentation("sam", "m", "embedded", SIZE, many.masks, ("",), many.scores, ids=(300,))
    labels = decoded(exports.labels_png(many))
    assert (labels.dtype, labels.max()) == (np.uint16, 300)


def test_labels_png_of_nothing():
    assert decoded(exports.labels_png(result().select([]))).max() == 0


def test_cutout_has_the_mask_as_alpha_and_hides_the_rest():
    image, mask = picture(), result().masks[1]
    cut = decoded(exports.cutout(image, mask))
    np.testing.assert_array_equal(cut[:, :, 3], np.where(mask, 255, 0))
    np.testing.assert_array_equal(cut[mask][:, :3], image[mask])
    assert not cut[~mask].any()


@pytest.mark.parametrize("channels", [3, 4])
def test_picture_png_is_lossless_in_rgb_order(channels):
    values = np.random.default_rng(1).integers(0, 256, (9, 7, channels)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(exports.picture_png(values)), values)


def test_write_all_names_contents_and_archive(tmp_path):
    files = exports.write_all(picture(), result(), "My cat_1.v2", tmp_path / "new", WHEN)
    prefix = "My-cat-1-v2_sam-everything_20260304T050607Z"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(
        f"{prefix}_{ending}"
        for ending in (
            *("overlay.png", "labels.png", "instances.json", "coco.json", "all.zip"),
            *("mask_1_dog.png", "mask_2.png", "mask_3_img-src-x-onerror-alert-1.png"),
            *("cutout_1.png", "cutout_2.png", "cutout_3.png"),
        )
    )
    assert json.loads(files.instances.read_text("utf-8")) == exports.record(result())
    assert decoded(files.overlay.read_bytes()).shape == (*SIZE, 3)

    with zipfile.ZipFile(files.archive) as archive:
        assert archive.testzip() is None
        names = {path.name for path in files.all}
        assert set(archive.namelist()) == names | {"parameters.json"}
        for path in files.all:
            assert archive.read(path.name) == path.read_bytes()
        parameters = json.loads(archive.read("parameters.json"))
        assert archive.getinfo("parameters.json").date_time == (2026, 3, 4, 5, 6, 7 // 2 * 2)
    assert parameters["parameters"] == {"points_per_side": 16}
    assert parameters["seed"] == 7
    assert parameters["image"]["content_hash"] == content_hash(picture())


def test_the_overlay_as_seen_is_written(tmp_path):
    seen = np.random.default_rng(2).integers(0, 256, (*SIZE, 4)).astype(np.uint8)
    files = exports.write_all(picture(), result(), "a", tmp_path, WHEN, overlay=seen)
    np.testing.assert_array_equal(decoded(files.overlay.read_bytes()), seen)


def test_names_are_in_utc_and_a_result_without_masks_has_files_too(tmp_path):
    korea = WHEN.astimezone(timezone(timedelta(hours=9)))
    files = exports.write_all(picture(), result().select([]), "", tmp_path, korea)
    assert files.archive.name == "image_sam-everything_20260304T050607Z_all.zip"
    assert files.masks == files.cutouts == ()


@given(st.text(max_size=300))
def test_a_slug_is_a_safe_part_of_a_file_name(text):
    slug = exports.slug(text)
    assert len(slug) <= 40 and len(slug.encode()) <= 80
    assert all(character.isalnum() or character == "-" for character in slug)
    assert slug == slug.strip("-")
    assert exports.slug(slug) == slug


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\x\0y", "C-x-y"),
        ("강아지 사진", "강아지-사진"),
        ("..", ""),
        ("a" * 99, "a" * 40),
    ],
)
def test_slugs(text, slug):
    assert exports.slug(text) == slug


def test_a_megapixel_with_four_masks_is_written_in_under_a_second(tmp_path):
    image = picture((1024, 1024))
    stack = np.zeros((4, 1024, 1024), bool)
    for index in range(4):
        stack[index, 100 * index : 100 * index + 500, 200:700] = True
    found = Segmentation(
        "sam", "m", "embedded", (1024, 1024), stack, ("",) * 4, np.ones(4, np.float32)
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        exports.write_all(image, found, "timed", tmp_path, WHEN)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0
