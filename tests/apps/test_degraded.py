"""The Degraded tab's handlers with the embedded models, without a server."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.suite.components import prepare_files
from apps.suite.degraded import examples, inputs, show, work
from apps.suite.degraded.downloads import write_files
from apps.suite.degraded.markup import (
    answers_html,
    four_html,
    guesses_html,
    restored_html,
    series_html,
    sheet_html,
)
from apps.suite.degraded.session import Choice, DegradedSession
from apps.suite.degraded.wiring import refresh
from apps.suite.segment import edits
from core.degradations import COMBINATIONS, DEGRADATIONS, KINDS, degrade, degrade_chain
from core.errors import ImageError, ModelUnavailable, NothingFound, PromptError
from core.masks import iou
from core.robustsam import priors

SQUARE = (120, 80, 200, 160)  # x0, y0, x1, y1
CENTRE = (160.0, 120.0)


def square_mask() -> np.ndarray:
    mask = np.zeros((240, 320), bool)
    mask[SQUARE[1] : SQUARE[3], SQUARE[0] : SQUARE[2]] = True
    return mask


def read(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def session(square_picture, monkeypatch, tmp_path):
    """A visitor who has uploaded the square."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    session = DegradedSession()
    copy = tmp_path / "square.png"
    copy.write_bytes(square_picture.read_bytes())
    inputs.read_upload(session, str(copy))
    yield session
    session.close()


@pytest.fixture
def clicked(session):
    """The same, degraded by rain, with the square clicked and answered."""
    inputs.set_choice(session, "rain", 3, 5)
    click(session, *CENTRE)
    answer(session)
    return session


def click(session, x: float, y: float) -> None:
    place = session.picture.view.to_shown([(x, y)])[0]
    edits.click(session, float(place[0]), float(place[1]), "foreground")


def answer(session) -> list:
    return list(refresh(session, session.model))


def test_what_is_missing_is_said():
    session = DegradedSession()
    for action, sentence in (
        (lambda: inputs.begin_job(session), "Drop a bad picture"),
        (lambda: inputs.begin_restoring(session), "Drop a bad picture"),
        (lambda: inputs.set_panel(session, "slider"), "Drop a bad picture"),
        (lambda: inputs.run_again(session), "There is no picture yet"),
        (lambda: inputs.upload_truth(session, __file__), "Drop a bad picture"),
        (lambda: inputs.set_choice(session, "hail", 3, 0), "no degradation 'hail'; use one of"),
        (lambda: inputs.set_choice(session, "rain", 6, 0), "severity is 6; choose from 1 to 5"),
        (lambda: inputs.set_choice(session, "rain", 3, -1), "seed is -1; it has to be 0 or more"),
        (lambda: write_files(session), "There is no picture yet"),
    ):
        with pytest.raises(PromptError, match=sentence):
            action()
    assert "Drop a bad picture" in show.status_of(session)


def test_with_a_picture_but_no_prompt(session):
    for action, sentence in (
        (lambda: inputs.begin_job(session), "There is no prompt yet"),
        (lambda: inputs.set_panel(session, "x"), "There is no view 'x'"),
        (lambda: inputs.run_again(session), "There is nothing to run yet"),
    ):
        with pytest.raises(PromptError, match=sentence):
            action()
    with pytest.raises(NothingFound, match="nothing to download"):
        write_files(session)
    files, status = prepare_files(session, write_files, show.status_of)
    assert files["visible"] is False and "nothing to download" in status
    inputs.set_panel(session, "four")
    for name in KINDS:
        inputs.set_choice(session, name, 4, 1)
        assert KINDS[name].title in four_html(session) or name == "clear"


