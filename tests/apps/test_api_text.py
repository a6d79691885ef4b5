"""The endpoint of text queries on the real server through gradio's Python client."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from core.car.choices import change, config_of
from core.car.config import CarConfig
from core.car.serving import find_words
from core.engine import get_engine
from core.images import load
from core.masks import decode_rle

SCENE = Path(__file__).parents[2] / "assets" / "examples" / "text" / "zoo.jpg"
WORDS = ["elephant", "penguin", "giraffe"]
KEEP = {"theta": 0.0, "presence_threshold": 0.0}  # every word stays


@pytest.fixture(scope="module")
def ask(server, tmp_path_factory):
    """Call the endpoint with the scene, unless told otherwise."""
    client = server.client(download_files=tmp_path_factory.mktemp("answers"))

    def call(picture=SCENE, queries=WORDS, **arguments):
        file = None if picture is None else handle_file(str(picture))
        return client.predict(image=file, queries=queries, api_name="/segment_text", **arguments)

    return call


def masks_of(record):
    return {one["label"]: decode_rle(one["rle"]) for one in record["instances"]}


@pytest.mark.parametrize("mode", ["words", "phrases"])
def test_answers_are_the_engines_own(ask, mode):
    overlay, record, archive = ask(mode=mode, **KEEP)
    config = change(
        config_of("embedded", "embedded"), confidence_threshold=0.0, presence_threshold=None
    )
    image = load(SCENE).image
    answer = find_words(get_engine(), "embedded", image, WORDS, config, phrases=mode == "phrases")
    found = answer.result.segmentation
    masks = masks_of(record)
    assert list(masks) == list(found.labels)
    for label, mask in zip(found.labels, found.masks, strict=True):
        assert (masks[label] != mask).mean() < 0.01
    assert Image.open(overlay).size == image.shape[1::-1]
    assert len(record["steps"]) == len(answer.result.steps)
    assert any(name.endswith("_text.json") for name in zipfile.ZipFile(archive).namelist())


def test_none_of_the_words_is_an_answer_with_scores(ask):
    _, record, _ = ask(presence_threshold=1.0)
    assert record["instances"] == []
    assert [one["label"] for one in record["dropped"]] == WORDS
    assert all(0 <= one["score"] <= 1 and "step 1" in one["reason"] for one in record["dropped"])
    words = record["steps"][0]["words"]
    assert all(not one["kept"] and one["presence"] is not None for one in words)


def test_every_parameter_reaches_the_method(ask):
    _, record, _ = ask(
        queries=["elephant, grey", "코끼리 🐘", "elephant, grey", "  "],
        background_queries=["sky", "red, leaf"],
        preset="context",
        eta=0.3,
        theta=0.01,
        crf_lambda=0.2,
        presence_threshold=0.0,
        use_crf=False,
        use_sam=True,
    )
    told = record["parameters"]
    assert told["queries"] == ["elephant, grey", "코끼리 🐘"]
    assert told["background_queries"] == ["sky", "red, leaf"]
    assert (told["mask_threshold"], told["confidence_threshold"]) == (0.3, 0.01)
    assert told["box_threshold"] == 0.2 and told["presence_threshold"] is None
    assert told["post_process"] == "argmax" and told["visual_prompts"] == ["blur", "circle"]
    assert told["max_side"] == CarConfig.embedded().max_side
    assert not record["instances"] or told["sam_model"] == "sam_embedded"
    assert any("was given 2 times" in text for text in record["warnings"])
    assert any("never learned" in text for text in record["warnings"])


def test_without_the_crf_the_maps_decide(ask):
    with_crf, without = (masks_of(ask(use_crf=crf, **KEEP)[1]) for crf in (True, False))
    assert np.any([(with_crf[label] != without.get(label)).any() for label in with_crf])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"queries": []}, "There is no query; type at least one word"),
        ({"queries": [" ", "\t"]}, "There is no query"),
        ({"queries": [f"w{k}" for k in range(200)]}, "There are 200 queries; the limit is 100"),
        ({"queries": ["x" * 5000]}, "5000 characters; the limit is 100"),
        ({"queries": ["dog", 3]}, "A query is 3; each must be text"),
        ({"queries": {"a": 1}}, "have to be a list of texts"),
        ({"background_queries": ["x" * 101]}, "101 characters"),
        ({"preset": "imagenet"}, "There is no preset"),
        ({"mode": "both"}, "There is no mode"),
        ({"eta": 2.0}, "mask_threshold is 2"),
        ({"presence_threshold": -1.0}, "presence_threshold is -1"),
        ({"model": "sam_embedded"}, "is no model for this task"),
        ({"model": "full"}, "CLIP ViT-B/16 needs"),
        ({"picture": None}, "There is no picture"),
    ],
)
def test_what_is_missing_or_wrong_gets_a_sentence(ask, arguments, sentence):
    with pytest.raises(AppError) as raised:
        ask(**arguments)
    assert sentence in str(raised.value)


def test_no_background_word_at_all_is_allowed(ask):
    _, record, _ = ask(background_queries=[], **KEEP)
    assert record["parameters"]["background_queries"] == []
