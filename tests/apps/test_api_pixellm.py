"""The chat's endpoint on a real server through gradio's Python client, with a scripted PixelLM."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from core.masks import decode_rle
from tests.apps.chat_server import LEFT, MARKUP, serve_chat
from tests.core.pixellm.scripted import picture


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve_chat(tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture(scope="module")
def submit(served, tmp_path_factory):
    """Send a message about the picture, unless told otherwise; returns the client's job."""
    folder = tmp_path_factory.mktemp("answers")
    path = folder / "kitchen.png"
    Image.fromarray(picture()).save(path)
    client = served[0].client(download_files=folder)

    def call(message="I am hungry.", image=path, **arguments):
        file = None if image is None else handle_file(str(image))
        return client.submit(image=file, message=message, api_name="/chat_segment", **arguments)

    return call


@pytest.fixture
def ask(submit):
    def call(*arguments, **options):
        return submit(*arguments, **options).result()

    return call


def test_an_answer_with_masks_and_files(ask):
    text, record, history, overlay, archive = ask()
    assert text == record["answer"] == "You could eat the red apple and cut it with the knife."
    spans = {text[one["start"] : one["end"]]: one["targets"] for one in record["spans"]}
    assert spans == {"the red apple": [1], "the knife": [2]}
    assert [one["label"] for one in record["instances"]] == ["red apple", "knife"]
    mask = decode_rle(record["instances"][0]["rle"])
    x0, y0, x1, y1 = (round(128 * value) for value in LEFT)  # of the padded square
    expected = np.zeros((96, 128), bool)
    expected[y0:y1, x0:x1] = True
    assert (mask != expected).mean() < 0.03
    assert len(history) == 1 and history[0]["question"] == "I am hungry."
    assert Image.open(overlay).size == (128, 96)
    names = zipfile.ZipFile(archive).namelist()
    assert any(name.endswith("_conversation.json") for name in names)


def test_the_history_goes_on(ask, served):
    *_, history, _, _ = ask("I am hungry.")
    text, record, longer, *_ = ask("And to find out the time?", history=history)
    assert [one["id"] for one in record["instances"]] == [3] and len(longer) == 2
    assert longer[0] == history[0] and text.startswith("You could use the alarm clock")


def test_text_streams_and_masks_come_at_the_end(submit):
    job = submit("a short story")
    job.result()
    *before, last = job.outputs()
    texts = [one[0] for one in before]
    assert len(before) > 2 and all(last[0].startswith(text) for text in texts)
    assert all(one[1:] == (None,) * 4 for one in before) and last[1]["ending"] == "end"


def test_every_parameter_reaches_the_method(ask):
    _, record, *_ = ask(
        "이것은 무엇입니까? [SEG0]",
        temperature=0.5,
        max_new_tokens=64,
        seed=3,
        style="explain",
        mask_threshold=-1.0,
    )
    told = record["parameters"]
    assert told["style"] == "explain" and told["masks"]["threshold"] == -1
    generation = told["generation"]
    assert (generation["temperature"], generation["seed"]) == (0.5, 3)
    assert generation["max_new_tokens"] == 64
    assert record["outcome"] == "no_group" and record["instances"] == []
    assert any("only the model may write" in text for text in record["warnings"])


def test_model_text_comes_as_it_is(ask):
    assert MARKUP in ask("markup")[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"message": " "}, "There is no question; ask something"),
        ({"message": "x" * 10_000}, "10000 characters; the limit is 1000"),
        ({"history": [3]}, "give the history as it was returned"),
        ({"history": {"a": 1}}, "The history has to be a list"),
        ({"history": [{"question": "a", "answer_ids": [10**9]}]}, "which no answer has"),
        ({"temperature": 3}, "temperature is 3; it must be a number from 0 to 2"),
        ({"max_new_tokens": 9999}, "it must be a number from 1 to 512"),
        ({"style": "loud"}, "There is no answer style 'loud'"),
        ({"mask_threshold": 99}, "The mask threshold is 99"),
        ({"model": "sam_embedded"}, "is no model for this task"),
        ({"image": None}, "There is no picture"),
    ],
)
def test_what_is_missing_or_wrong_gets_a_sentence(ask, arguments, sentence):
    with pytest.raises(AppError) as raised:
        ask(**arguments)
    assert sentence in str(raised.value)
