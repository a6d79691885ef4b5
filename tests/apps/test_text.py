"""The Text query tab's handlers with the embedded models, without a server."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.suite.components import READY, prepare_files
from apps.suite.segment import edits
from apps.suite.text import drawing, examples, inputs, show, wiring, work
from apps.suite.text.downloads import write_files
from apps.suite.text.markup import answers_html, background_html, maps_html, steps_html, words_html
from apps.suite.text.session import Asked, TextSession
from apps.suite.text.words import add_lines, merge, tidy
from core.car.choices import CLIPS, DEFAULT_PRESETS, word_lists
from core.car.config import CarConfig
from core.errors import ImageError, NothingFound, PromptError
from core.models.catalogue import catalogue
from core.settings import Settings, settings

WORDS = ("cow", "pig", "tractor")
OWN_BACKGROUND = CarConfig.embedded().background_queries
DEFAULT = Asked.of("embedded", "embedded")
# Every word stays, whatever the weights make of it; no word stays.
KEEP = DEFAULT._replace(theta=0.0, presence_on=False)
DROP = DEFAULT._replace(presence=1.0, presence_on=True)
MARKUP = "<img src=x onerror=alert(1)>${x}"


@pytest.fixture
def session(monkeypatch, tmp_path):
    """A visitor who has uploaded a scene and typed three words."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "server"))
    session = TextSession()
    path = tmp_path / "farm.png"
    Image.open(examples.FOLDER / "farm.jpg").resize((256, 256)).save(path)
    inputs.read_upload(session, str(path))
    for word in WORDS:
        do(session, "add-words", list="words", value=word)
    yield session
    session.close()


def do(session, name: str, **data) -> None:
    inputs.edit(session, {"do": name, **data})


def find(session, asked: Asked = KEEP, *, anyway: bool = False):
    inputs.begin(session)
    return list(work.find(session, asked, anyway=anyway))


# --- the list of words ----------------------------------------------------------------------------


def test_lines_become_words_and_commas_stay():
    added = add_lines(("cat",), "person with clothes,people,human\n\n  hot   dog \r\n강아지 🐶\n")
    words = ("cat", "person with clothes,people,human", "hot dog", "강아지 🐶")
    assert (added.words, added.returned, added.text) == (words, "", "")


def test_two_hundred_words_are_refused_with_the_limit_and_come_back():
    text = "\n".join(f"word {k}" for k in range(200))
    added = add_lines(("cat",), text)
    assert added.words == ("cat",) and added.returned == text
    assert "201 words; the limit is 100" in added.text and "take out 101" in added.text
    assert len(add_lines((), "\n".join(text.splitlines()[:100])).words) == 100


def test_a_very_long_word_comes_back_and_the_others_are_taken():
    long = "x" * 5000
    added = add_lines((), f"cat\n{long}\ndog")
    assert added.words == ("cat", "dog") and added.returned == long
    assert "5000 characters; the limit is 100" in added.text and len(added.text) < 200


def test_repeated_words_are_said_and_kept_once():
    added = add_lines(("cat", "hot dog"), "CAT")
    assert added.words == ("cat", "hot dog") and "“CAT” is in the list already" in added.text
    added = add_lines(("cat",), "cat\ndog\nＤＯＧ")
    assert added.words == ("cat", "dog") and "2 words were in the list already" in added.text
    assert merge(["a", "A", "b"]) == ("a", "b")


@pytest.mark.parametrize("line", ["", "  \t", "\x00\x07", "\u200b\u200d", "\u202e "])
def test_what_cannot_be_seen_is_no_word(line):
    assert tidy(line) == "" and add_lines((), line).words == ()


@pytest.mark.parametrize("line", ["猫", "كلب", "👩‍🚒", "e\u0301te\u0301", "\U0001f3f4", "C++ {x}"])
def test_any_script_and_emoji_are_words(line):
    assert add_lines((), line).words == (line,)


def test_limits_are_those_of_the_settings():
    limits = Settings(max_queries=2, max_query_chars=3)
    assert add_lines((), "abc\nabcd", limits).returned == "abcd"
    assert "the limit is 2" in add_lines((), "a\nb\nc", limits).text


