"""The Personalize tab's handlers with the embedded model, without a server."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from apps.suite.components import prepare_files
from apps.suite.notices import Notice
from apps.suite.personalize import examples, inputs, show, work
from apps.suite.personalize.downloads import write_files
from apps.suite.personalize.markup import answers_html, how_html, marked_html, weights_html
from apps.suite.personalize.session import MARK_IT, Choices, PersonalizeSession
from apps.suite.segment import answers, edits
from core.errors import ImageError, NothingFound, PromptError
from core.masks import iou
from core.persam.clips import write_clip
from core.persam.config import FitConfig, PersamConfig

SIZE = (192, 256)
ORANGE, BLUE = (226, 110, 30), (40, 90, 200)


def picture(square: tuple[int, int] | None, disc: tuple[int, int] | None, shade: int = 150):
    """An orange square and a blue disc, 56 px, around these places (x, y); and their masks."""
    image = np.full((*SIZE, 3), (shade - 60, shade - 20, shade), np.uint8)
    masks = np.zeros((2, *SIZE), np.uint8)
    if square is not None:
        x, y = square
        cv2.rectangle(image, (x - 28, y - 28), (x + 28, y + 28), ORANGE, cv2.FILLED)
        cv2.rectangle(masks[0], (x - 28, y - 28), (x + 28, y + 28), 1, cv2.FILLED)
    if disc is not None:
        cv2.circle(image, disc, 28, BLUE, cv2.FILLED)
        cv2.circle(masks[1], disc, 28, 1, cv2.FILLED)
    return image, masks.astype(bool)


def save(path: Path, image: np.ndarray) -> str:
    Image.fromarray(image).save(path)
    return str(path)


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A visitor who has uploaded a reference with a square and a disc, and two pictures."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    session = PersonalizeSession()
    image, _ = picture((70, 90), (190, 100))
    edits.read_upload(session, save(tmp_path / "reference.png", image))
    inputs.read_queries(
        session,
        [
            save(tmp_path / "one.png", picture((180, 120), (60, 60), 190)[0]),
            save(tmp_path / "two.png", picture((60, 130), (180, 50), 110)[0]),
        ],
    )
    yield session
    session.close()


@pytest.fixture
def marked(session):
    """The same, with the square's true mask."""
    edits.put_mask(session, picture((70, 90), None)[1][0])
    return session


def run(generator) -> list:
    return list(generator)


def found(session, index: int = 0, variant: str = "persam"):
    return session.queries[index].result(variant).segmentation


def test_what_is_missing_is_said():
    session = PersonalizeSession()
    for action, sentence in (
        (lambda: inputs.begin_search(session), "There is no object yet"),
        (lambda: inputs.another_reference(session), "There is no picture yet"),
        (lambda: inputs.set_stage(session, "result"), "There is no picture to search yet"),
        (lambda: inputs.mark_frame(session, 1), "There is no clip"),
        (lambda: inputs.correct(session, 1, 1, "foreground"), "no picture to search"),
        (lambda: inputs.take_back(session), "no picture to search"),
        (lambda: inputs.step(session, 1), "no picture to search"),
        (lambda: inputs.select(session, 0), "There is no picture 1 any more"),
        (lambda: inputs.activate(session, 3), "There is no object 3"),
        (lambda: inputs.remove_reference(session, 0), "no reference picture 1"),
        (lambda: inputs.remove_profile(session, 0), "no profile 1"),
        (lambda: inputs.set_variant(session, "sam"), "no method 'sam'"),
        (lambda: inputs.set_stage(session, "x"), "no view 'x'"),
    ):
        with pytest.raises(PromptError, match=sentence):
            action()
    with pytest.raises(NothingFound, match="nothing to download"):
        write_files(session)
    with pytest.raises(ImageError, match="example is not here"):
        examples.use_example(session, "../secret")


def test_a_marked_object_is_found_in_the_other_pictures(marked):
    notices = run(work.search(marked))
    assert notices[-1].kind == "busy" and 0 < notices[-1].progress < 1
    for index, place in enumerate([(180, 120), (60, 130)]):
        result = found(marked, index)
        truth = picture(place, None)[1][0]
        assert iou(result.masks[0], truth) >= 0.8
        assert result.numbers == (1,)
    assert "found in 2 of 2 pictures" in show.status_of(marked)


