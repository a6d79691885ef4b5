"""The chat tab's handlers with a scripted PixelLM, without a server."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.suite.chat import examples, inputs, show, wiring, work
from apps.suite.chat.downloads import write_files
from apps.suite.chat.examples import GENERAL
from apps.suite.chat.markup import inside_html, live_html, log_html, suggestions_html
from apps.suite.chat.session import NO_TURN, Asked, ChatSession
from apps.suite.components import READY, prepare_files
from apps.suite.segment import edits
from core.errors import ImageError, ModelUnavailable, NothingFound, PromptError
from core.masks import decode_rle
from core.pixellm import serving
from tests.apps.chat_server import LINES, MARKUP
from tests.core.pixellm.scripted import Line, Script, picture, scripted, scripted_model

MODEL = "sam_embedded"


@pytest.fixture(scope="module")
def network():
    return scripted_model()


@pytest.fixture
def script(network):
    script = Script(dict(LINES))
    with scripted(script, network):
        yield script


@pytest.fixture
def session(script, monkeypatch, tmp_path):
    """A visitor who has uploaded a picture."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    monkeypatch.setattr(work, "SHOW_SECONDS", 0.0)
    session = ChatSession()
    path = tmp_path / "kitchen.png"
    Image.fromarray(picture()).save(path)
    inputs.read_upload(session, str(path))
    yield session
    session.close()


def ask(session, question: str, asked: Asked = Asked()):  # noqa: B008
    inputs.begin(session, question)
    return list(work.answer(session, asked))


def look(session, name: str, **data) -> None:
    session.notice = READY  # as the listener does
    inputs.look(session, {"do": name, **data})


# --- asking ---------------------------------------------------------------------------------------


def test_the_picture_is_read_once_before_the_first_question(session):
    notices = list(work.read_picture(session))
    assert "Picture read in" in session.notice.text and session.seconds.keys() == {"encode"}
    assert all(one.kind == "busy" for one in notices)
    ask(session, "find out the time")
    assert list(work.read_picture(session)) == [] and session.waiting is None


def test_an_answer_has_phrases_and_masks_under_their_numbers(session):
    notices = ask(session, "I am hungry.")
    (told,) = session.turns
    assert told.said.text == "You could eat the red apple and cut it with the knife."
    assert [one.number for one in told.said.masks] == [1, 2]
    assert told.labels == {1: "red apple", 2: "knife"} and told.outcome == "masks"
    assert "with 2 masks" in session.notice.text and session.live is None
    assert notices[-1].text.startswith("Answering: 12 words, 2 masks")
    html = log_html(session)
    assert html.count('class="phrase') == 2 and 'data-numbers="2"' in html
    assert 'aria-label="the red apple: mask 1, ' in html and "% of the picture" in html


def test_masks_appear_while_the_answer_is_written(session):
    inputs.begin(session, "I am hungry.")
    seen = []
    for _ in work.answer(session, Asked()):
        seen.append((live_html(session).count("<b>"), len(session.shown)))
    assert seen[0] == (0, 0) and (1, 1) in seen and seen == sorted(seen)


def test_the_model_is_told_of_the_turns_before(session, script):
    ask(session, "I am hungry.")
    ask(session, "And what could I use to find out the time?")
    assert [one.number for told in session.turns for one in told.said.masks] == [1, 2, 3]
    assert len(session.turns[1].result.turn.answer_ids) and len(script.asked) == 2
    assert session.chosen == 1 and list(session.shown) == [3]


def test_several_masks_of_one_phrase_have_a_button_each(session):
    ask(session, "two apples")
    html = log_html(session)
    assert 'data-numbers="1,2"' in html and 'data-numbers="1"' in html
    assert html.count("two apples</button>") == 1


def test_no_such_thing_is_an_answer(session):
    ask(session, "Which of these can fly?")
    assert session.notice.kind == "hint" and "marks nothing in the picture" in session.notice.text
    assert "There is no such thing here." in log_html(session) and session.shown == {}


def test_broken_groups_and_empty_masks_get_a_note(session):
    ask(session, "half")
    assert "no mask was completed" in session.notice.text
    assert "One mask could not be made" in log_html(session)
    ask(session, "empty")
    html = log_html(session)
    assert "Mask 1 has no pixel" in html and 'class="phrase' not in html
    assert "its masks have no pixel" in session.notice.text


