"""Files of a text query: the record with its steps, the maps, the archive."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from core.car.config import CarConfig
from core.car.exports import text_record, write_text
from core.car.pipeline import segment_text

WORDS = ["dog", "person with clothes,people,human", "../강아지 🐶", "dog"]
WHEN = datetime(2027, 3, 1, 12, tzinfo=UTC)
KEEP = CarConfig(confidence_threshold=0.0, presence_threshold=None, use_crf=False, templates=())


@pytest.fixture
def result(any_words, picture):
    return segment_text(*any_words, picture, WORDS, KEEP)


def test_the_record_tells_each_step(any_words, picture):
    config = replace(KEEP, confidence_threshold=0.4)
    result = segment_text(*any_words, picture, WORDS, config)
    told = json.loads(json.dumps(text_record(result, ["scaled down"])))
    assert told["method"] == "car" and told["warnings"][0] == "scaled down"
    assert any("was given 2 times" in text for text in told["warnings"])
    assert [step["step"] for step in told["steps"]] == list(range(1, len(result.steps) + 1))
    first = told["steps"][0]["words"]
    assert [one["label"] for one in first] == ["dog", WORDS[1], WORDS[2]]
    assert all(one["kept"] == (one["reason"] is None) for one in first)
    assert sum(one["score"] for one in first) <= 3 and first[0]["presence"] is None
    gone = {one["label"] for step in told["steps"] for one in step["words"] if not one["kept"]}
    assert gone <= {one["label"] for one in told["dropped"]}


def test_presence_is_told_where_it_was_asked(any_words, picture):
    result = segment_text(*any_words, picture, WORDS, replace(KEEP, presence_threshold=0.0))
    words = text_record(result)["steps"][0]["words"]
    assert all(0 <= one["presence"] <= 1 for one in words)


def test_all_files_are_in_the_archive(result, picture, tmp_path):
    files = write_text(picture, result, "my dog", tmp_path / "new", WHEN)
    assert files.all[0] == files.archive and all(path.is_file() for path in files.all)
    assert all(path.parent == tmp_path / "new" for path in files.all)
    assert files.told.name == "my-dog_car_20270301T120000Z_text.json"
    with zipfile.ZipFile(files.archive) as archive:
        names = set(archive.namelist())
        parameters = json.loads(archive.read("parameters.json"))
    assert names == {path.name for path in files.all[1:]} | {"parameters.json"}
    assert parameters["parameters"]["queries"] == ["dog", WORDS[1], WORDS[2]]
    assert json.loads(files.told.read_bytes())["steps"]
    height, width = result.image.shape[:2]
    assert len(files.maps) == len(result.steps[-1].kept) == 3
    for path, values in zip(files.maps, result.maps(), strict=True):
        grey = np.asarray(Image.open(path))
        assert grey.shape == (height, width) and grey.dtype == np.uint8
        assert np.abs(grey / 255 - values).max() < 0.003


def test_nothing_found_has_files_too(any_words, picture, tmp_path):
    result = segment_text(*any_words, picture, WORDS, replace(KEEP, presence_threshold=1.0))
    files = write_text(picture, result, "", tmp_path, WHEN)
    assert files.maps == () and files.masks.masks == ()
    told = json.loads(files.told.read_bytes())
    assert told["instances"] == [] and len(told["dropped"]) == 3
    assert not np.asarray(Image.open(files.masks.labels)).any()