def test_results_are_the_engines_own(marked):
    from core.engine import get_engine
    from core.persam.pipeline import find, learn
    from core.persam.target import Reference

    marked.variant = "persam_f"
    marked.change(steps=50)
    run(work.search(marked))
    engine, model = get_engine(), marked.model
    reference = Reference(marked.picture.image, picture((70, 90), None)[1][0])
    learned = learn(engine, model, [reference], fit=FitConfig(steps=50))
    config = PersamConfig.persam_f(presence_threshold=marked.choices.presence_threshold or None)
    expected = find(engine, model, marked.queries[0].loaded.image, learned.profile, config)
    assert np.array_equal(found(marked, 0, "persam_f").masks, expected.segmentation.masks)


def test_nothing_is_asked_twice_and_a_new_mask_is_asked_anew(marked):
    run(work.search(marked))
    first = marked.queries[0].result("persam")
    run(work.search(marked))
    assert marked.queries[0].result("persam") is first
    edits.put_mask(marked, picture(None, (190, 100))[1][1])
    run(work.search(marked))
    assert iou(found(marked).masks[0], picture(None, (60, 60))[1][1]) >= 0.8


def test_two_objects_have_their_numbers_everywhere(marked):
    edits.new_object(marked)
    edits.put_mask(marked, picture(None, (190, 100))[1][1])
    run(work.search(marked))
    result = found(marked)
    _, truth = picture((180, 120), (60, 60))
    assert result.numbers == (1, 2) and result.labels == ("object 1", "object 2")
    assert all(iou(mask, true) >= 0.8 for mask, true in zip(result.masks, truth, strict=True))
    assert not (result.masks[0] & result.masks[1]).any(), "objects compete for pixels"


def test_an_object_that_is_not_there(marked, tmp_path):
    inputs.set_choices(marked, presence_threshold=0.999)
    run(work.search(marked))
    assert len(found(marked)) == 0
    assert found(marked).dropped[0].reason.startswith("not in this picture")
    assert "not in this picture" in answers_html(marked)
    assert "0 of 2 pictures" in show.status_of(marked)
    assert "so it is not here" in how_html(marked)


def test_a_click_adds_to_a_result_and_can_be_taken_back(marked):
    run(work.search(marked))
    before = found(marked).masks[0]
    x, y = marked.query.view.to_shown([(150, 120)])[0]
    inputs.correct(marked, x, y, "background")
    work.answer_corrections(marked)
    after = found(marked).masks[0]
    assert not np.array_equal(before, after) and iou(before, after) > 0.3
    inputs.take_back(marked)
    assert np.array_equal(found(marked).masks[0], before)
    with pytest.raises(PromptError, match="no correction to take back"):
        inputs.take_back(marked)
    with pytest.raises(PromptError, match="no tool 'box'"):
        inputs.correct(marked, 1, 1, "box")


def test_marking_by_clicks_by_brush_and_by_upload(session, tmp_path):
    assert MARK_IT in show.status_of(session) or session.notice.text
    view = session.picture.view
    edits.click(session, *view.to_shown([(70, 90)])[0], "foreground")
    answers.read_picture(session)
    answers.answer_prompts(session)
    by_click = session.scene.current[0].mask.full()
    assert iou(by_click, picture((70, 90), None)[1][0]) >= 0.8

    edits.clear(session)
    line = [list(place) for place in view.to_shown([(60, 90), (80, 90)])]
    edits.draw_stroke(session, line, "paint")
    painted = session.scene.current[0].mask.full()
    assert painted[90, 70] and painted.sum() < 600
    edits.draw_stroke(session, line[:1], "erase")
    assert session.scene.current[0].mask.area < painted.sum()

    mask = np.zeros((96, 128), np.uint8)
    mask[31:59, 21:49] = 255
    inputs.upload_mask(session, save(tmp_path / "mask.png", mask))
    assert "resized from 128×96 to 256×192" in session.notice.text
    assert iou(session.scene.current[0].mask.full(), picture((70, 90), None)[1][0]) >= 0.9
    with pytest.raises(PromptError, match="empty"):
        inputs.upload_mask(session, save(tmp_path / "empty.png", 0 * mask))


