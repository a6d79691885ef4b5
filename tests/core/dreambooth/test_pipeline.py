"""From pictures to drawings on an engine: prepare, train, sample, compare."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import load_file

from core.dreambooth import pipeline
from core.dreambooth.card import read_subject
from core.dreambooth.control import Control
from core.dreambooth.events import Finished, Phase, StepDone, Stopped
from core.dreambooth.lora import LORA_FILE
from core.dreambooth.pipeline import compare, estimate_seconds, prepare, resume, sample, train
from core.dreambooth.queue import TrainingQueue
from core.dreambooth.subjects import SubjectPicture
from core.engine import CancelToken
from core.errors import Cancelled, OutOfMemory, PromptError
from tests.core.dreambooth.conftest import FAST, SIDE, SUBJECT, make_picture
from tests.core.persam.conftest import GOLDEN_FILE

CONFIG = replace(FAST, steps=2, prior=True, prior_pictures=2)


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """Folder, class folder and events of a training on an engine."""
    root = tmp_path_factory.mktemp("runs")
    pictures = [make_picture(k) for k in range(3)]
    events = train(
        engine, "tiny", SUBJECT, pictures, CONFIG, root / "one", class_root=root / "class"
    )
    return root, list(events)


@pytest.fixture(scope="module")
def learned(run):
    return read_subject(run[0] / "one" / "subject")


def test_the_whole_way(engine, run):
    root, events = run
    names = [event.name for event in events if isinstance(event, Phase)]
    assert list(dict.fromkeys(names)) == ["class_pictures", "caching", "training"]
    assert all(event.prior > 0 for event in events if isinstance(event, StepDone))
    assert events[-1] == Finished(2, root / "one" / "subject")
    assert engine.status()["models"][0]["users"] == 0


def test_class_pictures_serve_the_next_training(engine, run, tmp_path):
    events = list(
        train(
            engine,
            "tiny",
            SUBJECT,
            [make_picture(k) for k in range(3)],
            replace(CONFIG, steps=1),
            tmp_path,
            class_root=run[0] / "class",
        )
    )
    assert "class_pictures" not in {e.name for e in events if isinstance(e, Phase)}


def test_a_training_goes_on_after_a_restart(engine, run, tmp_path):
    """From nothing but its folder, and to the same weights."""
    root, _ = run
    control = Control()
    pictures = [make_picture(k) for k in range(3)]
    places = {"class_root": root / "class", "control": control}
    for event in train(engine, "tiny", SUBJECT, pictures, CONFIG, tmp_path / "two", **places):
        if isinstance(event, StepDone):
            control.cancel()
    assert event == Stopped(1, tmp_path / "two" / "checkpoint-000001")
    events = list(resume(engine, tmp_path / "two", class_root=root / "class"))
    assert [e.step for e in events if isinstance(e, StepDone)] == [2]
    first, second = (
        load_file(folder / "subject" / LORA_FILE) for folder in (root / "one", tmp_path / "two")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_folder_without_training_cannot_go_on(engine, tmp_path):
    with pytest.raises(PromptError, match="There is no training in .* that could go on"):
        next(resume(engine, tmp_path, class_root=tmp_path))


def test_too_little_memory_for_drawing_is_said_in_words(engine, monkeypatch):
    def fail(*args, **values):
        raise MemoryError

    monkeypatch.setattr(pipeline, "draw", fail)
    with pytest.raises(OutOfMemory, match="Drawing needs more memory .* fewer pictures"):
        sample(engine, "tiny", "a clock", [1], config=CONFIG)


def test_masks_missing_is_an_error_before_anything_is_loaded(engine, tmp_path):
    pictures = [SubjectPicture(f"p{k}", make_picture(k).image) for k in range(3)]
    with pytest.raises(PromptError, match="p0, p1, p2 have no mask"):
        next(train(engine, "nothing", SUBJECT, pictures, CONFIG, tmp_path, class_root=tmp_path))


def test_cancelling_while_class_pictures_are_drawn(engine, tmp_path):
    control = Control()
    events = []
    for event in train(
        engine,
        "tiny",
        SUBJECT,
        [make_picture(k) for k in range(3)],
        replace(CONFIG, prior_pictures=9),
        tmp_path / "one",
        class_root=tmp_path / "class",
        control=control,
    ):
        events.append(event)
        control.cancel()
    assert events[-1] == Stopped(0, None)
    assert [event.fraction for event in events[:-1]] == [4 / 9]


def test_prepared_masks_wait_for_decisions(engine):
    with np.load(GOLDEN_FILE) as golden:
        mask = (golden["in.ref_mask_rgb"] > 0).any(axis=2)
        marked = SubjectPicture("marked", golden["in.ref_image"], mask)
        others = [SubjectPicture(f"other-{k}", golden["in.test_image"]) for k in range(2)]
    pictures, origin = prepare(engine, "sam", [marked, *others], 0, method="persam")
    assert origin.model == "sam"
    assert [picture.decision for picture in pictures] == ["redraw", None, None]


def test_before_and_after_from_the_same_seeds(engine, learned):
    before, after = compare(engine, "tiny", "a photo of {}", [1, 2], [learned])
    assert before.prompts == after.prompts == ("a photo of a sks clock",) * 2
    assert (before.subject, after.subject) == (None, learned)
    assert before.images[0].shape == (SIDE, SIDE, 3)
    assert (before.images[0] != after.images[0]).any()
    alone = sample(engine, "tiny", "a photo of {}", [1, 2], learned=learned)
    assert_array_equal(alone.images, after.images)
    plain = sample(engine, "tiny", "a photo of a sks clock", [1, 2], config=CONFIG)
    assert_array_equal(plain.images, before.images)


def test_the_engines_model_learns_nothing(engine, learned):
    plain = {"prompts": "a clock", "seeds": [3], "config": CONFIG}
    first = sample(engine, "tiny", **plain)
    sample(engine, "tiny", "{}", [3], learned=learned)
    assert_array_equal(sample(engine, "tiny", **plain).images, first.images)


def test_progress_runs_over_both_rounds(engine, learned):
    told = []
    compare(
        engine, "tiny", "{}", [1], [learned], progress=lambda fraction, _: told.append(fraction)
    )
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_drawing_can_be_stopped(engine, learned):
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        sample(
            engine,
            "tiny",
            "{}",
            [1],
            learned=learned,
            cancel=cancel,
            progress=lambda *_: cancel.cancel(),
        )


def test_prompts_that_make_no_sense(engine, learned):
    with pytest.raises(PromptError, match="choose a subject"):
        sample(engine, "tiny", "a photo of {}", [1], config=CONFIG)
    with pytest.raises(PromptError, match="no learned subject to compare"):
        compare(engine, "tiny", "{}", [1], [])
    long = sample(engine, "tiny", "clock " * 30, [1], config=CONFIG)
    assert "was not read: it is too long" in long.warnings[0]


def test_a_time_is_expected_of_every_training(engine):
    quick = estimate_seconds(engine, "tiny", CONFIG)
    assert 0 < quick < 60
    longer = estimate_seconds(engine, "tiny", replace(CONFIG, steps=2000))
    assert longer > 5 * quick


def test_a_visitor_s_training_in_the_queue(engine, tmp_path):
    queue = TrainingQueue(tmp_path / "runs")
    pictures = [make_picture(k) for k in range(3)]
    config = replace(FAST, steps=2)

    def work(folder, control):
        return train(
            engine,
            "tiny",
            SUBJECT,
            pictures,
            config,
            folder,
            class_root=tmp_path / "class",
            control=control,
        )

    one = queue.submit(work, title=SUBJECT.name, facts=config.to_dict())
    status = queue.wait(one, 60)
    assert status.error is None
    assert (status.state, status.step.step) == ("finished", 2)
    assert read_subject(status.subject).subject == SUBJECT
