"""Every layout of CaR's data sets, read from a tiny folder of its kind."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core import masks as mask_ops
from core.car.config import CarConfig
from core.car.presets import PRESETS, Preset
from core.car.queries import key_of
from core.errors import ImageError
from core.evaluation import car_layouts, car_run
from core.evaluation.car_data import IGNORED
from core.evaluation.car_layouts import (
    COCO_STUFF_PRESET,
    WORD_LAYOUTS,
    davis_clips,
    read_refs,
    read_words,
    refcoco_column,
    refcoco_scenes,
)
from tests.core.benchmark import tiny

SIZE = (12, 16)
QUICK = CarConfig(max_side=32, max_tokens=17, templates=("a {}",), use_crf=False)


def save_picture(path: Path, colour: str = "teal") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], colour).save(path)


def save_labels(path: Path, low: int, high: int, mode: str = "L") -> None:
    """Above one value, below another, and a corner that nobody labelled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(SIZE, low, np.uint8)
    values[6:] = high
    values[0, 0] = 255
    picture = Image.fromarray(values)
    if mode == "P":
        picture = picture.convert("P")
        picture.putdata(values.flatten().tolist())
    picture.save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_voc(root: Path) -> None:
    inner = root / "VOCdevkit" / "VOC2012"
    write(inner / "ImageSets" / "Segmentation" / "val.txt", "2007_1\n2007_2\n")
    for stem in ("2007_1", "2007_2", "2007_3"):
        save_picture(inner / "JPEGImages" / f"{stem}.jpg")
        save_labels(inner / "SegmentationClass" / f"{stem}.png", 0, 20, "P")


def make_context(root: Path) -> None:
    write(root / "ImageSets" / "SegmentationContext" / "val.txt", "2008_1 2008_2")
    for stem in ("2008_1", "2008_2"):
        save_picture(root / "JPEGImages" / f"{stem}.jpg")
        save_labels(root / "SegmentationClassContext" / f"{stem}.png", 0, 59)


def make_coco_object(root: Path) -> None:
    for stem in ("01", "02"):
        save_picture(root / "images" / "val2017" / f"{stem}.jpg")
        save_labels(root / "annotations" / "val2017" / f"{stem}_instanceTrainIds.png", 0, 80)
        save_labels(root / "annotations" / "val2017" / f"{stem}_labelTrainIds.png", 3, 3)


def make_coco_stuff(root: Path) -> None:
    for stem in ("01", "02"):
        save_picture(root / "images" / "val2017" / f"{stem}.jpg")
        save_labels(root / "annotations" / "val2017" / f"{stem}_labelTrainIds.png", 0, 170)


def make_raw_coco_stuff(root: Path) -> None:
    for stem in ("01", "02"):
        save_picture(root / "images" / "val2017" / f"{stem}.jpg")
        save_labels(root / "stuffthingmaps" / "val2017" / f"{stem}.png", 0, 181)


def make_ade20k(root: Path) -> None:
    inner = root / "ADEChallengeData2016"
    for stem in ("ADE_val_1", "ADE_val_2"):
        save_picture(inner / "images" / "validation" / f"{stem}.jpg")
        save_labels(inner / "annotations" / "validation" / f"{stem}.png", 0, 150)