def test_several_references_of_one_object(marked, tmp_path):
    inputs.another_reference(marked)
    assert marked.picture is None and len(marked.references) == 1
    image, masks = picture((150, 60), None, 200)
    edits.read_upload(marked, save(tmp_path / "more.png", image))
    edits.put_mask(marked, masks[0])
    (item,) = marked.objects()
    assert len(item.masks) == 2
    run(work.learn_only(marked))
    assert marked.learned[1][1].profile.target.means.shape[0] == 2
    inputs.remove_reference(marked, 0)
    assert len(marked.objects()[0].masks) == 1


def test_profiles_come_back(marked, tmp_path):
    marked.variant = "persam_f"
    marked.change(steps=20)
    run(work.search(marked))
    expected = found(marked, 0, "persam_f").masks
    paths = [Path(path) for path in write_files(marked)]
    (profile,) = [path for path in paths if path.suffix == ".safetensors"]
    copy = tmp_path / "profile.safetensors"
    copy.write_bytes(profile.read_bytes())
    edits.remove_picture(marked)
    inputs.load_profile(marked, str(copy))
    assert "as object 1" in marked.notice.text
    run(work.search(marked))
    assert np.array_equal(found(marked, 0, "persam_f").masks, expected)
    assert "Loaded profiles" in marked_html(marked)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(PromptError, match="no PerSAM profile"):
        inputs.load_profile(marked, str(broken))


def test_fifty_pictures(marked, tmp_path):
    path = save(tmp_path / "many.png", picture((180, 120), None)[0])
    inputs.read_queries(marked, [path] * 50, own=False)
    assert len(marked.queries) == 20
    run(work.search(marked))
    assert "50 pictures; the first 20 are searched" in show.status_of(marked), "said to the end"


def test_unreadable_pictures_are_named_and_the_others_taken(marked, tmp_path):
    good = save(tmp_path / "good.png", picture((180, 120), None)[0])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    inputs.read_queries(marked, [str(bad), good])
    assert len(marked.queries) == 1 and "bad.png" in marked.notice.text
    with pytest.raises(ImageError, match="bad.png"):
        inputs.read_queries(marked, [str(bad)])


