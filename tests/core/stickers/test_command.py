"""The command that writes scenes to look at, and their captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.stickers import __main__ as command
from core.stickers.atlas import Atlas
from core.stickers.captions import caption


def test_writes_pictures_labels_records_and_sheet(
    small_atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load_atlas", lambda folder: small_atlas)
    command.main(["--out", str(tmp_path), "--count", "3", "--seed", "1"])
    records = [json.loads(line) for line in (tmp_path / "scenes.jsonl").read_text().splitlines()]
    assert len(records) == 3
    for record in records:
        labels = np.array(Image.open(tmp_path / f"scene_{record['scene']:04d}_labels.png"))
        assert labels.shape == (256, 256)
        for item in record["objects"]:
            assert (labels == item["id"]).sum() == item["area_px"] > 0
    assert Image.open(tmp_path / "sheet.png").width == 6 * 256


def test_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        command.main(["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")])
    assert stopped.value.code == 2
    assert "npm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "nothing"),
        (["apple"], "an apple"),
        (["dog", "dog", "apple"], "two dogs and an apple"),
        (["zeppelin", "odd thing", "car"], "a zeppelin, an odd thing and a car"),
    ],
)
def test_caption(names: list[str], expected: str) -> None:
    assert caption(names) == expected