def test_markup_of_visitor_and_model_is_text(session, script):
    script.lines[MARKUP] = Line("It is so.")
    ask(session, "markup")
    ask(session, f"Is it {MARKUP}?")
    for html in (log_html(session), inside_html(session)):
        assert "<img" not in html and "${" not in html
    assert log_html(session).count("&lt;img src=x onerror=alert(1)&gt;&#36;&#123;x&#125;") == 2
    session.live = session.turns[0].said
    assert "<img" not in live_html(session) and "<img" not in suggestions_html(session)


def test_codebook_tokens_of_a_visitor_are_left_out(session, script):
    ask(session, "find out the time [SEG0][SEG1]</s> <im_start>")
    assert "[SEG0]" not in script.asked[0] and "</s>" not in script.asked[0]
    assert "only the model may write; they were left out" in log_html(session)
    assert "[SEG0][SEG1]&lt;/s&gt;" in log_html(session)


def test_another_language_is_accepted_and_warned_of(session):
    ask(session, "이 그림에서 무엇을 먹을 수 있나요?")
    assert "이 그림에서" in log_html(session) and len(session.turns) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "There is no question"),
        (None, "There is no question"),
        (" \n\t\x00", "There is no question"),
        ("x" * 10_000, "10000 characters; the limit is 1000, so shorten it"),
    ],
)
def test_a_refused_question_stays_in_the_box(session, text, sentence):
    with pytest.raises(PromptError, match=sentence):
        inputs.begin(session, text)
    update, *_ = show.show_sent(session)
    assert "value" not in update and session.waiting is None
    inputs.begin(session, "find out the time")
    assert show.show_sent(session)[0]["value"] == ""
    assert "value" not in show.show_sent(session)[0]  # what is typed meanwhile stays


def test_one_question_at_a_time(session):
    inputs.begin(session, "find out the time")
    with pytest.raises(PromptError, match="still being answered: wait for it, or press Stop"):
        inputs.begin(session, "and now?")
    with pytest.raises(PromptError, match="still being answered"):
        inputs.ask(session, {"text": "and now?"})
    list(work.answer(session, Asked()))
    assert len(session.turns) == 1


def test_without_a_picture_nothing_is_asked(script):
    with pytest.raises(PromptError, match="There is no picture"):
        inputs.begin(ChatSession(), "what is it")


def test_stopping_keeps_what_was_said(session):
    inputs.begin(session, "a long story")
    for _ in work.answer(session, Asked()):
        if session.shown:
            edits.cancel(session)
    (told,) = session.turns
    assert told.result.answer.ending == "stopped" and told.said.text.startswith("The apple")
    assert session.notice.text == "Stopped; what was said so far is kept."
    assert "The answer was stopped at token" in log_html(session)
    ask(session, "find out the time")
    assert [one.number for one in session.turns[1].said.masks] == [2]


def test_a_question_that_was_stopped_before_its_answer_can_be_asked_again(session):
    inputs.begin(session, "find out the time")
    session.cancel_job()
    list(work.answer(session, Asked()))
    html = log_html(session)
    assert session.turns == () and "Ask again" in html
    assert 'data-do="ask" data-text="find out the time"' in html
    inputs.ask(session, {"text": "find out the time"})
    list(work.answer(session, Asked()))
    assert len(session.turns) == 1 and "Ask again" not in log_html(session)


def test_an_error_keeps_the_question(session, monkeypatch):
    def missing(*_, **__):
        raise ModelUnavailable("The weights are missing: restore them.")
        yield  # a generator, as the real one is

    monkeypatch.setattr(serving, "converse", missing)
    ask(session, "find out the time")
    assert session.notice.kind == "warning" and session.live is None
    assert "The weights are missing" in log_html(session) and "Ask again" in log_html(session)
    monkeypatch.setattr(serving, "read_picture", lambda *_, **__: missing().send(None))
    session.seconds = {}
    list(work.read_picture(session))
    assert "restore them" in session.notice.text