def test_pictures_are_limited_together(marked, tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", picture((180, 120), None)[0])
    monkeypatch.setattr(inputs, "settings", inputs.settings.__class__(max_test_pixels=100_000))
    inputs.read_queries(marked, [path] * 5, own=False)
    assert len(marked.queries) == 2 and "megapixels" in marked.notice.text


def test_measured_against_uploaded_masks(marked, tmp_path):
    run(work.search(marked))
    (tmp_path / "truth").mkdir()
    truth = save(tmp_path / "truth" / "one.png", picture((180, 120), None)[1][0])
    inputs.read_truth(marked, [truth])
    assert "mean IoU of 1" in answers_html(marked)
    stranger = save(tmp_path / "stranger.png", np.ones((4, 4), bool))
    with pytest.raises(PromptError, match="No picture is called 'stranger'"):
        inputs.read_truth(marked, [stranger])


def test_the_way_there_is_shown(marked):
    run(work.search(marked))
    told = how_html(marked)
    for words in ("Cosine with the object", "First pass", "Refinement 2", "large reading"):
        assert words in told
    marked.variant = "persam_f"
    marked.change(steps=30)
    run(work.search(marked))
    told = weights_html(marked)
    assert "in 30 steps" in told and told.count("bar-row") == 3
    assert "weighted sum" in how_html(marked)


def test_comparison_asks_both(marked):
    marked.change(steps=20)
    inputs.set_stage(marked, "compare")
    run(work.compare(marked))
    assert set(marked.query.results) == {"persam", "persam_f"}
    assert show.show_compare(marked)["visible"]


@pytest.mark.parametrize(
    ("name", "value"), [("points", 0), ("steps", None), ("presence_threshold", 2), ("steps", 1e9)]
)
def test_settings_out_of_range(marked, name, value):
    with pytest.raises(PromptError, match=name.split("_")[0]):
        inputs.set_choices(marked, **{name: value})


@pytest.mark.parametrize(
    "change",
    [
        {"guided_attention": False},
        {"semantic_prompt": False},
        {"negative_point": False},
        {"refinement_1": False},
        {"refinement_2": False},
        {"guidance_weight": 5.0},
        {"points": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_switch_changes_something(marked, change):
    def stages():
        trace = marked.queries[0].result("persam").traces[0]
        return [stage.logits for stage in trace.found[0].stages]

    run(work.search(marked))
    before = stages()
    inputs.set_choices(marked, **change)
    run(work.search(marked))
    after = stages()
    assert len(before) != len(after) or any(
        not np.array_equal(a, b) for a, b in zip(before, after, strict=True)
    )


@pytest.fixture
def clip(tmp_path) -> str:
    frames = [picture((60 + 4 * t, 90), (200, 140))[0] for t in range(12)]
    return str(write_clip(tmp_path / "clip.mp4", frames, 8))


def test_a_clip_is_followed_from_a_marked_frame(session, clip, tmp_path):
    inputs.read_queries(session, [clip])
    assert "Clip of 12 frames" in session.notice.text
    inputs.mark_frame(session, 1)
    edits.put_mask(session, picture((60, 90), None)[1][0])
    inputs.begin_search(session)
    assert run(work.search(session))[-1].progress == 1
    truth = picture((60 + 4 * 11, 90), None)[1][0]
    assert iou(session.followed.frames[-1].labels == 1, truth) >= 0.4  # the weights see no more
    assert "12 frames in" in show.status_of(session)
    assert "12 of 12" in answers_html(session)
    assert show.show_clip(session)["value"].endswith(".mp4")
    names = [Path(path).name for path in write_files(session)]
    assert any(name.endswith("_overlay.mp4") for name in names)
    (davis,) = [path for path in write_files(session) if path.endswith("_davis.zip")]
    assert len(zipfile.ZipFile(davis).namelist()) == 12
    with pytest.raises(PromptError, match="no frame 99"):
        inputs.mark_frame(session, 99)


def test_cancel_keeps_the_frames_that_are_done(session, clip):
    inputs.read_queries(session, [clip])
    inputs.mark_frame(session, 1)
    edits.put_mask(session, picture((60, 90), None)[1][0])
    inputs.begin_search(session)
    search = work.search(session)
    for notice in search:
        if notice.progress:
            session.cancel_job()
    assert 0 < len(session.followed.frames) <= 12
    assert len(session.followed.frames) == 12 or "those are kept" in session.notice.text


def test_a_clip_needs_find_and_finds_a_loaded_object(marked, clip):
    inputs.read_queries(marked, [clip])
    run(work.learn_only(marked))
    assert marked.followed is None
    inputs.begin_search(marked)
    run(work.search(marked))
    assert len(marked.followed.frames) == 12
    assert any((frame.labels == 1).any() for frame in marked.followed.frames)


def test_downloads_hold_every_picture(marked):
    run(work.search(marked))
    update, _ = prepare_files(marked, write_files, show.status_of)
    archive = next(path for path in update["value"] if path.endswith("_all.zip"))
    names = zipfile.ZipFile(archive).namelist()
    assert sum(name.endswith("overlay.png") for name in names) == 2
    coco = next(path for path in update["value"] if path.endswith("_coco.json"))
    told = json.loads(Path(coco).read_text())
    assert len(told["images"]) == 2 and len(told["annotations"]) == 2


@pytest.mark.parametrize("name", list(examples.example_sets()))
def test_examples_work_with_one_press(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    session = PersonalizeSession()
    examples.use_example(session, name)
    assert session.objects() and (session.queries or session.clip)
    if session.queries:
        run(work.search(session))
        assert all(query.result("persam") for query in session.queries)
    session.close()
    assert not list(tmp_path.glob("visit-*")), "nothing of the visitor is left"


def test_leaving_forgets_everything(marked):
    run(work.search(marked))
    show.show(marked)
    folder = marked._folder
    assert folder.exists()
    marked.close()
    assert not folder.exists() and not marked.queries and not marked.objects()


def test_the_comparison_keeps_up_with_the_picture_and_the_mask(marked):
    marked.change(steps=10)
    inputs.set_stage(marked, "compare")
    run(work.compare(marked))
    inputs.step(marked, 1)
    run(work.compare(marked))
    assert set(marked.query.results) == {"persam", "persam_f"}
    before = {name: marked.query.result(name) for name in marked.query.results}
    edits.put_mask(marked, picture(None, (190, 100))[1][1])
    run(work.search(marked))
    assert all(marked.query.result(name) is not result for name, result in before.items())


def test_clearing_the_object_takes_its_results_away(marked):
    run(work.search(marked))
    edits.clear(marked)
    run(work.search(marked))
    assert not marked.objects() and not any(query.results for query in marked.queries)
    with pytest.raises(NothingFound):
        write_files(marked)


def test_renaming_keeps_corrections(marked):
    run(work.search(marked))
    x, y = marked.query.view.to_shown([(150, 120)])[0]
    inputs.correct(marked, x, y, "background")
    work.answer_corrections(marked)
    corrected = found(marked).masks
    edits.edit(marked, {"do": "rename", "number": 1, "value": "my square"})
    run(work.search(marked))
    assert found(marked).labels == ("my square",)
    assert np.array_equal(found(marked).masks, corrected)


def test_further_instances_can_be_corrected(marked, tmp_path, monkeypatch):
    image, _ = picture((60, 60), None)
    image[100:157, 170:227] = ORANGE
    inputs.read_queries(marked, [save(tmp_path / "two squares.png", image)])
    inputs.set_choices(marked, max_instances=3, presence_threshold=0.0)
    patient = replace(marked.choices.config("persam"), instance_ratio=0.0, same_instance_iou=1.0)
    monkeypatch.setattr(Choices, "config", lambda choices, variant: patient)
    run(work.search(marked))
    numbers = [f.number for f in marked.query.result("persam").traces[0].found]
    assert len(numbers) >= 2
    inputs.activate(marked, numbers[1])
    inputs.correct(marked, 5, 5, "background")
    work.answer_corrections(marked)
    assert len(marked.query.results["persam"]) == 2


def test_an_error_after_a_cancel_is_said(marked, tmp_path):
    marked.begin_job()
    marked.cancel_job()
    black = save(tmp_path / "black.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(PromptError, match="empty"):
        inputs.upload_mask(marked, black)
    marked.notice = Notice("warning", "The mask is empty.")
    run(work.search(marked))
    assert marked.notice.text == "The mask is empty."
    run(work.search(marked))
    assert marked.queries[0].result("persam"), "the next search is not stopped"


def test_a_bad_upload_loses_nothing(marked, tmp_path):
    run(work.search(marked))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"ffconcat version 1.0\nfile bad.mp4\n")
    with pytest.raises(ImageError, match="unknown kind"):
        inputs.read_queries(marked, [str(bad)])
    assert len(marked.queries) == 2 and marked.query.result("persam")
    still = tmp_path / "still.gif"
    Image.fromarray(picture((180, 120), None)[0]).save(still)
    inputs.read_queries(marked, [str(still)])
    assert len(marked.queries) == 1 and marked.clip is None


def test_another_picture_is_no_frame_of_the_clip(session, clip, tmp_path):
    inputs.read_queries(session, [clip])
    inputs.mark_frame(session, 3)
    assert session.frame[1] == 2
    edits.read_upload(session, save(tmp_path / "photo.png", picture((60, 60), None)[0]))
    assert session.frame is None


def test_a_second_object_is_marked_in_another_frame(session, clip):
    inputs.read_queries(session, [clip])
    inputs.mark_frame(session, 1)
    edits.put_mask(session, picture((60, 90), None)[1][0])
    inputs.mark_frame(session, 4)
    inputs.new_object(session)
    edits.put_mask(session, picture(None, (200, 140))[1][1])
    assert [item.number for item in session.objects()] == [1, 2]
    inputs.begin_search(session)
    run(work.search(session))
    assert session.followed.numbers == (1, 2)
    assert not (session.followed.frames[0].labels == 2).any(), "it starts later"
    assert (session.followed.frames[3].labels == 2).any()


def test_best_place_anyway(marked):
    inputs.set_choices(marked, presence_threshold=0.999)
    run(work.search(marked))
    assert 'data-do="anyway"' in show.status_of(marked)
    inputs.show_anyway(marked)
    run(work.search(marked))
    assert len(found(marked)) == 1