# --- chips and lists ------------------------------------------------------------------------------


def test_chips_are_added_removed_and_put_back(session):
    assert session.words == WORDS and words_html(session).count('class="word"') == 3
    do(session, "remove-word", list="words", word="pig")
    assert session.words == ("cow", "tractor")
    do(session, "clear-words", list="words")
    assert session.words == () and session.notice.action == "words-back"
    do(session, "words-back")
    assert session.words == ("cow", "tractor")
    inputs.use_list(session, "animals")
    assert session.words == word_lists("embedded")["animals"].words
    assert "2 words were replaced" in show.status_of(session)
    do(session, "words-back")
    assert session.words == ("cow", "tractor")
    inputs.use_list(session, "")
    assert session.words == ("cow", "tractor")


def test_refused_text_goes_back_into_its_field_once(session):
    do(session, "add-words", list="words", value=f"{'y' * 300}\n{MARKUP}")
    assert session.words[-1] == MARKUP and session.notice.kind == "warning"
    first = words_html(session)
    assert f'data-text="{"y" * 300}"' in first and 'data-back="1"' in first
    assert "<img" not in first and "${" not in first and "&lt;img" in first
    do(session, "add-words", list="background", value="z" * 300)
    assert 'data-back="2"' in background_html(session) and 'data-back="1"' in words_html(session)


def test_background_words_are_edited_and_reset(session):
    do(session, "add-words", list="background", value="kitchen, table\nsnow")
    assert session.background == (*OWN_BACKGROUND, "kitchen, table", "snow")
    do(session, "remove-word", list="background", word="sky")
    assert "sky" not in session.background
    find(session)
    assert session.found.result.config.background_queries == session.background
    do(session, "clear-words", list="background")
    assert session.background == ()
    do(session, "reset-words")
    assert session.background == OWN_BACKGROUND


def test_what_is_wrong_is_said(session):
    for action, sentence in (
        (lambda: do(session, "hack"), "not known here"),
        (lambda: do(session, "add-words", list="x", value="y"), "cannot be read; reload"),
        (lambda: do(session, "add-words", list="words", value="a" * 200_000), "200000 characters"),
        (lambda: inputs.use_list(session, "nouns"), "no list 'nouns'; use one of mixed"),
        (lambda: inputs.set_mode(session, "x"), "no mode 'x'; use one of words, phrases"),
        (lambda: inputs.set_panel(session, "x"), "no view 'x'; use one of result"),
        (lambda: examples.example("../x"), "not here any more"),
    ):
        with pytest.raises((PromptError, ImageError), match=sentence):
            action()
    for action in (
        lambda: do(session, "step", index=0),
        lambda: do(session, "map", index=0),
        lambda: inputs.set_pair(session, "crf"),
        lambda: write_files(session),
    ):
        with pytest.raises(NothingFound, match="Nothing was looked for yet"):
            action()
    find(session)
    with pytest.raises(PromptError, match="reload"):
        do(session, "step", index="first")
    with pytest.raises(PromptError, match="no pair 'sam'"):
        inputs.set_pair(session, "sam")


def test_without_a_picture():
    session = TextSession()
    for action in (lambda: inputs.begin(session), lambda: inputs.set_panel(session, "maps")):
        with pytest.raises(PromptError, match="Drop a picture"):
            action()
    do(session, "add-words", list="words", value="dog")  # words can be written before
    assert session.words == ("dog",) and "Drop a picture" in show.status_of(session)
    assert list(work.find(session, KEEP)) == []


# --- looking --------------------------------------------------------------------------------------


def test_the_words_are_found_and_told(session):
    notices = find(session)
    assert {notice.kind for notice in notices} == {"busy"}
    assert "Step 1: 3 of 3 words" in " ".join(notice.text for notice in notices)
    found = session.found
    assert (
        session.notice.kind == "ready" and f"Found {len(found.words)} of 3" in session.notice.text
    )
    assert session.waiting is None and {"encode", "predict"} == session.seconds.keys()
    table = answers_html(session)
    assert "CLIP similarity" in table and all(word.label in table for word in found.words)
    shown = show.show(session)
    assert shown.prepare["interactive"] and not shown.cancel["interactive"]
    assert Path(shown.canvas["value"]).is_file() and "Found: " in shown.canvas["alt_text"]


