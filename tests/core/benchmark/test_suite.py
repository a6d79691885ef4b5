"""The suite's benchmark: its parts alone, and once for real."""

import subprocess
import sys

import cv2
import pytest

from core.benchmark import suite
from core.benchmark.__main__ import names


def test_it_is_one_of_the_benchmarks():
    assert "suite" in names()


def test_pictures_are_new_ones_of_a_megapixel(tmp_path):
    pictures = suite.new_pictures(tmp_path, 3)
    assert len({path.read_bytes() for path in pictures}) == 3
    assert all(cv2.imread(str(path)).shape == (1000, 1000, 3) for path in pictures)


def test_a_start_that_fails_tells_why(tmp_path):
    log = tmp_path / "log"
    log.write_text("no such module")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    process.wait()
    with pytest.raises(suite.SuiteFailed, match="no such module"):
        suite.wait_until_interactive(process, "http://127.0.0.1:9/", log)


class Client:
    """Answers as the real one does, or with an error."""

    def __init__(self, error=""):
        self.error = error

    def predict(self, **_):
        raise suite.AppError(self.error)


def test_nothing_found_is_an_answer_and_other_errors_are_not(tmp_path):
    (picture,) = suite.new_pictures(tmp_path, 1)
    seconds, stages = suite.ask(Client("No mask reaches predicted IoU"), "/x", picture)
    assert seconds >= 0 and stages == {}
    with pytest.raises(suite.SuiteFailed, match="broke"):
        suite.ask(Client("Something broke"), "/x", picture)


def test_all_four_figures_are_measured(monkeypatch):
    monkeypatch.setattr(suite, "LATER_CLICKS", 1)
    report = suite.run(limit=1)
    assert report.figures.keys() == suite.TARGETS.keys()
    assert all(value > 0 for value in report.figures.values())
    stages = report.details["stages_s"]
    assert report.details["limited_to"] == 1
    assert {"encode", "predict", "total"} == stages["later_click_seconds"][0].keys()
