"""The command that writes degraded pictures, their parameters and a contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from core.degradations import DEGRADATIONS, degrade
from core.degradations.__main__ import main
from core.degradations.sheet import draw_sheet


@pytest.fixture
def file(small_photos, tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(small_photos[0]).save(path)
    return path


def test_writes_pictures_parameters_and_sheet(file, small_photos, tmp_path, capsys):
    out, sheet = tmp_path / "out", tmp_path / "docs" / "sheet.jpg"
    main(["--image", str(file), "--out", str(out), "--seed", "4", "--sheet", str(sheet)])
    assert sorted(p.stem for p in out.glob("*.png")) == sorted(f"{k}_3" for k in DEGRADATIONS)
    for name in DEGRADATIONS:
        expected = degrade(small_photos[0], name, severity=3, seed=4)
        assert_array_equal(np.asarray(Image.open(out / f"{name}_3.png")), expected.image)
        assert json.loads((out / f"{name}_3.json").read_text()) == expected.parameters
    height, width = small_photos[0].shape[:2]
    size = Image.open(sheet).size
    assert size[0] > 4 * width and size[1] > 4 * height
    assert "15 pictures" in capsys.readouterr().out


def test_all_severities_of_chosen_kinds(file, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = ["--kinds", "fog", "rain", "--severity", "all", "--sheet", str(sheet)]
    main(["--image", str(file), "--out", str(tmp_path / "out"), *arguments])
    stems = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert stems == {f"{kind}_{k}" for kind in ("fog", "rain") for k in range(1, 6)}
    assert Image.open(sheet).width > 6 * 128


def test_published_ranges(file, tmp_path):
    out = tmp_path / "out"
    arguments = ["--kinds", "contrast", "--severity", "published"]
    main(["--image", str(file), "--out", str(out), *arguments])
    parameters = json.loads((out / "contrast_published.json").read_text())
    assert parameters["severity"] is None
    assert 1.6 <= parameters["drawn"]["factor"] <= 1.7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kinds", "smog"], "choose one of"),
        (["--seed", "-3"], "The seed is -3"),
        (["--image", "missing.jpg"], "cannot be opened"),
    ],
)
def test_says_what_is_wrong(file, tmp_path, capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        main(["--image", str(file), "--out", str(tmp_path / "out"), *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sheet_keeps_the_pictures():
    red, blue = (np.full((40, 60, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = draw_sheet([[red, blue], [blue]], [["red", "a title far too long for it"], ["blue"]])
    assert sheet.dtype == np.uint8
    assert np.all(sheet == (255, 0, 0), axis=2).sum() == red[..., 0].size
    assert np.all(sheet == (0, 0, 255), axis=2).sum() == 2 * blue[..., 0].size