MAKERS: dict[str, tuple[Callable[[Path], None], int, int]] = {
    "voc": (make_voc, 0, 20),
    "context": (make_context, 0, 59),
    "coco_object": (make_coco_object, 0, 80),
    "coco_stuff": (make_coco_stuff, 1, 171),
    "ade20k": (make_ade20k, 0, 150),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_layout(name: str, tmp_path: Path) -> None:
    make, low, high = MAKERS[name]
    make(tmp_path)
    scenes = list(read_words(name, tmp_path))
    assert len(scenes) == 2
    for scene in scenes:
        assert scene.image.shape == (*SIZE, 3)
        assert scene.labels[0, 0] == IGNORED
        assert scene.labels[0, 1] == low and (scene.labels[6:] == high).all()
        assert len(scene.words) == high, "the last class is the highest label"


def test_unconverted_coco_stuff_has_gaps_in_its_values(tmp_path: Path) -> None:
    make_raw_coco_stuff(tmp_path)
    first, _ = read_words("coco_stuff", tmp_path)
    assert first.labels[0, 1] == 1 and (first.labels[6:] == 171).all()
    assert first.true_words == ("person with clothes,people,human", "wood")
    values = car_layouts.COCO_VALUES
    assert len(values) == 171 and values[80] == 91, "stuff begins at 91, things end at 89"
    assert first.words[79] == "toothbrush" and values[79] == 89
    save_labels(tmp_path / "stuffthingmaps" / "val2017" / "01.png", 11, 91)
    first, _ = read_words("coco_stuff", tmp_path)
    assert (first.labels[0] == IGNORED).all() and first.true_words == ("banner",)


def test_every_layout_is_tested_and_its_words_differ() -> None:
    assert MAKERS.keys() == WORD_LAYOUTS.keys()
    for layout in WORD_LAYOUTS.values():
        words = Counter(key_of(word) for word in layout.preset.classes)
        assert max(words.values()) == 1 and len(words) < IGNORED
        assert set(layout.preset.stuff) <= set(layout.preset.classes)
    assert len(COCO_STUFF_PRESET.things) == 80 and len(COCO_STUFF_PRESET.stuff) == 91


@pytest.mark.parametrize("name", MAKERS)
def test_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    save_picture(tmp_path / "holiday" / "beach.jpg")
    with pytest.raises(ImageError, match=tmp_path.name):
        list(read_words(name, tmp_path))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("voc", "VOCdevkit/VOC2012/JPEGImages/2007_2.jpg"),
        ("voc", "VOCdevkit/VOC2012/SegmentationClass/2007_2.png"),
        ("context", "SegmentationClassContext/2008_2.png"),
        ("coco_object", "images/val2017/02.jpg"),
        ("coco_stuff", "images/val2017/02.jpg"),
        ("ade20k", "ADEChallengeData2016/images/validation/ADE_val_2.jpg"),
    ],
)
def test_a_missing_file_is_named_before_the_first_picture(
    name: str, missing: str, tmp_path: Path
) -> None:
    MAKERS[name][0](tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ImageError, match=f"^{missing} is missing"):
        next(read_words(name, tmp_path))


def test_a_list_that_is_missing_is_named(tmp_path: Path) -> None:
    make_voc(tmp_path)
    with pytest.raises(ImageError, match="ImageSets/Segmentation/test.txt"):
        next(read_words("voc", tmp_path, "test"))


def test_label_pictures_have_to_fit(tmp_path: Path) -> None:
    make_context(tmp_path)
    labels = tmp_path / "SegmentationClassContext" / "2008_1.png"
    Image.new("L", (9, 9)).save(labels)
    with pytest.raises(ImageError, match="2008_1.png is"):
        next(read_words("context", tmp_path))
    Image.new("RGB", SIZE[::-1]).save(labels)
    with pytest.raises(ImageError, match="pixels of mode RGB"):
        next(read_words("context", tmp_path))