def test_no_word_is_said_and_nothing_is_lost(session):
    do(session, "clear-words", list="words")
    find(session)
    assert session.notice.kind == "warning" and "There is no word yet" in session.notice.text
    assert session.found is None and session.waiting is None
    do(session, "words-back")
    assert session.words == WORDS


def test_none_of_the_words_in_the_picture(session):
    find(session, DROP)
    found = session.found
    assert found.words == () and session.notice.kind == "hint"
    assert session.notice.text.startswith("All words were dropped. Best: “")
    assert "against the background words" in session.notice.text
    assert session.notice.action == "anyway"
    table = answers_html(session)
    assert table.count("<s>") == 3 and "not in this picture" in table and "Found" not in table
    np.testing.assert_array_equal(drawing.draw_result(session), session.picture.view.image)
    for panel in ("result", "steps", "maps", "compare"):
        inputs.set_panel(session, panel)
        assert show.show(session) is not None
    find(session, DROP, anyway=True)
    assert session.notice.kind == "ready"


def test_one_word_alone_can_be_dropped(session):
    do(session, "clear-words", list="words")
    do(session, "add-words", list="words", value="小狗 🐶")
    find(session, DROP)
    assert session.notice.text.startswith("The word was dropped. Best: “小狗 🐶” ")
    assert "never learned “小狗 🐶”" in answers_html(session)


def test_without_the_presence_check_the_best_word_stays(session):
    find(session, DEFAULT._replace(theta=1.0, presence_on=False))
    assert len(session.found.result.steps[-1].kept) == 1
    assert "other words fit better" in answers_html(session)


def test_a_picture_no_larger_than_a_dot(session, tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    inputs.read_upload(session, str(tmp_path / "dot.png"))
    assert session.words == WORDS
    find(session)
    assert session.found is not None and session.found.whole().segmentation.size == (1, 1)


def test_phrases_each_by_itself(session):
    inputs.set_mode(session, "phrases")
    assert "Phrases to look for" in words_html(session)
    find(session)
    assert session.found.result.segmentation.method == "car_refer"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eta": None}, "A threshold is empty"),
        ({"theta": 1.5}, "confidence_threshold is 1.5; it must be 0 to 1"),
        ({"iom": -1}, "iom_threshold is -1"),
        ({"prompts": ["glow"]}, "visual_prompts has glow"),
        ({"preset": "imagenet"}, "There is no preset 'imagenet'"),
    ],
)
def test_settings_out_of_range_leave_everything_as_it_was(session, changes, sentence):
    find(session)
    before = session.found
    find(session, KEEP._replace(**changes))
    assert sentence in session.notice.text and session.notice.kind == "warning"
    assert session.found is before and session.words == WORDS


def test_every_setting_reaches_the_method(session):
    asked = KEEP._replace(
        preset="coco",
        eta=0.3,
        theta=0.1,
        box=0.2,
        presence_on=True,
        presence=0.07,
        prompts=["black"],
        recurrence=False,
        refine=False,
        crf=False,
        iom=0.2,
        iou=0.3,
    )
    config = inputs.read_config(asked, ("sky",), "embedded")
    told = (config.mask_threshold, config.confidence_threshold, config.box_threshold)
    assert told == (0.3, 0.1, 0.2) and config.presence_threshold == 0.07
    assert config.visual_prompts == ("black",) and config.background_queries == ("sky",)
    assert not (config.recurrence or config.refine or config.use_crf)
    assert (config.sam.iom_threshold, config.sam.iou_threshold) == (0.2, 0.3)
    assert inputs.read_config(asked._replace(preset="refcoco"), (), "full").templates == ()


