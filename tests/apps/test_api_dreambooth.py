"""DreamBooth's endpoints on a real server, through gradio's Python client."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from apps.suite.dreambooth import work
from tests.apps.dreambooth_server import serve_dreambooth
from tests.apps.test_dreambooth import PLACES, draw_square


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    with serve_dreambooth(folder) as server:
        yield server.client(download_files=folder / "files")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures and masks of one thing."""
    folder = tmp_path_factory.mktemp("pictures")
    paths: dict[str, list] = {"images": [], "masks": []}
    for k, place in enumerate(PLACES):
        image, mask = draw_square(*place, 120 + 20 * k)
        for kind, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
            path = folder / f"{kind}-{k}.png"
            Image.fromarray(pixels).save(path)
            paths[kind].append(handle_file(str(path)))
    return paths


@pytest.fixture(scope="module")
def trained(client, files):
    """All that a training tells, with a mask for each picture."""
    job = client.submit(**files, class_noun="clock", api_name="/dreambooth_train")
    told = list(job)
    assert told, job.exception()
    return told


def test_a_training_streams_and_ends_with_its_weights(trained):
    *_, (record, weights) = trained
    assert (record["state"], record["step"], record["steps"]) == ("finished", 6, 6)
    assert record["subject"] == "a sks clock" and record["settings"]["mask_loss"] == "area"
    assert {one["training"] for one, _ in trained} == {record["training"]}
    assert len(trained) > 1 and trained[0][1] is None
    assert "card.json" in zipfile.ZipFile(weights).namelist()


def test_drawing_by_the_id_and_by_the_weights(client, trained):
    record, weights = trained[-1]
    ask = {"prompt": "a photo of {} on grass", "seeds": [4, 7], "steps": 2}
    after, before, told, archive = client.predict(
        training=record["training"], **ask, api_name="/dreambooth_sample"
    )
    assert (told["prompt"], told["seeds"]) == ("a photo of a sks clock on grass", [4, 7])
    assert [one["caption"] for one in after] == ["seed 4", "seed 7"] and len(before) == 2
    assert len(zipfile.ZipFile(archive).namelist()) == 5
    again, none, *_ = client.predict(
        weights=handle_file(weights), before=False, **ask, api_name="/dreambooth_sample"
    )
    assert none == []
    for one, other in zip(after, again, strict=True):
        assert (cv2.imread(one["image"]) == cv2.imread(other["image"])).all()


def test_a_cancelled_call_keeps_its_checkpoint_and_goes_on(client, files):
    job = client.submit(
        **files, class_noun="clock", steps=400, prior=False, api_name="/dreambooth_train"
    )
    for record, _ in job:
        if record["step"] >= 1:
            job.cancel()
            break
    status = work.trainings().queue.wait(record["training"], 60)
    assert status.state == "stopped" and status.checkpoint
    job = client.submit(training=record["training"], api_name="/dreambooth_train")
    for later, _ in job:
        if later["step"] > status.checkpoint:
            job.cancel()
            break
    assert later["training"] == record["training"]
    assert work.trainings().queue.wait(record["training"], 60).state == "stopped"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": 2}, "There are 2 pictures of the subject"),
        ({"masks": 2}, "There are 2 masks and 4 pictures"),
        ({"masks": 0}, "There are 0 masks"),
        ({"class_noun": " "}, "what kind of thing"),
        ({"preset": "slow"}, "no preset 'slow'"),
        ({"steps": 100000}, "100000 steps; the limit here is 5000"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"model": "sam_embedded"}, "no model for this task"),
        ({"model": "full"}, "no full text-to-image model"),
        ({"training": "../../etc"}, "no such training"),
    ],
)
def test_what_is_not_fit_is_said(client, files, changes, sentence):
    values = {**files, "class_noun": "clock", **changes}
    for name in ("images", "masks"):
        if isinstance(values[name], int):
            values[name] = files[name][: values[name]]
    with pytest.raises(AppError, match=sentence):
        client.predict(**values, api_name="/dreambooth_train")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": ""}, "There is no subject"),
        ({"training": "0" * 32}, "no such training"),
        ({"seeds": []}, "list of 1 to 8 whole numbers"),
        ({"seeds": ["1"]}, "list of 1 to 8 whole numbers"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"steps": 5000}, "steps is 5000"),
        ({"guidance": 99}, "guidance_scale is 99"),
    ],
)
def test_drawings_that_make_no_sense(client, trained, changes, sentence):
    values = {"training": trained[-1][0]["training"], **changes}
    with pytest.raises(AppError, match=sentence):
        client.predict(**values, api_name="/dreambooth_sample")


def test_the_thing_is_found_from_one_mask(client, files):
    """By the embedded PerSAM-F; the search fails or holds, and says which picture it is about."""
    job = client.submit(
        images=files["images"],
        masks=files["masks"][:1],
        class_noun="clock",
        api_name="/dreambooth_train",
    )
    record, weights = job.result()
    assert record["state"] == "finished" and weights
