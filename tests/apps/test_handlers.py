"""The Segment tab's handlers with the embedded model, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.suite import models
from apps.suite.components import prepare_files
from apps.suite.segment import answers, edits, show
from apps.suite.segment.downloads import write_files
from apps.suite.segment.session import SegmentSession
from core.errors import ImageError, NothingFound, PromptError
from core.masks import iou
from core.models.presets import EverythingConfig

CENTRE = (160, 120)
SMALL_GRID = (6, 0.0, 0.0, 0.7, 0, 0)  # values of EVERYTHING_FIELDS


@pytest.fixture
def session(square_picture, tmp_path, monkeypatch):
    """A visitor who has uploaded the square."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    copy = tmp_path / "square.png"
    copy.write_bytes(square_picture.read_bytes())
    session = SegmentSession()
    session.model = models.default_model()
    edits.read_upload(session, str(copy))
    answers.read_picture(session)
    yield session
    session.close()


def click(session, x, y, tool="foreground"):
    """Click at original pixels and ask."""
    view = session.picture.view
    edits.click(session, *view.to_shown([(x, y)])[0], tool)
    answers.answer_prompts(session)


def square():
    mask = np.zeros((240, 320), bool)
    mask[80:160, 120:200] = True
    return mask


def chosen(session):
    return session.scene.current[0].mask.full()


def test_without_a_picture_every_action_says_so():
    session = SegmentSession()
    for action in (
        lambda: edits.click(session, 1, 1, "foreground"),
        lambda: edits.draw_stroke(session, [[1, 1]], "scribble"),
        lambda: edits.run_again(session),
        lambda: edits.begin_job(session),
        lambda: edits.edit(session, {"do": "add-point"}),
        lambda: edits.set_panel(session, "compare"),
        lambda: write_files(session),
    ):
        with pytest.raises(PromptError, match="There is no picture yet"):
            action()


def test_a_click_has_three_readings_and_a_second_corrects_it(session):
    click(session, *CENTRE)
    assert len(session.scene.answer.masks) == 3
    assert session.scene.answer.chosen == int(np.argmax(session.scene.answer.scores))
    assert iou(chosen(session), square()) >= 0.9
    click(session, 20, 20, "background")
    assert len(session.scene.answer.masks) == 1
    assert iou(chosen(session), square()) >= 0.9
    edits.undo(session)
    assert len(session.scene.answer.masks) == 3
    edits.undo(session)
    assert session.scene.answer is None
    with pytest.raises(PromptError, match="nothing to undo"):
        edits.undo(session)


def test_an_answer_is_not_asked_for_twice(session, monkeypatch):
    click(session, *CENTRE)
    monkeypatch.setattr(answers, "_ask", lambda *_: pytest.fail("asked again"))
    answers.answer_prompts(session)
    edits.undo(session)
    answers.answer_prompts(session)


def test_the_number_of_readings_is_a_choice(session):
    click(session, *CENTRE)
    edits.set_options(session, multimask="off")
    answers.answer_prompts(session)
    assert len(session.scene.answer.masks) == 1
    edits.set_options(session, multimask="on")
    click(session, 130, 90)
    assert len(session.scene.answer.masks) == 3


def test_a_higher_threshold_makes_a_smaller_mask(session):
    click(session, *CENTRE)
    before = session.scene.answer.masks[0].area
    edits.set_options(session, mask_threshold=2.0)
    answers.answer_prompts(session)
    assert session.scene.answer.masks[0].area < before


def test_feeding_the_logits_back_changes_the_correction(session):
    logits = []
    for feed_back in (True, False):
        edits.set_options(session, feed_back=feed_back)
        click(session, *CENTRE)
        click(session, 130, 90)
        logits.append(session.scene.answer.low_res_logits)
        edits.clear(session)
    assert logits[0].shape == logits[1].shape and not np.allclose(*logits)


def test_a_scribble_has_as_many_points_as_asked_for(session):
    edits.set_options(session, scribble_points=5)
    edits.draw_stroke(session, [[280, 220], [320, 240], [360, 260]], "scribble")
    assert len(session.scene.prompts.points) == 5
    answers.answer_prompts(session)
    assert iou(chosen(session), square()) >= 0.85


def test_a_dragged_box_is_an_object(session):
    scale = session.picture.view.scale_xy[0]
    edits.draw_stroke(session, [[120 * scale, 80 * scale], [200 * scale, 160 * scale]], "box")
    answers.answer_prompts(session)
    assert iou(chosen(session), square()) >= 0.9


