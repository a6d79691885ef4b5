"""Words as prompts in the Segment tab: what is read, found, said and recorded."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from apps.suite import models
from apps.suite.examples import FOLDER
from apps.suite.segment import answers, edits
from apps.suite.segment.drawing import build_result, score_kind_of
from apps.suite.segment.markup import objects_html
from apps.suite.segment.session import SegmentSession
from apps.suite.segment.words import find_words
from core.car import ranking, serving
from core.results import Dropped, Segmentation

PICTURE = FOLDER / "text" / "farm.jpg"


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A visitor who has uploaded one of the suite's scenes."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    copy = tmp_path / "farm.jpg"
    copy.write_bytes(PICTURE.read_bytes())
    session = SegmentSession()
    session.model = models.default_model()
    edits.read_upload(session, str(copy))
    answers.read_picture(session)
    yield session
    session.close()


@pytest.fixture
def found(session):
    """What a search answers with: one mask of a cow; no tractor."""

    def answer(labels=("cow",), method="sam_text"):
        masks = np.zeros((len(labels), *session.picture.size), bool)
        masks[:, 10:60, 20:90] = True
        return Segmentation(
            method=method,
            model="sam_embedded" if method == "sam_text" else "clip_embedded",
            model_set="embedded",
            size=session.picture.size,
            masks=masks,
            labels=labels,
            scores=np.full(len(labels), 0.75, np.float32),
            score_kind="clip_similarity",
            dropped=(Dropped("tractor", 0.31, "no mask"), Dropped("<b>cat", 0.4, "no mask")),
            seconds={"predict": 0.5, "total": 1.0},
        )

    return answer


def run(session, *asked, begin=True):
    if begin:
        edits.begin_job(session)
    return list(find_words(session, *asked, *[None] * len(answers.EVERYTHING_FIELDS)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "There is no query; type at least one word"),
        (None, "There is no query; type at least one word"),
        (" , ,", "There is no query; type at least one word"),
        (",".join(f"w{k}" for k in range(200)), "There are 200 queries; the limit is 100"),
        ("x" * 500, "has 500 characters; the limit is 100, so shorten it"),
    ],
)
def test_words_that_cannot_be_looked_for_are_explained_and_change_nothing(session, text, said):
    before = session.scene
    run(session, text, "masks")
    assert said in session.notice.text and session.scene is before


def test_an_unknown_way_is_refused(session):
    run(session, "cow", "magic")
    assert "There is no way 'magic' to look; use masks or car." in session.notice.text


@pytest.mark.parametrize("way", ["masks", "car"])
def test_each_word_becomes_a_named_object(session, found, monkeypatch, way):
    method = "sam_text" if way == "masks" else "car"

    by_car = SimpleNamespace(result=SimpleNamespace(segmentation=found(method=method)))
    asked = []
    monkeypatch.setattr(
        ranking, "search_masks", lambda *values, **_: asked.append(values) or found()
    )
    monkeypatch.setattr(serving, "find_words", lambda *values, **_: asked.append(values) or by_car)
    notices = run(session, "cow, tractor", way)
    assert all(notice.kind == "busy" for notice in notices)
    assert asked[0][3].queries == ("cow", "tractor") and asked[0][2] is session.picture.image
    (cow,) = session.scene.instances
    assert (cow.label, cow.score_kind) == ("cow", "clip_similarity")
    assert session.notice.kind == "ready"
    assert session.notice.text.startswith("1 mask in 1.0 s: “cow”.")
    assert "Not here: “<b>cat” (0.40), “tractor” (0.31)." in session.notice.text
    result = build_result(session, session.scene)
    assert (result.method, result.score_kind) == (method, "clip_similarity")
    assert result.model == ("sam_embedded" if way == "masks" else "clip_embedded")
    assert result.parameters["words"] == [{"id": 1, "word": "cow", "clip_similarity": 0.75}]
    assert ">CLIP</th>" in objects_html(session.scene)


def test_clicks_go_on_beside_words_with_scores_of_their_own(session, found, monkeypatch):
    monkeypatch.setattr(ranking, "search_masks", lambda *_, **__: found())
    run(session, "cow", "masks")
    edits.click(session, *session.picture.view.to_shown([(256, 256)])[0], "foreground")
    answers.answer_prompts(session)
    cow, clicked = session.scene.instances
    assert score_kind_of([cow, clicked]) == "predicted_iou"
    result = build_result(session, session.scene)
    assert np.isnan(result.scores[0]) and result.scores[1] == pytest.approx(clicked.score)
    assert result.parameters["words"][0]["clip_similarity"] == 0.75
    assert ">Score</th>" in objects_html(session.scene)
    edits.undo(session)
    assert len(session.scene.instances) == 1


def test_nothing_found_is_an_answer_and_what_was_there_stays(session, found, monkeypatch):
    monkeypatch.setattr(ranking, "search_masks", lambda *_, **__: found(()))
    before = session.scene
    run(session, "tractor", "masks")
    assert session.notice.text == ("None of the words is here: “<b>cat” (0.40), “tractor” (0.31).")
    assert session.notice.kind == "hint" and not session.notice.action
    assert session.scene is before
