"""Learned subjects as folders: what the card says, and which folders are refused."""

import json
import shutil

import pytest

from core.dreambooth.card import CARD_FILE, MAX_CARD_BYTES, list_subjects, read_subject
from core.dreambooth.lora import LORA_FILE
from core.errors import PromptError
from tests.core.dreambooth.conftest import FAST, SIDE, SUBJECT


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained / "subject", tmp_path / "clock")


def change(folder, **values):
    path = folder / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_card_tells_of_words_model_settings_and_figures(folder):
    learned = read_subject(folder)
    assert learned.subject == SUBJECT
    assert learned.config == FAST
    assert learned.base == ("tiny", "")
    assert learned.side == SIDE
    assert (learned.figures.steps, learned.figures.loss > 0) == (4, True)
    assert learned.masks == ((0.1143, "persam_f"),) * 3
    card = json.loads((folder / CARD_FILE).read_text())
    assert card["prompt"] == "a photo of a sks clock"
    assert card["class_prompt"] == "a photo of a clock"
    assert card["files"].keys() == {LORA_FILE}


def test_all_subjects_are_listed_without_the_damaged(folder, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(folder, tmp_path / "runs" / name / "subject")
    (tmp_path / "runs" / "b" / "subject" / LORA_FILE).unlink()
    assert [one.folder.parent.name for one in list_subjects(tmp_path / "runs")] == ["a"]
    assert list_subjects(tmp_path / "nowhere") == []


def test_another_model_is_refused(folder, model, monkeypatch):
    learned = read_subject(folder)
    learned.check_model(model)
    with monkeypatch.context() as patch:
        patch.setattr(model, "sha256", "1" * 64)
        with pytest.raises(PromptError, match="learned by other weights of tiny"):
            learned.pipeline(model)
        patch.setattr(model, "id", "sd15")
        with pytest.raises(PromptError, match="learned by the model tiny, not by sd15"):
            learned.pipeline(model)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(PromptError, match="is no learned subject"):
        read_subject(tmp_path)
    (tmp_path / CARD_FILE).write_text('{"format": "other"}')
    with pytest.raises(PromptError, match="is no learned subject"):
        read_subject(tmp_path)
    (tmp_path / CARD_FILE).write_text(" " * (MAX_CARD_BYTES + 1))
    with pytest.raises(PromptError, match="is no learned subject"):
        read_subject(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 9}, "has version 9; this program reads 1"),
        ({"settings": {"colour": 1}}, "card of the subject in clock is damaged"),
        ({"subject": {"identifier": "", "class_noun": ""}}, "is damaged"),
        ({"base_model": None}, "is damaged"),
        ({"figures": {}}, "is damaged"),
        ({"files": {}}, "is not whole"),
        ({"files": {LORA_FILE: "0" * 64}}, "was changed after it was saved"),
    ],
)
def test_damaged_cards(folder, values, message):
    change(folder, **values)
    with pytest.raises(PromptError, match=message):
        read_subject(folder)


def test_missing_and_foreign_files(folder):
    (folder / "extra.bin").write_bytes(b"pickle")
    with pytest.raises(PromptError, match="files that do not belong to it"):
        read_subject(folder)
    (folder / "extra.bin").unlink()
    (folder / LORA_FILE).unlink()
    with pytest.raises(PromptError, match="is not whole"):
        read_subject(folder)