def test_a_cancelled_search_keeps_the_answer_before(session):
    find(session)
    before = session.found
    inputs.begin(session)
    job = work.find(session, KEEP)
    edits.cancel(session)
    list(job)
    assert session.found is before and session.waiting is None
    assert session.notice.kind == "hint"


def test_another_picture_stops_the_search_for_the_first(session, tmp_path):
    inputs.begin(session)
    job = work.find(session, KEEP)
    next(job)
    inputs.read_upload(session, str(tmp_path / "farm.png"))
    list(job)
    assert session.found is None and "Press Find" in show.status_of(session)


def test_find_pressed_twice_looks_once(session):
    inputs.begin(session)
    inputs.begin(session)
    list(work.find(session, KEEP))
    first = session.found
    assert first is not None
    assert list(work.find(session, KEEP)) == [] and session.found is first


def test_changed_words_keep_the_answer_and_say_to_press_find(session):
    find(session)
    before = session.found
    do(session, "remove-word", list="words", word="cow")
    session.notice = READY
    assert session.found is before and "The words have changed" in show.status_of(session)


def test_examples_have_their_words_and_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert len(examples.text_examples()) >= 6
    for name, one in examples.text_examples().items():
        session = TextSession()
        inputs.use_example(session, examples.example(name))
        assert session.words == one.words and session.mode == one.mode
        assert session.waiting is not None and one.path.stat().st_size < 60_000
        session.close()
    assert examples.gallery_html().count("<button") == len(examples.text_examples())


# --- what is shown --------------------------------------------------------------------------------


def test_every_step_is_played_with_what_was_dropped(session):
    find(session, DEFAULT._replace(theta=0.3, presence_on=False))
    steps = session.found.result.steps
    inputs.set_panel(session, "steps")
    for index, step in enumerate(steps):
        do(session, "step", index=index)
        html = steps_html(session)
        assert f"Step {index + 1} of {len(steps)}" in html
        assert html.count("<figure") == len(step.live)
        assert html.count('class="step-card') == len(steps)
        dropped = sum(reason is not None for one in steps for reason in one.reasons)
        assert html.count('class="gone"') == dropped
    do(session, "step", index=99)
    assert session.step == len(steps) - 1
    do(session, "step", index=-5)
    assert session.step == 0


def test_maps_of_any_word_also_of_a_dropped_one(session):
    find(session, DROP)
    inputs.set_panel(session, "maps")
    for word, name in enumerate(WORDS):
        do(session, "map", index=word)
        html = maps_html(session)
        assert html.count("<figure") == 4 and f"<s>{name}</s>" in html
    assert "Step 1 of 1" in html


def test_maps_are_kept_small_and_close(session):
    find(session)
    found = session.found
    kept = found.result.steps[0]
    assert kept.maps.dtype == np.float16 and found.step(0).maps.dtype == np.float32
    assert len(found.result.segmentation) == 0  # masks are kept as patches
    whole = found.whole()
    np.testing.assert_array_equal(whole.segmentation.masks[0], found.words[0].mask.full())
    assert whole.segmentation.numbers == tuple(word.number for word in found.words)


def test_before_and_after_the_crf_and_sam(session):
    asked = KEEP._replace(sam=True, iom=0.3, iou=0.0)
    find(session, asked)
    assert set(session.found.before) == {"crf", "sam"}
    inputs.set_panel(session, "compare")
    pictures = {}
    for pair in ("picture", "crf", "sam"):
        inputs.set_pair(session, pair)
        pictures[pair] = drawing.draw_pair(session)
        assert show.show_pair(session)["value"] == pair and show.show_pair(session)["visible"]
    np.testing.assert_array_equal(pictures["picture"][0], session.picture.view.image)
    np.testing.assert_array_equal(pictures["picture"][1], pictures["sam"][1])
    np.testing.assert_array_equal(pictures["crf"][1], pictures["sam"][0])
    find(session, KEEP._replace(crf=False))
    assert session.found.before == {} and session.pair == "picture"


