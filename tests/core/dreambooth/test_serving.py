"""Trainings as pages run them: begun, looked at after a restart, listed for those who know them."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from core.dreambooth import serving
from core.dreambooth.pipeline import Drawn
from core.dreambooth.queue import RECORD_FILE, TrainingQueue
from core.dreambooth.serving import Trainings, check_limits, draw_pairs, parse_seeds
from core.errors import ModelUnavailable, PromptError
from core.settings import Settings
from tests.core.dreambooth.conftest import FAST, SIDE, SUBJECT, make_picture

PATIENCE = 120.0
CONFIG = replace(FAST, steps=3, sample_steps=2, sample_prompts=("a photo of {}",))


@pytest.fixture(scope="module")
def trainings(engine, tmp_path_factory):
    return Trainings(engine, tmp_path_factory.mktemp("trainings"))


@pytest.fixture(scope="module")
def finished(trainings):
    """Id of a training that has learned its subject."""
    pictures = [make_picture(k) for k in range(3)]
    training_id = trainings.begin("tiny", SUBJECT, pictures, CONFIG)
    assert trainings.queue.wait(training_id, PATIENCE).state == "finished"
    return training_id


@pytest.fixture
def restarted(trainings, finished, engine):
    """The same trainings as a server sees them that was started anew."""
    again = Trainings(engine, trainings._runs.parent)
    again.queue = TrainingQueue(trainings._runs)
    return again


def test_how_a_training_stands(trainings, finished):
    standing = trainings.look(finished)
    assert (standing.status.state, standing.step, standing.has_ended) == ("finished", 3, True)
    assert (standing.subject, standing.config, standing.model) == (SUBJECT, CONFIG, "tiny")
    assert [one.step for one in standing.curve] == [1, 2, 3]
    assert [one.step for one in standing.samples] == [2]
    assert [path.is_file() for path in standing.samples[0].files] == [True]


def test_after_a_restart_it_stands_the_same(trainings, finished, restarted):
    before, after = trainings.look(finished), restarted.look(finished)
    assert after.curve == before.curve and after.samples == before.samples
    assert (after.step, after.status.state) == (3, "finished")


def test_subjects_are_listed_for_those_who_know_their_ids(trainings, finished):
    assert trainings.saved([]) == []
    (one,) = trainings.saved(["no id", "0" * 32, finished])
    assert one.id == finished and one.learned.subject == SUBJECT
    assert one.picture is not None and one.picture.is_file()
    assert [other.id for other in trainings.saved([], everybody=True)] == [finished]
    assert trainings.learned(finished).subject == SUBJECT


def test_nothing_is_found_by_a_wrong_id(trainings):
    for bad in ("0" * 32, "../secret", ""):
        for action in (trainings.look, trainings.learned, trainings.go_on):
            with pytest.raises(PromptError, match="no such training"):
                action(bad)


def test_a_finished_training_does_not_go_on(trainings, finished):
    with pytest.raises(PromptError, match="is finished"):
        trainings.go_on(finished)


def test_a_stopped_training_goes_on_from_its_checkpoint(trainings, finished, restarted):
    """As if it had been stopped after its second step."""
    other = "a" * 32
    folder = trainings._runs / other
    shutil.copytree(trainings._runs / finished, folder)
    for gone in ("subject", "checkpoint-000003"):
        shutil.rmtree(folder / gone)
    record = (folder / RECORD_FILE).read_text().replace(finished, other)
    (folder / RECORD_FILE).write_text(record.replace('"finished"', '"running"'))
    assert restarted.look(other).status.state == "interrupted"
    restarted.go_on(other)
    assert restarted.queue.wait(other, PATIENCE).state == "finished"
    assert restarted.look(other).curve[-1].loss == pytest.approx(
        trainings.look(finished).curve[-1].loss, abs=1e-6
    )
    restarted.queue.delete(other)


def test_what_is_not_fit_is_said_before_it_waits(trainings):
    pictures = [make_picture(k) for k in range(3)]
    with pytest.raises(PromptError, match="There are 2 pictures"):
        trainings.begin("tiny", SUBJECT, pictures[:2], CONFIG)
    with pytest.raises(ModelUnavailable, match="no model 'other'"):
        trainings.begin("other", SUBJECT, pictures, CONFIG)
    with pytest.raises(PromptError, match=r"There are 9999 steps; the limit here is 5000"):
        trainings.begin("tiny", SUBJECT, pictures, replace(CONFIG, steps=9999))
    with pytest.raises(PromptError, match="pictures of the class"):
        check_limits(replace(CONFIG, prior_pictures=2000))


def test_what_ended_long_ago_goes(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "settings", Settings(training_days=2))
    trainings = Trainings(engine, tmp_path)
    ids = [trainings.queue.submit(lambda folder, control: iter(())) for _ in range(2)]
    for one in ids:
        trainings.queue.wait(one, PATIENCE)
    old = tmp_path / "runs" / ids[0] / RECORD_FILE
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    trainings.forget_old()
    assert not old.parent.exists() and (tmp_path / "runs" / ids[1]).is_dir()


def test_a_record_of_another_kind_is_damaged(engine, tmp_path):
    trainings = Trainings(engine, tmp_path)
    one = trainings.queue.submit(lambda folder, control: iter(()))
    with pytest.raises(PromptError, match="damaged"):
        trainings.look(one)


def test_pairs_before_and_after(trainings, finished, engine):
    learned = trainings.learned(finished)
    pairs, warnings = draw_pairs(engine, "tiny", "a photo of {}", [5, 6], learned, steps=2)
    assert [pair.seed for pair in pairs] == [5, 6] and warnings == ()
    assert pairs[0].prompt == "a photo of a sks clock"
    assert pairs[0].after.shape == (SIDE, SIDE, 3)
    assert (pairs[0].before != pairs[0].after).any()


def test_the_page_s_choices_are_drawn_with(trainings, finished, engine, monkeypatch):
    asked = {}

    def sample(engine, model_id, prompt, seeds, **values):
        asked.update(values)
        return Drawn((np.zeros((2, 2, 3), np.uint8),), (prompt,), tuple(seeds), None, 0.0)

    monkeypatch.setattr(serving, "sample", sample)
    learned = trainings.learned(finished)
    (pair,), _ = draw_pairs(engine, "tiny", "x", [1], learned, guidance=3.0, steps=9, before=False)
    config = asked["config"]
    assert (config.guidance_scale, config.inference_steps, config.resolution) == (3.0, 9, SIDE)
    assert pair.before is None


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1, 2, 3", [1, 2, 3]), ("1-4", [1, 2, 3, 4]), (" 7;7 9 ", [7, 9]), ("0", [0])],
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text, 8) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-3", "1-999999999", "5-4"])
def test_seeds_that_make_no_sense(text):
    with pytest.raises(PromptError, match="seeds"):
        parse_seeds(text, 8)