def test_an_unreadable_picture_leaves_the_one_before(session, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no picture")
    with pytest.raises(ImageError):
        inputs.read_upload(session, str(path))
    assert session.picture is not None and session.clear is not None


def test_the_picture_is_degraded_as_chosen_and_prompts_stay(clicked):
    clear = clicked.clear.loaded.image
    expected = degrade(clear, "rain", severity=3, seed=5)
    np.testing.assert_array_equal(clicked.picture.image, expected.image)
    prompts = clicked.scene.prompts
    inputs.set_choice(clicked, "fog", 5, 5)
    np.testing.assert_array_equal(
        clicked.picture.image, degrade(clear, "fog", severity=5, seed=5).image
    )
    assert clicked.scene.prompts == prompts and clicked.comparison is None
    inputs.new_seed(clicked)
    assert clicked.choice == Choice("fog", 5, 6)
    name = next(iter(COMBINATIONS))
    inputs.set_choice(clicked, name, 3, 2)
    np.testing.assert_array_equal(
        clicked.picture.image, degrade_chain(clear, COMBINATIONS[name], seed=2).image
    )
    picture = clicked.picture
    inputs.set_choice(clicked, name, 3, 2)
    assert clicked.picture is picture, "the same choice again changes nothing"
    inputs.set_choice(clicked, "clear", 3, 2)
    np.testing.assert_array_equal(clicked.picture.image, clear)


def test_both_models_answer_the_same_click(clicked):
    found = clicked.comparison
    assert found.sam.segmentation.parameters["points"] == [[*CENTRE, 1.0]]
    assert found.robust.segmentation.parameters["points"] == [[*CENTRE, 1.0]]
    assert found.sam.segmentation.model == "sam_embedded"
    assert found.robust.segmentation.model == "robustsam_embedded"
    known, truth = clicked.clear_answer
    assert iou(truth, square_mask()) > 0.8
    assert clicked.ious == found.ious(truth)
    html = answers_html(clicked)
    assert "SAM on the clear picture" in html and f"{clicked.ious[1]:.3f}" in html
    assert f"RobustSAM {clicked.ious[1]:.2f}" in show.status_of(clicked)


def test_nothing_is_asked_twice(clicked):
    found = clicked.comparison
    answer(clicked)
    assert clicked.comparison is found
    edits.undo(clicked)
    answer(clicked)
    assert clicked.comparison is None and answers_html(clicked) == ""


def test_an_uploaded_mask_measures_both(clicked, tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(square_mask()).save(path)
    inputs.upload_truth(clicked, str(path))
    answer(clicked)
    assert clicked.ious == clicked.comparison.ious(square_mask())
    assert "your mask" in answers_html(clicked)
    inputs.set_choice(clicked, "elastic_transform", 5, 3)
    answer(clicked)
    moved = clicked.degraded.displace_mask(square_mask())
    assert (moved != square_mask()).any()
    assert clicked.ious == clicked.comparison.ious(moved)


def test_a_picture_taken_as_it_is_has_nothing_to_measure_with(session):
    click(session, *CENTRE)
    answer(session)
    assert session.comparison is not None and session.ious is None
    assert "IoU with" not in answers_html(session)
    assert "agree to" in show.status_of(session)


def test_what_seems_wrong_is_an_estimate_of_the_upload(session, tmp_path):
    dark = degrade(session.clear.loaded.image, "brightness", severity=5).image
    path = tmp_path / "dark.png"
    Image.fromarray(dark).save(path)
    inputs.read_upload(session, str(path))
    answer(session)
    assert session.guesses
    html = guesses_html(session.guesses, session.choice)
    assert "Estimated" in html and session.guesses[0].words in html
    assert guesses_html(session.guesses, Choice("rain")) == ""  # it is known what is wrong


def test_the_sheet_has_every_kind_and_leads_to_it(clicked):
    inputs.begin_job(clicked)
    notices = list(work.fill_sheet(clicked))
    assert [card.name for card in clicked.sheet] == list(DEGRADATIONS)
    assert all(0 <= card.sam_iou <= 1 and 0 <= card.robust_iou <= 1 for card in clicked.sheet)
    assert notices[-1].progress == 1 and "15 pictures" in clicked.notice.text
    rain = clicked.sheet[list(DEGRADATIONS).index("rain")]
    assert rain.robust_iou == pytest.approx(clicked.ious[1])
    html = sheet_html(clicked.sheet)
    assert all(f'data-kind="{name}"' in html for name in DEGRADATIONS)
    inputs.choose_kind(clicked, {"do": "kind", "kind": "fog"})
    assert clicked.choice == Choice("fog", 3, 5) and clicked.panel == "picture"


def test_the_series_has_every_severity(clicked):
    inputs.begin_job(clicked)
    list(work.fill_series(clicked))
    assert [card.severity for card in clicked.series] == [1, 2, 3, 4, 5]
    html = series_html(clicked.series)
    assert html.count("<polyline") == 2 and "severity 5: SAM" in html
    inputs.set_choice(clicked, "clear", 3, 0)
    list(work.fill_series(clicked))
    assert "Choose one kind" in clicked.notice.text


def test_a_cancelled_sweep_keeps_what_is_done(clicked):
    inputs.begin_job(clicked)
    sweep = work.fill_sheet(clicked)
    next(sweep)
    edits.cancel(clicked)
    list(sweep)
    assert 1 <= len(clicked.sheet) < 15
    assert "Stopped at your request" in clicked.notice.text


@pytest.fixture
def blurred(clicked):
    """The same, blurred by motion instead of rain."""
    inputs.set_choice(clicked, "motion_blur", 3, 5)
    answer(clicked)
    return clicked


def restore(session) -> list:
    inputs.begin_restoring(session)
    return list(work.restore(session))


def test_what_is_missing_to_restore_is_said(clicked):
    assert "choose Motion blur under Degrade it" in clicked.missing_to_restore()
    assert "Blurred and compressed or Handheld in the dark" in restored_html(clicked)
    assert show.show(clicked).restore["interactive"] is False
    with pytest.raises(PromptError, match="Only a blur that was made here"):
        inputs.begin_restoring(clicked)
    inputs.set_choice(clicked, "motion_blur", 2, 0)
    edits.clear(clicked)
    answer(clicked)
    assert "Click an object" in clicked.missing_to_restore()
    with pytest.raises(PromptError, match="Click an object"):
        inputs.begin_restoring(clicked)
    click(clicked, *CENTRE)
    answer(clicked)
    assert show.show(clicked).restore["interactive"] is True
    assert "Press Restore" in restored_html(clicked)
    assert DegradedSession().missing_to_restore().startswith("Drop a bad picture")


def test_the_blur_is_undone_by_three_priors(blurred):
    notices = restore(blurred)
    assert [one.name for one in blurred.restored.results] == [
        "degraded",
        "none",
        "sam",
        "robustsam",
    ]
    before, *after = (one.quality for one in blurred.restored.results)
    assert all(one.psnr > before.psnr + 2 and one.ssim > before.ssim for one in after)
    assert all(one.subject_psnr > before.subject_psnr + 2 for one in after)
    np.testing.assert_array_equal(blurred.restored.results[0].image, blurred.picture.image)
    expected = priors.measure_quality(
        blurred.restored.results[2].image,
        blurred.clear.loaded.image,
        priors.around(blurred.clear_answer[1]),
    )
    assert after[1] == expected
    assert notices[0].text.startswith("Deblurring: picture 1 of 3") and notices[0].kind == "busy"
    assert "RobustSAM's +" in blurred.notice.text and blurred.panel == "restored"
    html = restored_html(blurred)
    shown = [f"{one.subject_psnr:.2f}" for one in after]
    assert html.count("<figure>") == 4
    assert html.count('class="best"') == shown.count(max(shown, key=float)), "as it is shown"
    assert f"{after[2].psnr:.2f} dB" in html and f"{after[2].subject_ssim:.3f}" in html
    assert "clear original:" in html


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("handheld in the dark", "original under the same low light:"),
        ("blurred and compressed", "original:"),
    ],
)
def test_a_blur_in_a_combination_is_undone(clicked, name, told):
    inputs.set_choice(clicked, name, 3, 1)
    answer(clicked)
    restore(clicked)
    assert len(clicked.restored.results) == 4 and clicked.notice.kind == "ready"
    assert told in restored_html(clicked)


