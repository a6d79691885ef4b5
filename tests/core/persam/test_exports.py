"""Files of results: what is in them, what they are called, and that others can read them."""

import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from pycocotools.coco import COCO
from safetensors.torch import save_file

from core.engine import Engine
from core.errors import NothingFound
from core.evaluation.persam_davis import davis_sequences
from core.exports import record
from core.masks import decode_rle
from core.models.catalogue import Entry
from core.overlays import hex_color
from core.persam.clips import Clip, read_clip
from core.persam.config import FitConfig, PersamConfig
from core.persam.exports import FoundPicture, picture_record, write_follow, write_pictures
from core.persam.pipeline import PersamResult, find, learn
from core.persam.profile import Profile
from core.persam.target import Reference
from core.persam.video import FrameResult, VideoResult

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
STAMP = "20260304T050607Z"
STRICT = PersamConfig(presence_threshold=1.1)  # no score reaches it


@pytest.fixture(scope="module")
def engine(sam, sam_config, tmp_path_factory) -> Engine:
    path = tmp_path_factory.mktemp("models") / "golden.safetensors"
    save_file(sam.state_dict(), path)
    entry = Entry(
        id="golden",
        method="sam",
        set="embedded",
        title="Golden",
        note="",
        file=str(path),
        license="",
        source="",
        memory_mib=50,
        builder="core.sam.build:build_from_entry",
        config=vars(sam_config),
    )
    return Engine(device="cpu", models={"golden": entry})


@pytest.fixture(scope="module")
def profiles(engine, reference) -> list[Profile]:
    """An ellipse with learned weights, and what is around it without."""
    around = Reference(reference.image, ~reference.mask)
    fit = FitConfig(steps=5)
    return [
        learn(engine, "golden", [reference], name="my cup", fit=fit).profile,
        learn(engine, "golden", [around], name="wall").profile,
    ]


@pytest.fixture(scope="module")
def image(golden) -> np.ndarray:
    return golden["in.test_image"]


@pytest.fixture(scope="module")
def found(engine, profiles, image) -> PersamResult:
    return find(engine, "golden", image, profiles)


@pytest.fixture(scope="module")
def absent(engine, profiles, image) -> PersamResult:
    return find(engine, "golden", image, profiles, STRICT)


@pytest.fixture
def pictures(image, found, absent) -> list[FoundPicture]:
    """Three pictures of which two have the same name; in the second one nothing was found."""
    seen = np.full((*image.shape[:2], 4), 7, np.uint8)
    return [
        FoundPicture("holiday", image, found),
        FoundPicture("garden", image, absent, overlay=seen),
        FoundPicture("holiday", image, found),
    ]


@pytest.fixture
def files(pictures, profiles, tmp_path):
    return write_pictures(pictures, profiles, tmp_path / "new", WHEN)


def test_each_picture_has_its_folder_and_all_is_in_the_archive(files, tmp_path):
    prefix = f"3-pictures_persam_{STAMP}"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(
        [
            *("01_holiday", "02_garden", "03_holiday-2"),
            *(f"{prefix}_{ending}" for ending in ("all.zip", "coco.json", "results.json")),
            f"{prefix}_weights.json",
            f"{prefix}_profile_my-cup.safetensors",
            f"{prefix}_profile_wall.safetensors",
        ]
    )
    with zipfile.ZipFile(files.archive) as archive:
        assert archive.testzip() is None
        parameters = {f"{path.parent.name}/parameters.json" for path in files.overlays}
        inside = {path.relative_to(tmp_path / "new").as_posix(): path for path in files.all}
        assert set(archive.namelist()) == set(inside) | parameters
        assert len(archive.namelist()) == len(set(archive.namelist()))
        for name, path in inside.items():
            assert archive.read(name) == path.read_bytes()
        assert all(info.date_time == (2026, 3, 4, 5, 6, 6) for info in archive.infolist())


def test_a_picture_without_the_object_has_no_masks_but_an_overlay_and_a_record(files):
    empty = files.pictures[1]
    assert empty.masks == empty.cutouts == ()
    with Image.open(files.overlays[1]) as overlay:
        assert overlay.mode == "RGBA" and overlay.getpixel((0, 0)) == (7, 7, 7, 7), "as seen"
    told = json.loads(files.results.read_text("utf-8"))[1]
    assert told["instances"] == []
    assert [dropped["label"] for dropped in told["dropped"]] == ["my cup", "wall"]
    assert [row["presence_threshold"] for row in told["objects"]] == [1.1, 1.1]