@pytest.mark.parametrize("path", [None, "x", [], [[1]], [[1, 2, 3]], [["a", 1]], [[1, 1]] * 6000])
def test_a_line_that_cannot_be_read_is_refused(session, path):
    with pytest.raises(PromptError, match="That line cannot be read"):
        edits.draw_stroke(session, path, "scribble")


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"do": "launch"},
        {"do": "rename"},
        {"do": "rename", "number": "x"},
        {"do": "choose", "index": 9},
        {"do": "edit-point", "row": 5, "column": "x", "value": 1},
        {"do": "edit-point", "row": 0, "column": "z", "value": 1},
        {"do": "edit-point", "row": 0, "column": "x", "value": "inf"},
        {"do": "merge", "numbers": "1"},
    ],
)
def test_a_made_up_request_is_refused_and_changes_nothing(session, action):
    click(session, *CENTRE)
    before = session.scene
    with pytest.raises(PromptError):
        edits.edit(session, action)
    assert session.scene is before


def test_everything_obeys_its_fields_and_can_be_shown_anyway(session):
    list(answers.find_everything(session, *SMALL_GRID))
    assert session.notice.kind == "ready" and "sorted by size" in session.notice.text
    areas = [one.mask.area for one in session.scene.instances]
    assert areas == sorted(areas, reverse=True)
    list(answers.find_everything(session, 6, 2.0, 0.0, 0.7, 0, 0))
    assert session.notice.kind == "hint" and session.notice.action == "anyway"
    assert len(session.scene.instances) == len(areas)  # what was there stays
    list(answers.find_anything(session, 12, 2.0, 0.0, 0.7, 0, 0))
    assert 1 <= len(session.scene.instances) <= answers.MOST_ANYWAY
    assert "below the thresholds" in session.notice.text


def test_an_emptied_field_means_the_models_own_value(session):
    list(answers.find_everything(session, 6, 0.0, 0.0, None, None, None))
    preset = EverythingConfig.embedded()
    assert session.found_parameters["box_nms_thresh"] == preset.box_nms_thresh


def test_wrong_fields_get_a_sentence(session):
    list(answers.find_everything(session, 500, 0.0, 0.0, 0.7, 0, 0))
    assert session.notice.kind == "warning" and "500 points per side" in session.notice.text


def test_long_work_says_how_far_it_is_and_stops(session):
    edits.begin_job(session)
    steps = answers.find_everything(session, 64, 0.0, 0.0, 0.7, 0, 0)
    first = next(steps)
    assert first.kind == "busy" and first.text.startswith("Everything: ")
    assert 0 <= first.progress < 1
    edits.cancel(session)
    rest = list(steps)
    assert len(rest) < 64
    assert session.notice.kind == "hint" and "Stopped" in session.notice.text
    click(session, *CENTRE)
    assert session.scene.answer is not None


def test_edges_are_found_shown_and_downloaded(session):
    list(answers.find_edges(session))
    assert session.panel == "edges" and session.edges.shape == (240, 320)
    shown = show.show(session)
    assert Path(shown.edges["value"]).is_file() and shown.canvas["visible"] is False
    (path,) = write_files(session)
    assert path.endswith("_sam_edges.png")
    assert Image.open(path).mode == "L"


def test_the_drawing_follows_its_controls(session):
    click(session, *CENTRE)
    pictures = set()
    for choice in (
        {},
        {"opacity": 0.9},
        {"outline": False},
        {"numbers": False},
        {"background": "grey"},
        {"background": "transparent"},
        {"overlay": False},
    ):
        edits.set_drawing(session, **choice)
        pictures.add(Path(show.show_canvas(session)["value"]).read_bytes())
    assert len(pictures) == 7
    with pytest.raises(PromptError, match="The background must be one of"):
        edits.set_drawing(session, background="pink")


def test_the_alternative_text_says_what_is_seen(session):
    assert "nothing selected yet" in show.show_canvas(session)["alt_text"]
    click(session, *CENTRE)
    assert show.show_canvas(session)["alt_text"].startswith("1 mask: number 1 0.")


def test_hidden_objects_are_not_downloaded(session):
    with pytest.raises(NothingFound, match="no mask to download"):
        write_files(session)
    click(session, *CENTRE)
    edits.new_object(session)
    click(session, 20, 20)
    edits.edit(session, {"do": "toggle", "number": 1})
    files = {path.rsplit("Z_", 1)[-1]: path for path in write_files(session)}
    record = json.loads(Path(files["instances.json"]).read_text())
    assert [instance["id"] for instance in record["instances"]] == [2]
    assert not record["instances"][0]["label"] and "mask_1.png" not in files


def test_a_bug_is_told_by_its_reference_and_nothing_is_lost(session, monkeypatch, caplog):
    click(session, *CENTRE)

    def broken(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(answers, "_ask", broken)
    edits.forget_answers(session)
    answers.answer_prompts(session)
    assert session.notice.kind == "failed" and "Reference" in session.notice.text
    assert "/secret" not in session.notice.text and session.scene.prompts.points
    update, status = prepare_files(session, broken, show.status_of)
    assert update["visible"] is False and "Something broke" in status


def test_a_wrong_file_leaves_the_picture_before(session, tmp_path):
    wrong = tmp_path / "notes.png"
    wrong.write_text("no picture")
    before = session.picture
    with pytest.raises(ImageError):
        edits.read_upload(session, str(wrong))
    assert session.picture is before