def test_a_restored_picture_goes_with_what_it_was_made_by(blurred):
    restore(blurred)
    inputs.set_panel(blurred, "restored")
    assert blurred.restored is not None, "another view changes nothing"
    click(blurred, 20, 20)
    answer(blurred)
    assert blurred.restored is None and blurred.sheet == ()
    restore(blurred)
    assert blurred.restored is not None
    inputs.new_seed(blurred)
    assert blurred.restored is None
    answer(blurred)
    restore(blurred)
    inputs.set_options(blurred, "off", 0.5)
    assert blurred.restored is None


def test_prompts_that_change_meanwhile_void_the_restored_picture(blurred):
    inputs.begin_restoring(blurred)
    job = work.restore(blurred)
    next(job)
    click(blurred, 20, 20)
    list(job)
    assert blurred.restored is None and "other prompts" in blurred.notice.text


def test_restoring_can_be_cancelled(blurred):
    inputs.begin_restoring(blurred)
    job = work.restore(blurred)
    next(job)
    edits.cancel(blurred)
    list(job)
    assert blurred.restored is None and blurred.notice.text.startswith("Stopped after")


def test_an_uploaded_mask_says_where_the_subject_is(blurred, tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(square_mask()).save(path)
    inputs.upload_truth(blurred, str(path))
    answer(blurred)
    restore(blurred)
    one = blurred.restored.results[1]
    near = priors.around(square_mask())
    assert one.quality == priors.measure_quality(one.image, blurred.clear.loaded.image, near)


def test_restored_pictures_are_downloaded_with_their_qualities(blurred):
    assert not any("restored" in Path(path).name for path in write_files(blurred))
    restore(blurred)
    paths = [Path(path) for path in write_files(blurred)]
    names = ("none", "sam", "robustsam")
    written = [next(p for p in paths if p.name.endswith(f"restored_{n}.png")) for n in names]
    for path, one in zip(written, blurred.restored.results[1:], strict=True):
        np.testing.assert_array_equal(read(path), one.image)
    with zipfile.ZipFile(paths[0]) as archive:
        assert {path.name for path in written} <= set(archive.namelist())
    told = json.loads(next(p for p in paths if p.suffix == ".json").read_text())
    assert told["restored"]["robustsam"]["psnr"] == blurred.restored.results[3].quality.psnr


def test_options_reach_both_models(clicked):
    inputs.set_options(clicked, "off", -0.5)
    answer(clicked)
    for one in (clicked.comparison.sam, clicked.comparison.robust):
        assert one.segmentation.parameters["threshold"] == -0.5
        assert one.low_res_logits.shape[1] == 1


def test_a_model_without_a_robust_twin_is_named(clicked):
    list(refresh(clicked, "mobile_sam"))
    assert "There is no RobustSAM for MobileSAM" in clicked.notice.text
    assert isinstance(clicked.comparison, object)


def test_downloads_hold_both_answers(clicked):
    paths = [Path(path) for path in write_files(clicked)]
    assert paths[0].suffix == ".zip" and all(path.is_file() for path in paths)
    told = json.loads(next(p for p in paths if p.suffix == ".json").read_text())
    assert told["degradation"]["name"] == "rain" and told["degradation"]["seed"] == 5
    assert told["iou"]["robustsam"] == pytest.approx(clicked.ious[1])
    picture = next(path for path in paths if path.name.endswith("picture.png"))
    np.testing.assert_array_equal(read(picture), clicked.picture.image)
    assert "restored" not in told


def test_every_panel_draws(clicked):
    for panel in ("picture", "slider", "four", "all", "restored"):
        inputs.set_panel(clicked, panel)
        clicked.on_canvas = None
        shown = show.show(clicked)
        visible = {
            "picture": shown.canvas,
            "slider": shown.compare,
            "four": shown.four,
            "all": shown.sheet,
            "restored": shown.restored,
        }
        assert visible[panel]["visible"] is True
        others = [one for name, one in visible.items() if name != panel]
        assert all(one["visible"] is False for one in others)
    assert "IoU" in four_html(clicked)
    clicked.drawing = replace(clicked.drawing, background="transparent", overlay=False)
    assert show.show_compare(clicked)["visible"] is False
    inputs.set_panel(clicked, "slider")
    assert len(show.show_compare(clicked)["value"]) == 2


def test_examples_come_with_their_degradation(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    session = DegradedSession()
    name, one = next(iter(examples.degraded_examples().items()))
    inputs.use_example(session, one.path, one.choice)
    assert session.choice == one.choice and session.degraded.parameters
    assert f'data-name="{name}"' in examples.gallery_html()
    with pytest.raises(ImageError, match="not here any more"):
        examples.example("nobody.jpg")
    session.close()
    assert session.picture is None and session.clear is None


def test_tiny_pictures_answer_or_say_why(session, tmp_path):
    for size in ((1, 1), (2, 300)):
        path = tmp_path / "tiny.png"
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
        inputs.read_upload(session, str(path))
        inputs.set_choice(session, "snow", 5, 1)
        edits.click(session, 1, 1, "foreground")
        answer(session)
        assert session.comparison is not None or session.notice.text
        assert "Reference" not in session.notice.text


def test_wrong_models_are_named():
    from apps.suite.models import resolve, robust_model

    assert resolve("embedded", "robustsam") == "robustsam_embedded"
    assert robust_model("sam_vit_h") == "robustsam_vit_h"
    with pytest.raises(ModelUnavailable, match="sam_embedded is no model for this task"):
        resolve("sam_embedded", "robustsam")
    with pytest.raises(ModelUnavailable, match="There is no RobustSAM for MobileSAM"):
        robust_model("mobile_sam")