def test_records_are_those_of_the_results(files, found, absent):
    told = json.loads(files.results.read_text("utf-8"))
    assert [one["image"]["name"] for one in told] == ["holiday", "garden", "holiday-2"]
    assert told == [
        picture_record("holiday", found),
        picture_record("garden", absent),
        picture_record("holiday-2", found),
    ]


def test_a_record_says_the_evidence_for_each_object(found, profiles):
    told = picture_record("holiday", found)
    plain = record(found.segmentation)
    assert {key for key in told if told[key] != plain.get(key)} == {"image", "instances", "objects"}
    assert told["image"] == {"name": "holiday", **plain["image"]}
    traces = found.traces
    for row, trace in zip(told["objects"], traces, strict=True):
        assert row["name"] == trace.profile.name
        assert row["presence_score"] == round(trace.found[0].presence.score, 4)
        assert row["presence_threshold"] is None
        assert row["weights"] is None, "PerSAM uses none"
    for ours, theirs in zip(told["instances"], plain["instances"], strict=True):
        number = ours["id"]
        assert ours.pop("presence_score") == round(found.find(number)[1].presence.score, 4)
        assert ours == theirs
        (row,) = (row for row in told["objects"] if number in row["instances"])
        assert row["name"] == ours["label"]


def test_persam_f_tells_its_weights(engine, profiles, image, tmp_path):
    result = find(engine, "golden", image, profiles[:1], PersamConfig.persam_f())
    weights = profiles[0].scale_weights
    expected = {"w1": weights.w1, "w2": weights.w2, "w3": 1 - weights.w1 - weights.w2}
    (row,) = picture_record("x", result)["objects"]
    assert row["weights"] == expected
    files = write_pictures([FoundPicture("x", image, result)], profiles, tmp_path, WHEN)
    assert json.loads(files.weights.read_bytes()) == [{"name": "my cup", **expected}]
    assert files.archive.name == f"x_persam-f_{STAMP}_all.zip"


def test_one_coco_file_of_all_pictures(files, found, image):
    dataset = COCO(str(files.coco))
    height, width = image.shape[:2]
    assert len(found.segmentation) > 0
    assert [dataset.loadImgs([k])[0]["file_name"] for k in (1, 2, 3)] == [
        *("holiday", "garden", "holiday-2"),
    ]
    assert all(one["width"] == width and one["height"] == height for one in dataset.imgs.values())
    assert [c["name"] for c in dataset.loadCats(dataset.getCatIds())] == ["my cup", "wall"]
    assert dataset.getAnnIds(imgIds=[2]) == []
    for picture in (1, 3):
        annotations = dataset.loadAnns(dataset.getAnnIds(imgIds=[picture]))
        names = [dataset.cats[a["category_id"]]["name"] for a in annotations]
        assert tuple(names) == found.segmentation.labels
        for annotation, mask in zip(annotations, found.segmentation.masks, strict=True):
            assert_array_equal(dataset.annToMask(annotation).astype(bool), mask)
    assert len(dataset.anns) == 2 * len(found.segmentation)


def test_profiles_come_back(files, profiles):
    for path, profile in zip(files.profiles, profiles, strict=True):
        loaded = Profile.read(path)
        assert (loaded.name, loaded.model_id) == (profile.name, profile.model_id)
        assert torch.equal(loaded.target.means, profile.target.means)


def test_objects_and_pictures_of_the_same_name_keep_their_files(profiles, pictures, tmp_path):
    same = [replace(profile, name="../cup") for profile in profiles]
    named = [replace(picture, stem="a/..") for picture in pictures]
    files = write_pictures(named, same, tmp_path, WHEN)
    assert [path.name.split("_")[-1] for path in files.profiles] == [
        *("cup.safetensors", "cup-2.safetensors"),
    ]
    assert len({path.parent for path in files.overlays}) == 3
    assert all(tmp_path in path.parents for path in files.all)


def test_pictures_are_taken_one_by_one(pictures, profiles, tmp_path):
    folder = tmp_path / "new"
    seen = []

    def one_by_one():
        for picture in pictures:
            seen.append(len(list(folder.glob("*_*"))))
            yield picture

    write_pictures(one_by_one(), profiles, folder, WHEN)
    assert seen == [0, 1, 2]


def test_no_picture_and_no_weights(pictures, profiles, tmp_path):
    with pytest.raises(NothingFound, match="no result"):
        write_pictures([], profiles, tmp_path)
    files = write_pictures(pictures[:1], profiles[1:], tmp_path, WHEN)
    assert files.weights is None


