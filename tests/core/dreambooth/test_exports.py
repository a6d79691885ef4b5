"""Files of a learned subject, and weights that come back from a visitor."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from core.dreambooth.card import CARD_FILE, read_subject
from core.dreambooth.exports import (
    loss_csv,
    read_weights,
    write_drawn,
    write_training,
    write_weights,
)
from core.dreambooth.lora import LORA_FILE
from core.dreambooth.serving import Pair
from core.errors import PromptError


@pytest.fixture(scope="module")
def learned(trained):
    return read_subject(trained / "subject")


@pytest.fixture
def weights(learned, tmp_path):
    return write_weights(learned, tmp_path / "out")


def test_weights_come_back_as_they_were(learned, weights, tmp_path):
    assert weights.name.startswith("a-sks-clock_dreambooth_") and weights.suffix == ".zip"
    with zipfile.ZipFile(weights) as archive:
        assert sorted(archive.namelist()) == sorted(["README.txt", CARD_FILE, LORA_FILE])
        assert LORA_FILE in archive.read("README.txt").decode()
    again = read_weights(weights, tmp_path / "in")
    assert again.subject == learned.subject and again.base == learned.base
    assert (again.folder / LORA_FILE).read_bytes() == (learned.folder / LORA_FILE).read_bytes()


def change(path, target, **changes):
    """Copy a ZIP with some members replaced, added, or (None) left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in {**dict.fromkeys(old.namelist()), **changes}:
            data = changes[name] if name in changes else old.read(name)
            if data is not None:
                new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"../evil.txt": b"x"}, "other things"),
        ({"unet/../../evil.txt": b"x"}, "other things"),
        ({"weights.pkl": b"x"}, "other things"),
        ({LORA_FILE: bytes(50_000_000)}, "other things"),  # grows as it is unpacked
        ({LORA_FILE: b"changed"}, "was changed"),
        ({LORA_FILE: None}, "not whole"),
        ({CARD_FILE: None}, "no learned subject"),
        ({CARD_FILE: b"{}"}, "no learned subject"),
    ],
)
def test_other_files_are_refused(weights, tmp_path, changes, sentence):
    with pytest.raises(PromptError, match=sentence):
        read_weights(change(weights, tmp_path / "bad.zip", **changes), tmp_path / "in")
    assert not list(tmp_path.rglob("evil.txt"))


def test_what_is_no_zip_is_refused(tmp_path):
    path = tmp_path / "weights.zip"
    path.write_bytes(b"no zip at all")
    with pytest.raises(PromptError, match="holds no learned subject"):
        read_weights(path, tmp_path / "in")


def test_drawn_pictures_with_their_prompts_and_seeds(learned, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    pairs = [Pair("a sks clock / ../", 3, None, image), Pair("a sks clock", 4, image, image)]
    path = write_drawn(pairs, learned, tmp_path, settings={"guidance": 4.0})
    with zipfile.ZipFile(path) as archive:
        told = json.loads(archive.read("pictures.json"))
        assert told["settings"] == {"guidance": 4.0} and told["subject"] == "a sks clock"
        first, second = told["pictures"]
        assert first == {"prompt": "a sks clock / ../", "seed": 3, "after": first["after"]}
        assert "/" not in first["after"] and second["before"].endswith("_before.png")
        saved = np.asarray(Image.open(io.BytesIO(archive.read(second["after"]))))
    assert (saved == image).all()


def test_how_it_was_learned(learned, trained, tmp_path):
    with zipfile.ZipFile(write_training(learned, tmp_path)) as archive:
        names = archive.namelist()
        assert {"loss.csv", "settings.json"} <= set(names)
        assert json.loads(archive.read("settings.json"))["steps"] == 4
        rows = archive.read("loss.csv").decode().splitlines()
    assert rows[0].startswith("step,loss,") and len(rows) == 5
    assert rows == loss_csv(trained).decode().splitlines()


def test_without_a_checkpoint_there_is_no_loss(tmp_path):
    assert len(loss_csv(tmp_path).decode().splitlines()) == 1