def test_drawing_never_asks_the_model(session, monkeypatch):
    find(session)
    monkeypatch.setattr("core.car.serving.find_words", None)
    plain = drawing.draw_result(session)
    edits.set_drawing(session, opacity=1.0)
    assert (drawing.draw_result(session) != plain).any()
    edits.set_drawing(session, overlay=False)
    np.testing.assert_array_equal(drawing.draw_result(session), session.picture.view.image)
    edits.set_drawing(session, overlay=True, background="transparent")
    assert drawing.draw_result(session).shape[2] == 4


def test_words_with_markup_are_shown_as_characters(session):
    do(session, "add-words", list="words", value=MARKUP)
    find(session, DROP)
    inputs.set_panel(session, "steps")
    do(session, "map", index=len(WORDS))
    for html in (
        words_html(session),
        answers_html(session),
        steps_html(session),
        maps_html(session),
        show.status_of(session),
    ):
        assert "<img" not in html.replace('<img src="data:', "") and "${" not in html
    find(session)
    assert "<img" not in answers_html(session) and "${" not in answers_html(session)


def test_many_words_are_shown_up_to_a_limit(session):
    inputs.use_list(session, "food")
    find(session)
    assert len(session.words) > drawing.MOST_CARDS
    html = steps_html(session)
    assert html.count("<figure") == drawing.MOST_CARDS and "more words, listed above" in html


# --- files, models --------------------------------------------------------------------------------


def test_downloads(session):
    find(session)
    paths = [Path(path) for path in write_files(session)]
    assert paths[0].suffix == ".zip" and all(path.is_file() for path in paths)
    told = json.loads(next(path for path in paths if path.name.endswith("_text.json")).read_text())
    assert told["steps"] and told["parameters"]["queries"] == list(WORDS)
    assert [one["label"] for one in told["instances"]] == [one.label for one in session.found.words]
    assert len(zipfile.ZipFile(paths[0]).namelist()) == len(paths)
    files, _ = prepare_files(session, write_files, show.status_of)
    assert files["visible"] and len(files["value"]) == len(paths)


def test_nothing_found_can_be_downloaded_with_its_scores(session):
    find(session, DROP)
    paths = [Path(path) for path in write_files(session)]
    told = json.loads(next(path for path in paths if path.name.endswith("_text.json")).read_text())
    assert told["instances"] == [] and len(told["dropped"]) == 3


def test_the_clips_of_the_set_in_use_are_asked():
    session = TextSession()
    for entry in catalogue().values():
        if entry.method == "sam":
            session.use_models(entry.id)
            assert (session.model, session.sam) == (CLIPS[entry.set][0], entry.id)
            assert session.model_set == entry.set
    for model_set, preset in DEFAULT_PRESETS.items():
        assert preset in [name for _, name in wiring.preset_choices(model_set)]
        assert wiring.list_choices(model_set)[0] == ("Choose a list", "")
        assert all(len(one.words) <= settings.max_queries for one in word_lists(model_set).values())


def test_another_set_of_models_brings_its_lists_and_presets():
    session = TextSession()
    lists, preset, *fields = wiring.use_set(session, "sam_vit_b")
    assert preset["value"] == "voc" and lists["value"] == ""
    assert ("COCO, 80 names", "coco") in lists["choices"]
    inputs.use_list(session, "coco")
    assert len(session.words) == 80 and "person with clothes,people,human" in session.words
    assert tuple(fields[:-1]) == tuple(Asked.of("voc", "full"))[1:]
    assert session.background == CarConfig().background_queries
    assert wiring.use_preset(session, "coco")[:-1] == tuple(Asked.of("coco", "full"))[1:]


def test_background_words_follow_the_preset_until_they_are_edited(session):
    assert session.background == OWN_BACKGROUND
    find(session)
    assert session.found.result.config.background_queries == OWN_BACKGROUND
    assert "railroad" in wiring.use_preset(session, "voc")[-1]
    do(session, "remove-word", list="background", word="railroad")
    wiring.use_preset(session, "embedded")
    assert "railroad" not in session.background and "river" in session.background


def test_leaving_forgets_the_answer(session):
    find(session)
    session.close()
    assert session.found is None and session.picture is None
