"""The DreamBooth tab's handlers with a tiny text-to-image model, without a server."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from apps.suite.dreambooth import examples, inputs, show, wiring, work
from apps.suite.dreambooth.downloads import write_files
from apps.suite.dreambooth.markup import cards_html, say_about, training_html
from apps.suite.dreambooth.session import FIELDS, DreamBoothSession, Wishes
from apps.suite.notices import Notice
from apps.suite.personalize import inputs as personalize
from apps.suite.personalize.session import PersonalizeSession
from apps.suite.segment import edits
from core.dreambooth import pipeline
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.events import Finished, Paused, StepDone, Stopped
from core.dreambooth.masks import MaskOrigin
from core.errors import ImageError, PromptError, SuiteError
from core.settings import Settings
from tests.apps.dreambooth_server import FAST, tiny_model

SIZE = (96, 128)
MARKUP = "<img src=x onerror=alert(1)>"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of all trainings."""
    with tiny_model(tmp_path_factory.mktemp("dreambooth")) as root:
        yield root


@pytest.fixture
def session(root, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    session = DreamBoothSession()
    yield session
    session.close()


def draw_square(x: int, y: int, shade: int = 150):
    """An orange square of 40 px around a place, and its mask."""
    image = np.full((*SIZE, 3), (shade - 60, shade - 20, shade), np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    for canvas, value in ((image, (226, 110, 30)), (mask, 1)):
        cv2.rectangle(canvas, (x - 20, y - 20), (x + 20, y + 20), value, cv2.FILLED)
    return image, mask.astype(bool)


PLACES = [(40, 40), (80, 50), (60, 60), (90, 30)]


def upload(session, tmp_path, count=4):
    """Give so many pictures of the square."""
    paths = []
    for k in range(count):
        path = tmp_path / f"square {k}.png"
        Image.fromarray(draw_square(*PLACES[k], 120 + 20 * k)[0]).save(path)
        paths.append(str(path))
    inputs.add_uploads(session, paths)


def run(generator) -> list:
    return list(generator)


@pytest.fixture
def finder(monkeypatch):
    """PerSAM, which finds the square by its place; pictures in `absent` seem to lack it."""
    absent: set[int] = set()

    def prepare(engine, sam, pictures, marked, **options):
        found = []
        for k, picture in enumerate(pictures):
            if picture.decision is not None:
                found.append(picture)
                continue
            mask = draw_square(*PLACES[k])[1]
            warnings = ("The subject seems not to be in this picture",) if k in absent else ()
            found.append(
                replace(
                    picture,
                    mask=mask,
                    source="persam_f",
                    score=0.9,
                    presence=0.8,
                    warnings=warnings,
                )
            )
        return found, MaskOrigin("persam_f", sam)

    monkeypatch.setattr(pipeline, "prepare", prepare)
    return absent


@pytest.fixture
def prepared(session, tmp_path, finder):
    """A visitor with four pictures and accepted masks."""
    upload(session, tmp_path)
    inputs.put_mask(session, 0, draw_square(*PLACES[0])[1])
    run(work.find_masks(session))
    inputs.accept_all(session)
    session.notice = Notice("ready", "")
    return session


def fields(noun="clock", **changes):
    """What the page's fields send."""
    values = {**Wishes.of_preset("quick", "embedded").values, **changes}
    return ("quick", noun, "sks", True, "lora", *(values[name] for name in FIELDS))


def begin(session, **changes):
    inputs.begin_training(session, *fields(**changes))
    work.begin_training(session)
    assert session.training, session.notice


def wait_until_ended(session):
    end = time.monotonic() + PATIENCE
    while not session.standing.has_ended and time.monotonic() < end:
        time.sleep(0.05)
        work.look(session)
    return session.standing.status


def test_what_is_missing_is_said(session):
    for action, sentence in (
        (lambda: inputs.select(session, 0), "no picture 1 any more"),
        (lambda: inputs.remove(session, 0), "no picture 1 any more"),
        (lambda: inputs.decide(session, 0, "accept"), "no picture 1 any more"),
        (lambda: inputs.decide(session, 0, "x"), "no decision 'x'"),
        (lambda: inputs.accept_all(session), "no mask to accept"),
        (lambda: inputs.begin_training(session, *fields()), "There are 0 pictures"),
        (lambda: inputs.set_preset(session, "x"), "no preset 'x'"),
        (lambda: inputs.use_diffusion(session, "sam_embedded"), "no text-to-image model"),
        (lambda: work.pause(session), "no training here"),
        (lambda: inputs.put_aside(session), "no training here"),
        (lambda: inputs.take_over(session, PersonalizeSession()), "no object in Personalize"),
        (lambda: write_files(session), "no learned subject yet"),
        (lambda: inputs.begin_drawing(session, "x", "1", 4, 20, True), "no learned subject yet"),
    ):
        with pytest.raises(SuiteError, match=sentence):
            action()
    with pytest.raises(ImageError, match="example is not here"):
        examples.use_example(session, "../secret")


def test_an_example_s_masks_are_found_and_its_time_is_known(session):
    """With the embedded PerSAM-F, and the tiny model's own speed."""
    examples.use_example(session, "teapot")
    assert session.wishes.class_noun == "teapot" and session.marked == 0
    run(wiring.refresh(session, "sam_embedded"))
    assert len(session.undecided) == 4
    assert all(item.subject.score > 0.8 and not item.subject.warnings for item in session.undecided)
    assert "Look at the masks: 4" in show.status_of(session)
    inputs.accept_all(session)
    run(wiring.refresh(session, "sam_embedded"))
    assert session.is_prepared and session.expected > 0
    titles = [title for title, _ in show.preset_choices(session)]
    assert titles[0].startswith("Quick look · ") and len(titles) == 3
    assert "Everything is ready" in show.status_of(session)


def test_all_examples_are_whole():
    for one in examples.example_subjects().values():
        assert 4 <= len(one.pictures) <= 5
        assert all(path.stat().st_size <= 25_000 for path in one.pictures)
        marked = Image.open(one.pictures[one.marked - 1])
        assert Image.open(one.folder / "mask.png").size == marked.size == (256, 256)


def test_two_pictures_are_too_few(session, tmp_path, finder):
    upload(session, tmp_path, 2)
    assert "2 pictures are too few to learn from: add one more" in show.status_of(session)
    inputs.put_mask(session, 0, draw_square(*PLACES[0])[1])
    assert not session.is_prepared
    with pytest.raises(PromptError, match="There are 2 pictures of the subject: give 3 to 20"):
        inputs.begin_training(session, *fields())


def test_what_is_no_picture_is_named_and_the_rest_is_taken(session, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    good = tmp_path / "good.png"
    Image.fromarray(draw_square(40, 40)[0]).save(good)
    inputs.add_uploads(session, [str(bad), str(good), str(good)])
    assert [item.subject.stem for item in session.items] == ["good", "good-2"]
    assert "bad.png" in session.notice.text
    with pytest.raises(ImageError, match=r"bad\.png"):
        inputs.add_uploads(session, [str(bad)])
    inputs.add_uploads(session, [str(good)] * 20)
    assert len(session.items) == 20
    assert "2 pictures are left out: 20 are the most" in session.notice.text


def test_one_is_marked_and_the_others_follow(session, tmp_path, finder):
    upload(session, tmp_path)
    assert "Click the thing" in show.status_of(session)
    edits.draw_stroke(session, [[40 * 5, 40 * 5], [60 * 5, 40 * 5]], "paint")
    inputs.take_mask(session)
    assert session.marked == 0 and session.items[0].subject.source == "drawn"
    assert "Looking for it" in show.status_of(session)
    run(work.find_masks(session))
    assert [item.subject.decision for item in session.items] == ["redraw", None, None, None]
    assert "predicted IoU 0.90 · presence 0.80" in cards_html(session)
    assert run(work.find_masks(session)) == []  # known already
    edits.undo(session)
    inputs.take_mask(session)
    assert session.marked is None and session.items[0].subject.mask is None


def test_decisions(session, tmp_path, finder):
    upload(session, tmp_path)
    inputs.put_mask(session, 0, draw_square(*PLACES[0])[1])
    run(work.find_masks(session))
    inputs.decide(session, 1, "whole")
    inputs.decide(session, 2, "exclude")
    assert session.items[1].subject.training_mask.all()
    assert "left out" in cards_html(session) and "all of it counts" in cards_html(session)
    inputs.decide(session, 2, "exclude")  # taken back
    assert session.items[2].subject.decision is None
    inputs.decide(session, 2, "accept")
    inputs.decide(session, 3, "accept")
    assert session.is_prepared
    for index in (1, 2, 3):
        inputs.decide(session, index, "exclude")
    assert "1 picture is too few" in show.status_of(session)


def test_a_found_mask_is_corrected_by_hand(session, tmp_path, finder):
    upload(session, tmp_path)
    inputs.put_mask(session, 0, draw_square(*PLACES[0])[1])
    run(work.find_masks(session))
    inputs.select(session, 1)
    before = session.items[1].subject.mask
    inputs.take_mask(session)  # only looked at
    assert session.items[1].subject.decision is None
    edits.draw_stroke(session, [[80 * 5, 50 * 5]], "erase")
    inputs.take_mask(session)
    after = session.items[1].subject
    assert after.decision == "redraw" and 0 < after.mask.sum() < before.sum()
    assert session.marked == 0
    inputs.select(session, 0)
    inputs.select(session, 1)
    edits.undo(session)
    inputs.take_mask(session)
    assert (session.items[1].subject.mask == before).all()


def test_marking_anew_searches_what_is_undecided_anew(session, tmp_path, finder):
    upload(session, tmp_path)
    inputs.put_mask(session, 0, draw_square(*PLACES[0])[1])
    run(work.find_masks(session))
    inputs.decide(session, 1, "accept")
    kept = session.items[1].subject
    inputs.put_mask(session, 0, draw_square(44, 44)[1])
    assert len(session.unsought) == 2
    run(work.find_masks(session))
    assert session.items[1].subject is kept and not session.unsought


def test_pictures_without_the_subject_wait_for_a_decision(session, tmp_path, finder):
    finder.add(2)
    upload(session, tmp_path)
    inputs.put_mask(session, 0, draw_square(*PLACES[0])[1])
    run(work.find_masks(session))
    inputs.accept_all(session)
    assert [item.subject.stem for item in session.undecided] == ["square-2"]
    assert "1 picture has a warning" in session.notice.text
    assert "seems not to be in this picture" in cards_html(session)
    inputs.decide(session, 2, "exclude")
    assert session.is_prepared and len(session.used) == 3


def test_when_the_marked_picture_goes_another_drawn_one_takes_its_place(prepared):
    inputs.put_mask(prepared, 2, draw_square(*PLACES[2])[1])
    inputs.remove(prepared, 0)
    assert prepared.marked == 1 and len(prepared.items) == 3
    for _ in range(3):
        inputs.remove_shown(prepared)
    assert prepared.picture is None and "Drop 3 to 20 pictures" in show.status_of(prepared)


def test_pictures_and_masks_come_from_personalize(session, tmp_path, finder):
    other = PersonalizeSession()
    edits.use_picture(other, inputs.load(_save(tmp_path, "one", draw_square(*PLACES[0])[0])))
    edits.put_mask(other, draw_square(*PLACES[0])[1])
    edits.name_current(other, "lamp")
    with pytest.raises(PromptError, match="There is 1 picture of the subject"):
        inputs.take_over(session, other)
    personalize.read_queries(
        other,
        [_save(tmp_path, f"q{k}", draw_square(*PLACES[k])[0]) for k in (1, 2)],
        own=False,
    )
    inputs.take_over(session, other)
    assert [item.subject.stem for item in session.items] == ["one", "q1", "q2"]
    assert session.marked == 0 and session.wishes.class_noun == "lamp"
    assert len(session.unsought) == 2


def _save(folder, name, image):
    path = folder / f"{name}.png"
    Image.fromarray(image).save(path)
    return str(path)


def test_settings_that_make_no_sense_are_said(prepared):
    for changes, sentence in (
        ({"steps": None}, "The setting steps is None: give a number"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"rank": 2.5}, "rank is 2.5: give a whole number"),
        ({"noun": ""}, "what kind of thing"),
    ):
        with pytest.raises(PromptError, match=sentence):
            inputs.begin_training(prepared, *fields(**changes))
    inputs.set_wishes(prepared, *fields(sample_steps=None, steps=7.0))
    config = inputs.config_of(prepared)
    assert (config.sample_steps, config.steps, config.mask_loss) == (None, 7, "area")
    inputs.set_preset(prepared, "paper")
    assert prepared.wishes.values["steps"] == FAST["steps"]
    assert replace(prepared.wishes, masked=False).config("embedded").mask_loss == "none"


def test_more_steps_than_allowed_are_refused_and_nothing_is_lost(prepared):
    inputs.begin_training(prepared, *fields(steps=10_000))
    work.begin_training(prepared)
    assert "There are 10000 steps; the limit here is 5000" in prepared.notice.text
    assert not prepared.training and prepared.is_prepared


def test_without_a_model_it_is_said(prepared):
    prepared.diffusion = None
    assert "no text-to-image model here yet" in show.status_of(prepared)
    assert run(work.estimate(prepared)) == []
    with pytest.raises(PromptError, match="no text-to-image model here yet"):
        inputs.begin_training(prepared, *fields())
    show.show(prepared)


@pytest.fixture(scope="module")
def learned_id(root, tmp_path_factory):
    """Id of a training that one visitor has let come to its end."""
    session = DreamBoothSession()
    pictures = [work_picture(k) for k in range(3)]
    config = DreamBoothConfig.preset("quick", "embedded")
    training_id = work.trainings().begin(
        "tiny_diffusion", Subject("sks", "clock"), pictures, config
    )
    inputs.remember(session, training_id)
    work.look(session)
    assert wait_until_ended(session).state == "finished"
    return training_id


def work_picture(k):
    from core.dreambooth.subjects import SubjectPicture

    image, mask = draw_square(*PLACES[k])
    return SubjectPicture(f"p{k}", image, mask, "persam_f").accept()


def test_from_the_pictures_to_a_drawing_and_its_files(prepared):
    begin(prepared)
    assert wait_until_ended(prepared).state == "finished"
    assert prepared.learned.subject.name == "a sks clock"
    shown = show.show_tick(prepared)
    assert shown.prompt == "a photo of a sks clock" and shown.sampler == FAST["inference_steps"]
    assert 'data-state="finished"' in shown.training and "<polyline" in shown.training
    assert "step 3" in shown.samples or "step 6" in shown.samples
    order = ("a photo of a sks clock on grass", "1, 2", 3.0, 2, True)
    inputs.begin_drawing(prepared, *order)
    run(wiring.draw(prepared, "sam_embedded", *order))
    assert [pair.seed for pair in prepared.pairs] == [1, 2]
    assert "Drawn 2 pictures" in show.status_of(prepared)
    shown = show.show(prepared)
    assert shown.pairs.count("<img") == 4 and len(shown.gallery["value"]) == 2
    files = write_files(prepared)
    assert [name.rpartition("_")[2] for name in files] == [
        "weights.zip",
        "pictures.zip",
        "training.zip",
    ]
    with zipfile.ZipFile(files[1]) as archive:
        told = json.loads(archive.read("pictures.json"))
    assert [row["seed"] for row in told["pictures"]] == [1, 2]
    # Weights from a file do the same, without the training that they came from.
    other = DreamBoothSession()
    work.open_uploaded(other, files[0])
    assert other.learned.subject == prepared.learned.subject
    assert len(write_files(other)) == 1
    other.close()


def test_after_a_reload_it_is_found_by_the_address_and_by_the_browser(session, learned_id):
    inputs.recall(session, learned_id, [])
    work.recall(session)
    assert session.standing.status.state == "finished"
    assert session.learned is not None and [one.id for one in session.saved] == [learned_id]
    other = DreamBoothSession()
    inputs.recall(other, "", [learned_id, "nonsense", 7])
    work.recall(other)
    assert other.training == "" and other.learned is None  # it has ended: only listed
    assert [one.id for one in other.saved] == [learned_id]
    work.open_saved(other, learned_id)
    assert "a sks clock" in show.show(other).learned


def test_other_visitors_do_not_see_it_unless_all_is_shared(session, learned_id, monkeypatch):
    inputs.recall(session, "", [])
    work.recall(session)
    assert session.saved == [] and show.show(session).saved == ""
    monkeypatch.setattr(work, "settings", Settings(shared_subjects=True))
    work.recall(session)
    assert learned_id in [one.id for one in session.saved]


@pytest.mark.parametrize("asked", ["0" * 32, MARKUP, "../../etc", 5, ["x"]])
def test_a_link_that_leads_nowhere_says_so(session, asked):
    inputs.recall(session, asked, "nonsense")
    work.recall(session)
    assert "There is no such training" in session.notice.text
    assert session.training == "" and MARKUP not in training_html(session)


class Gate:
    """A training that takes one step and then waits until it is let go."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, folder, control):
        yield StepDone(1, 9, 0.5, 0.5, None, 0.6, 0.5, 1e-4, 1.0, 8.0)
        self.entered.set()
        assert self.open.wait(PATIENCE)
        if control.paused:
            yield Paused(1)
            control.wait_while_paused()
        yield Stopped(1, None) if control.cancelled else Finished(1, folder / "subject")


@pytest.fixture
def gate(root):
    """A training that occupies the device; its id is in `gate.id`."""
    gate = Gate()
    facts = {
        "model": "tiny_diffusion",
        "subject": {"identifier": "sks", "class_noun": MARKUP},
        "settings": DreamBoothConfig(steps=9).to_dict(),
    }
    gate.id = work.trainings().queue.submit(gate, title="first", facts=facts)
    assert gate.entered.wait(PATIENCE)
    yield gate
    gate.open.set()
    with suppress(PromptError):  # deleted
        work.trainings().queue.wait(gate.id, PATIENCE)


def test_a_second_visitor_sees_the_place_in_the_queue(prepared, gate):
    begin(prepared)
    assert prepared.standing.status.place == 1
    assert "1 training comes first" in training_html(prepared)
    assert "Your training waits: 1 before it" in show.status_of(prepared)
    with pytest.raises(PromptError, match="Your training still goes on"):
        inputs.begin_training(prepared, *fields())
    work.stop(prepared)
    work.look(prepared)
    assert prepared.standing.status.state == "stopped"
    assert "nothing was trained yet" in training_html(prepared)


def test_pause_go_on_and_stop(session, gate):
    inputs.recall(session, "", [gate.id])
    work.recall(session)
    assert session.training == gate.id  # it still goes on, so the browser finds it
    assert "step 1 of 9, 8.0 s left" in show.status_of(session)
    html = training_html(session)
    assert "1 of 9" in html and MARKUP not in html and "&lt;img" in html
    work.pause(session)
    gate.open.set()
    end = time.monotonic() + PATIENCE
    while session.standing.status.state != "paused" and time.monotonic() < end:
        work.look(session)
    shown = show.show_training(session)
    assert shown.go_on["visible"] and shown.timer["active"] and not shown.pause["visible"]
    work.go_on(session)
    work.stop(session)
    assert wait_until_ended(session).state in ("stopped", "failed", "finished")
    assert not show.show_training(session).timer["active"]


def test_a_training_is_deleted_by_its_visitor(session, root, gate):
    inputs.recall(session, "", [gate.id])
    with pytest.raises(PromptError, match="cancel it first"):
        work.delete(session, gate.id)
    work.trainings().queue.cancel(gate.id)
    gate.open.set()
    work.trainings().queue.wait(gate.id, PATIENCE)
    work.delete(session, gate.id)
    assert session.known == [] and not (root / "runs" / gate.id).exists()


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        (("", "1", 4, 20, True), "The prompt is empty"),
        (("x" * 500, "1", 4, 20, True), "has 500 letters"),
        (("x", "", 4, 20, True), "seeds"),
        (("x", "1-20", 4, 20, True), "more than 8 seeds"),
        (("x", "1", None, 20, True), "The guidance is None"),
        (("x", "1", 4, 900, True), "The number of steps is 900"),
    ],
)
def test_orders_that_make_no_sense(order, sentence):
    with pytest.raises(PromptError, match=sentence):
        inputs.read_order(*order)


def test_times_are_said_roughly():
    said = [say_about(seconds) for seconds in (0.2, 41, 130, 7300)]
    assert said == ["5 s", "40 s", "2 min", "2.0 h"]


def test_wishes_begin_as_the_preset():
    wishes = Wishes.of_preset("quick", "full")
    assert wishes.config("full") == DreamBoothConfig.preset("quick", "full")