def square(left: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[2:8, left : left + 6] = True
    return mask


def ref(number: int, image: int, split: str, *sentences: str) -> dict[str, Any]:
    said = [{"sent": text, "raw": text.upper(), "sent_id": 0, "tokens": []} for text in sentences]
    about = {"ref_id": number, "ann_id": number, "image_id": image, "split": split}
    return about | {"sentences": said, "file_name": f"COCO_train2014_{image}_{number}.jpg"}


REFS = [
    ref(3, 70, "val", "the left one", "a square"),
    ref(1, 90, "val", "right"),
    ref(2, 70, "val", "the other"),
    ref(4, 90, "testA", "left"),
]


def make_refcoco(root: Path, name: str = "refcoco", by: str = "unc", refs: Any = REFS) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "segmentation": mask_ops.encode_rle(square(left)),
        }
        for number, image, left in ((1, 90, 8), (2, 70, 8), (3, 70, 1), (4, 90, 1))
    ]
    images = [
        {"id": i, "file_name": f"COCO_train2014_{i}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for i in (70, 90)
    ]
    write(
        folder / "instances.json",
        json.dumps({"images": images, "annotations": annotations, "categories": []}),
    )
    for i in (70, 90):
        save_picture(root / "images" / "mscoco" / f"COCO_train2014_{i}.jpg")
    return folder


def test_refcoco_gives_all_expressions_of_an_object(tmp_path: Path) -> None:
    first, second, third = refcoco_scenes(make_refcoco(tmp_path))
    assert first.phrases == ("the other",) and second.phrases == ("the left one", "a square")
    assert first.image is second.image and third.image is not first.image
    for scene, left in ((first, 8), (second, 1), (third, 8)):
        assert np.array_equal(scene.mask, square(left))
    (other,) = refcoco_scenes(tmp_path / "refcoco", "testA")
    assert other.phrases == ("left",)


def test_refcocog_has_two_splits(tmp_path: Path) -> None:
    folder = make_refcoco(tmp_path, "refcocog", "google", REFS[:1])
    assert refcoco_column(folder, None) == "refcocog_google_val"
    make_refcoco(tmp_path, "refcocog", "umd")
    assert len(list(refcoco_scenes(folder))) == 3, "umd is preferred"
    assert len(list(refcoco_scenes(folder, "google/val"))) == 1
    assert refcoco_column(folder, "google/val") == "refcocog_google_val"
    assert refcoco_column(folder, "val") == "refcocog_umd_val"
    plus = make_refcoco(tmp_path, "refcoco+")
    assert refcoco_column(plus, "testA") == "refcoco_plus_testA"
    with pytest.raises(ImageError, match="has to be named as its data set"):
        refcoco_column(make_refcoco(tmp_path, "mine"), "val")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("refcoco/refs(unc).p", r"has no refs\(unc\).p"),
        ("refcoco/instances.json", "has no instances.json"),
        ("images/mscoco/COCO_train2014_90.jpg", "COCO_train2014_90.jpg is neither below"),
    ],
)
def test_a_missing_file_of_refcoco_is_named(missing: str, words: str, tmp_path: Path) -> None:
    folder = make_refcoco(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ImageError, match=words):
        next(refcoco_scenes(folder))


def test_unknown_splits_are_named(tmp_path: Path) -> None:
    folder = make_refcoco(tmp_path)
    with pytest.raises(ImageError, match="no expressions of the split testC"):
        next(refcoco_scenes(folder, "testC"))
    with pytest.raises(ImageError, match=r"has no refs\(google\).p"):
        next(refcoco_scenes(folder, "google/val"))


class Hostile:
    """What a malicious pickle would hold: a call."""

    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps([Hostile()], protocol=2), "no plain list of expressions: it asks for"),
        (pickle.dumps([np.float64(1)], protocol=2), "it asks for numpy"),
        (pickle.dumps(REFS, protocol=2)[:-9], "no plain list"),
        (b"cos\nsystem\n(S'touch harmed'\ntR.", "it asks for os.system"),
        (b"", "no plain list"),
        (pickle.dumps({"ref_id": 1}), "no list of expressions with ref_id"),
        (pickle.dumps([{"ref_id": 1}]), "no list of expressions with ref_id"),
    ],
)
def test_expressions_are_read_as_plain_data_only(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words):
        read_refs(path)
    assert not (tmp_path / "harmed").exists()


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """Its strings are bytes, its numbers and containers as today's."""
    path = tmp_path / "refs(unc).p"
    fields = b"S'ref_id'\nI1\nsS'ann_id'\nI2\nsS'image_id'\nI3\nsS'split'\nS'val'\ns"
    sentences = b"S'sentences'\n(lp2\n(dp3\nS'sent'\nS'the caf\\xe9'\nsas"
    path.write_bytes(b"(lp0\n(dp1\n" + fields + sentences + b"a.")
    assert read_refs(path) == [
        {
            "ref_id": 1,
            "ann_id": 2,
            "image_id": 3,
            "split": "val",
            "sentences": [{"sent": "the café"}],
        }
    ]