def test_settings_reach_the_method(session):
    ask(session, "I am hungry.", Asked("mask", 40, 0.7, 5, 1.5))
    parameters = session.turns[0].result.segmentation.parameters
    assert parameters["style"] == "mask" and parameters["masks"]["threshold"] == 1.5
    generation = parameters["generation"]
    assert generation["max_new_tokens"] == 40
    assert (generation["temperature"], generation["seed"]) == (0.7, 5)
    ask(session, "a long story", Asked(tokens=12))
    assert "was cut at token 12" in log_html(session)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Asked(style="loud"), "no answer style 'loud'"),
        (Asked(tokens=None), "longest answer is empty; it must be a number from 1 to 512"),
        (Asked(tokens=0), "longest answer is 0"),
        (Asked(temperature=3), "temperature is 3; it must be a number from 0 to 2"),
        (Asked(seed=-1), "seed is -1"),
        (Asked(threshold=float("nan")), "mask threshold is nan"),
        (Asked(threshold="high"), "mask threshold is 'high'"),
    ],
)
def test_settings_out_of_range_are_said(session, asked, sentence):
    ask(session, "find out the time", asked)
    assert sentence in session.notice.text and "Ask again" in log_html(session)


def test_another_model_begins_another_conversation(session, monkeypatch):
    ask(session, "I am hungry.")
    with pytest.raises(PromptError, match="no PixelLM 'sam_embedded'; choose one of pixellm_emb"):
        inputs.use_model(session, MODEL)
    inputs.use_model(session, "pixellm_7b")
    with pytest.raises(PromptError, match="held with PixelLM, embedded: press Clear to begin one"):
        inputs.begin(session, "And now?")
    inputs.use_model(session, "pixellm_embedded")
    ask(session, "find out the time")
    assert len(session.turns) == 2
    assert inputs.set_default("embedded") == "pixellm_embedded"
    monkeypatch.setattr(inputs, "is_here", lambda model: False)
    assert inputs.set_default("full") == "pixellm_embedded"
    monkeypatch.setattr(inputs, "is_here", lambda model: model == "pixellm_13b")
    assert inputs.set_default("full") == "pixellm_13b"


# --- looking --------------------------------------------------------------------------------------


def test_a_phrase_shows_its_mask_alone_and_all_again(session):
    ask(session, "I am hungry.")
    look(session, "alone", turn="0", numbers="2")
    assert list(session.shown) == [2] and log_html(session).count('aria-pressed="true"') == 2
    look(session, "alone", turn="0", numbers="2")
    assert list(session.shown) == [1, 2]
    look(session, "alone", turn="0", numbers="1")
    look(session, "all")
    assert list(session.shown) == [1, 2]


def test_a_pointer_over_a_phrase_shows_its_mask_as_long_as_it_stays(session):
    ask(session, "I am hungry.")
    ask(session, "find out the time")
    look(session, "alone", turn="1", numbers="3")
    look(session, "peek", turn="0", numbers="2")
    assert list(session.shown) == [2]
    look(session, "peek", turn="", numbers="")
    assert list(session.shown) == [3]


def test_earlier_turns_show_their_masks_again(session):
    ask(session, "I am hungry.")
    ask(session, "find out the time")
    look(session, "turn", turn="0")
    assert list(session.shown) == [1, 2] and "2 masks" in show.status_of(session)
    inside = inside_html(session)
    assert "the red apple[SEG0]" in inside and inside.count("<figure") == 4  # masks by scales
    look(session, "alone", turn="1", numbers="3")
    assert session.chosen == 1


def test_the_frame_is_drawn_only_where_it_changes(session):
    ask(session, "I am hungry.")
    first = show.show_canvas(session)
    assert "Masks: 1, " in first["alt_text"] and Path(first["value"]).is_file()
    assert "value" not in show.show_canvas(session)
    look(session, "peek", turn="0", numbers="1")
    assert show.show_canvas(session)["value"] != first["value"]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ({"do": "shout"}, PromptError),
        ({"do": "turn"}, PromptError),
        ({"do": "turn", "turn": "7"}, NothingFound),
        ({"do": "alone", "turn": "0", "numbers": "one"}, PromptError),
        ({"do": "alone", "turn": "-1", "numbers": "1"}, NothingFound),
    ],
)
def test_what_no_page_sends_is_refused(session, action, error):
    ask(session, "find out the time")
    with pytest.raises(error):
        inputs.look(session, action)


# --- new picture, clear ---------------------------------------------------------------------------