def follow_result(size=(48, 64), done=3, complete=False) -> VideoResult:
    """Two squares, the second one seen from the second frame on."""
    frames = []
    for t in range(done):
        labels = np.zeros(size, np.uint8)
        labels[4:20, 4 + t : 20 + t] = 1
        if t:
            labels[30:40, 30:50] = 2
        scores = np.array([1 - t / 8, np.nan if t == 0 else 0.75], np.float32)
        frames.append(FrameResult(t, labels, scores))
    return VideoResult(tuple(frames), ("cow", "bird"), (1, 2), complete, {"predict": 0.123456})


def clip(size=(48, 64), count=5) -> Clip:
    return Clip(tuple(np.full((*size, 3), 90, np.uint8) for _ in range(count)), 12.5)


def test_a_cancelled_clip_keeps_the_frames_that_are_done(tmp_path):
    files = write_follow(clip(), follow_result(), "My cows", tmp_path / "new", WHEN)
    prefix = f"My-cows_persam-video_{STAMP}"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        f"{prefix}_davis.zip",
        f"{prefix}_overlay.mp4",
        f"{prefix}_record.json",
    ]
    assert set(files.all) == set((tmp_path / "new").iterdir())
    told = json.loads(files.record.read_text("utf-8"))
    assert told["clip"] == {"width": 64, "height": 48, "frames": 5, "frame_rate": 12.5}
    assert (told["frames_done"], told["complete"]) == (3, False)
    assert told["objects"] == [
        {"id": 1, "name": "cow", "color": hex_color(1)},
        {"id": 2, "name": "bird", "color": hex_color(2)},
    ]
    assert told["frames"][:2] == [
        {"index": 0, "scores": [1.0, None], "area_px": [256, 0]},
        {"index": 1, "scores": [0.875, 0.75], "area_px": [256, 200]},
    ]
    assert told["seconds"] == {"predict": 0.1235}


def test_the_overlay_clip_shows_each_object_in_its_colour(tmp_path):
    pytest.importorskip("av")
    files = write_follow(clip(), follow_result(), "cows", tmp_path, WHEN)
    seen = read_clip(files.overlay)
    assert len(seen.frames) == 3 and seen.size == (48, 64)
    assert seen.frame_rate == pytest.approx(12.5)
    last = seen.frames[-1].astype(int)
    assert abs(last[45, 5] - 90).max() < 12, "outside of all masks"
    blue, orange = last[16, 9], last[38, 33]
    assert blue[2] > blue[0] + 20 and orange[0] > orange[2] + 20


def test_facts_go_into_the_record(tmp_path):
    files = write_follow(clip(), follow_result(), "c", tmp_path, WHEN, facts={"model": "golden"})
    assert json.loads(files.record.read_bytes())["model"] == "golden"


def test_nothing_done_is_said(tmp_path):
    with pytest.raises(NothingFound, match="No frame"):
        write_follow(clip(), follow_result(done=0), "cows", tmp_path)


def test_davis_files_are_read_by_the_evaluation(tmp_path):
    size = (480, 64)
    result = follow_result(size)
    files = write_follow(clip(size), result, "two cows", tmp_path / "ours", WHEN)
    root = tmp_path / "DAVIS"
    with zipfile.ZipFile(files.davis) as archive:
        archive.extractall(root)
    pictures = root / "JPEGImages" / "480p" / "two-cows"
    pictures.mkdir(parents=True)
    for frame, image in zip(result.frames, clip(size).frames, strict=False):
        Image.fromarray(image).save(pictures / f"{frame.index:05d}.jpg")
    listing = root / "ImageSets" / "2017" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("two-cows\n")
    (sequence,) = davis_sequences(root)
    assert sequence.objects == [1, 2]
    assert_array_equal(sequence.labels, [frame.labels for frame in result.frames])


def test_other_heights_are_full_resolution_and_indexed(tmp_path):
    result = follow_result()
    files = write_follow(clip(), result, "", tmp_path, WHEN)
    with zipfile.ZipFile(files.davis) as archive:
        assert archive.namelist() == [
            f"Annotations/Full-Resolution/clip/{t:05d}.png" for t in range(3)
        ]
        with Image.open(io.BytesIO(archive.read(archive.namelist()[2]))) as picture:
            assert picture.mode == "P"
            assert_array_equal(np.array(picture), result.frames[2].labels)


def test_masks_of_records_are_exact(files, found):
    (first, _, _) = json.loads(files.results.read_bytes())
    for instance, mask in zip(first["instances"], found.segmentation.masks, strict=True):
        assert_array_equal(decode_rle(instance["rle"]), mask)
