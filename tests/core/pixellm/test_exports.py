"""Files of a conversation."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from core.masks import decode_rle
from core.pixellm.exports import (
    answer_record,
    chat_record,
    merge_turns,
    plain_text,
    turn_record,
    write_chat,
)
from core.pixellm.pipeline import answer, start

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def results(model, picture, script, monkeypatch):
    """Two turns with three masks, which the network's random weights leave filled or not."""
    conversation = start(model, picture)
    script("the cup SEG and a clock SEG . </s>")
    first = answer(model, conversation, "what is it")
    script("there is no such thing . </s>")
    second = answer(model, conversation, "and the cup ?")
    script("it is the table SEG . </s>")
    return [first, second, answer(model, conversation, "a table ?", style="mask")]


def test_a_turn_says_what_means_which_mask(results):
    told = turn_record(results[0])
    assert told["question"] == "what is it" and told["answer"] == "the cup and a clock ."
    spans = [told["answer"][span["start"] : span["end"]] for span in told["spans"]]
    assert spans == ["the cup", "a clock"]
    assert [span["targets"] for span in told["spans"]] == [(1,), (2,)]
    assert [one["id"] for one in told["targets"]] == [1, 2]
    assert told["raw"].count("[SEG") == 12 and told["ending"] == "end"
    masks = {one["id"]: decode_rle(one["rle"]) for one in told["instances"]}
    for target in results[0].targets:
        np.testing.assert_array_equal(masks.get(target.number, np.zeros((30, 64))), target.mask)
    assert turn_record(results[1])["outcome"] == "no_group"


def test_a_conversation_is_json_and_can_be_taken_up(results, model, picture):
    told = json.loads(json.dumps(chat_record(results, ["It was turned."])))
    assert [turn["style"] for turn in told["turns"]] == ["as_asked", "as_asked", "mask"]
    assert told["image"] == {"width": 64, "height": 30} and told["warnings"] == ["It was turned."]
    assert told["model"] == "small" and {"torch", "transformers"} <= told["versions"].keys()
    assert start(model, picture, told["history"]).history() == told["history"]


def test_an_answer_by_itself_names_model_and_notices(results):
    told = answer_record(results[1], ["It was turned."])
    assert told["method"] == "pixellm" and told["warnings"][0] == "It was turned."
    assert told["warnings"][1] == "The answer marks nothing in the picture."


def test_masks_of_all_turns_are_one_result(results):
    merged = merge_turns(results)
    filled = [one.number for result in results for one in result.targets if one.mask.any()]
    assert list(merged.numbers) == filled and len(merged) + len(merged.dropped) == 3
    assert merged.seconds["total"] == sum(one.segmentation.seconds["total"] for one in results)
    assert len(merged.parameters["turns"]) == 3


def test_text_to_read(results):
    assert plain_text(results[:2]) == (
        "Question: what is it\nAnswer: the cup [1] and a clock [2] .\n\n"
        "Question: and the cup ?\nAnswer: there is no such thing .\n"
    )


def test_all_files_are_in_the_archive(results, picture, tmp_path):
    files = write_chat(picture, results, "../my cup", tmp_path, WHEN)
    assert files.told.name == "my-cup_pixellm_20260102T030405Z_conversation.json"
    assert json.loads(files.told.read_bytes())["turns"][0]["question"] == "what is it"
    assert files.text.read_text("utf-8").startswith("Question: what is it")
    names = zipfile.ZipFile(files.archive).namelist()
    assert {path.name for path in files.all[1:]} | {"parameters.json"} == set(names)
    for path in files.masks.masks:
        mask = np.asarray(Image.open(path))
        assert mask.shape == (30, 64) and set(np.unique(mask)) <= {0, 255}


def test_a_conversation_without_masks_has_files_too(results, picture, tmp_path):
    files = write_chat(picture, results[1:2], "cup", tmp_path, WHEN)
    assert files.masks.masks == () and files.told.is_file() and files.archive.is_file()