def make_davis(root: Path) -> None:
    inner = root / "DAVIS"
    write(inner / "ImageSets" / "2017" / "val.txt", "bear\nmotorbike\n")
    for name in ("bear", "motorbike"):
        for frame in ("00000", "00001"):
            save_picture(inner / "JPEGImages" / "480p" / name / f"{frame}.jpg")
            save_labels(inner / "Annotations" / "480p" / name / f"{frame}.png", 1, 2)
    texts = root / "davis_text_annotations"
    write(
        texts / "Davis17_annot1.txt",
        'bear 1 "a brown bear"\nbear 2 "a rock, in front"\n\nmotor-bike 1 "a rider"\n',
    )
    texts.joinpath("Davis17_annot2.txt").write_bytes('bear 1 "the café bear"\n'.encode("latin-1"))


def test_ref_davis_gives_phrases_by_annotator_and_object(tmp_path: Path) -> None:
    make_davis(tmp_path)
    bear, bike = davis_clips(tmp_path)
    assert bear.sequence.name == "bear" and len(bear.sequence.frames) == 2
    assert bear.phrases == {
        "Davis17_annot1": {1: "a brown bear", 2: "a rock, in front"},
        "Davis17_annot2": {1: "the café bear"},
    }
    assert bike.phrases["Davis17_annot1"] == {1: "a rider"}, "spelt otherwise there"


def test_a_damaged_ref_davis_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="has no ImageSets"):
        next(davis_clips(tmp_path))
    make_davis(tmp_path)
    texts = tmp_path / "davis_text_annotations"
    write(texts / "Davis17_annot1.txt", 'bear one "a"\n')
    with pytest.raises(ImageError, match="Davis17_annot1.txt has a line that is no name, number"):
        next(davis_clips(tmp_path))
    write(texts / "Davis17_annot1.txt", "")
    clips = davis_clips(tmp_path)
    next(clips)
    with pytest.raises(ImageError, match="motorbike has no expressions"):
        next(clips)
    for path in texts.iterdir():
        path.unlink()
    with pytest.raises(ImageError, match=r"has no davis_text_annotations/Davis17_annot\*.txt"):
        next(davis_clips(tmp_path))


def run_on(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The protocol on a made-up folder, with a tiny CLIP and few words."""
    monkeypatch.setattr(car_run, "data_settings", lambda args, preset: QUICK)
    args = argparse.Namespace(model="sam_embedded", classifier=None, sam=None, split=None)
    args.data, args.format, args.limit, args.parity = folder, name, 1, False
    return car_run.run_car(tiny.tiny_clip(), args)


@pytest.mark.parametrize("name", ["voc", "context", "ade20k"])
def test_label_pictures_end_to_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS[name][0](tmp_path)
    figures, details = run_on(tmp_path, name, monkeypatch)
    assert 0 <= figures["miou"] <= 1 and details["scored_pictures"] == 1
    assert any(row["method"] == "car" for row in details["beside"])
    assert ("background_iou" in figures) == (name != "ade20k")


def test_expressions_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, details = run_on(make_refcoco(tmp_path), "refcoco", monkeypatch)
    assert 0 <= figures["referring_iou"] <= 1 and details["objects"] == 1
    assert details["beside"][0]["method"] == "car" or figures["referring_iou"] > 0.33


def test_clips_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_davis(tmp_path)
    figures, details = run_on(tmp_path, "ref_davis", monkeypatch)
    assert 0 <= figures["j_and_f"] <= 1 and len(details["objects"]) == 3


def test_presets_are_those_of_the_data() -> None:
    presets: list[tuple[str, Preset, int]] = [
        ("voc", PRESETS["voc"], 20),
        ("context", PRESETS["pascal_context"], 59),
        ("coco_object", PRESETS["coco"], 80),
        ("ade20k", PRESETS["ade_150"], 150),
    ]
    for name, preset, classes in presets:
        assert WORD_LAYOUTS[name].preset is preset and len(preset.classes) == classes