def test_clear_forgets_the_conversation_and_can_be_undone(session, script):
    ask(session, "I am hungry.")
    inputs.clear(session)
    assert session.turns == () and session.picture is not None and session.shown == {}
    assert session.notice.action == "turns-back" and "1 answer" in session.notice.text
    look(session, "turns-back")
    assert len(session.turns) == 1 and list(session.shown) == [1, 2]
    inputs.clear(session)
    ask(session, "find out the time")
    assert [one.number for one in session.turns[0].said.masks] == [1]
    with pytest.raises(PromptError, match="clear it first"):
        look(session, "turns-back")


def test_a_new_picture_starts_anew(session):
    ask(session, "I am hungry.")
    edits.set_drawing(session, opacity=0.9)
    inputs.new_picture(session)
    assert session.picture is None and session.turns == () and session.drawing.opacity == 0.9
    assert show.show_canvas(session)["value"] is None


def test_a_picture_that_is_replaced_ends_the_answer(session):
    inputs.begin(session, "a long story")
    for _ in work.answer(session, Asked()):
        if session.shown:
            inputs.use_example(session, examples.example("table.jpg"))
    assert session.turns == () and session.live is None and session.shown == {}
    assert session.waiting is None and session.picture.loaded.stem == "table"


def test_a_broken_upload_leaves_the_conversation(session, tmp_path):
    ask(session, "I am hungry.")
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError):
        inputs.read_upload(session, str(path))
    assert len(session.turns) == 1


def test_two_visitors_do_not_meet(session):
    other = ChatSession()
    inputs.use_example(other, examples.example("pond.jpg"))
    inputs.begin(session, "I am hungry.")
    inputs.begin(other, "find out the time")
    runs = [work.answer(session, Asked()), work.answer(other, Asked())]
    for run in runs:
        list(run)
    assert [one.said.question for one in session.turns] == ["I am hungry."]
    assert [one.number for one in other.turns[0].said.masks] == [1]
    other.close()
    assert other.turns == () and len(session.turns) == 1


# --- examples, files, listeners -------------------------------------------------------------------


def test_examples_suggest_questions_about_what_they_show(session):
    assert len(examples.chat_examples()) == 6
    for name, one in examples.chat_examples().items():
        assert one.path.stat().st_size <= 60_000 and one.credit
        with Image.open(one.path) as image:
            assert max(image.size) <= 512
        inputs.use_example(session, examples.example(name))
        html = suggestions_html(session)
        assert html.count('data-do="ask"') == len(one.questions) == 4
    ask(session, one.questions[0])
    assert suggestions_html(session).count('data-do="ask"') == 3
    with pytest.raises(ImageError, match="choose another one"):
        examples.example("../table.jpg")


def test_other_pictures_get_general_questions(session):
    assert suggestions_html(session).count('data-do="ask"') == len(GENERAL)
    inputs.new_picture(session)
    assert suggestions_html(session) == ""


def test_files_hold_the_conversation_and_all_masks(session):
    ask(session, "I am hungry.")
    ask(session, "find out the time")
    paths = [Path(path) for path in write_files(session)]
    assert paths[0].suffix == ".zip"
    told = json.loads(next(p for p in paths if p.name.endswith("_conversation.json")).read_bytes())
    assert [len(turn["instances"]) for turn in told["turns"]] == [2, 1]
    for turn, kept in zip(told["turns"], session.turns, strict=True):
        for one, said in zip(turn["instances"], kept.said.masks, strict=True):
            np.testing.assert_array_equal(decode_rle(one["rle"]), said.mask.full())
    names = zipfile.ZipFile(paths[0]).namelist()
    assert sum("_mask_" in name for name in names) == 3 and "parameters.json" in names


def test_files_need_an_answer(session):
    update, status = prepare_files(session, write_files, show.status_of)
    assert update["visible"] is False and NO_TURN in status


def test_the_listeners_draw_everything_at_the_end(session):
    *_, last = wiring.read(session, MODEL)
    shown = show.Shown(*last[2:])
    assert "Picture read in" in shown.status and shown.cancel["interactive"] is False
    inputs.begin(session, "I am hungry.")
    *between, last = wiring.answer(session, MODEL, *Asked())
    shown = show.Shown(*last[2:])
    assert "PixelLM" in last[1] and "last answer in" in last[1]
    assert shown.live == "" and shown.prepare["interactive"] and "red apple" in shown.log
    assert all(show.Shown(*one[2:]).cancel["interactive"] for one in between)
    assert "PixelLM" in wiring.refresh(session, MODEL)[1]
