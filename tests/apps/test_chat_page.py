"""The chat tab in a real browser, against a real server whose PixelLM is scripted."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import pytest

from tests.apps.chat_server import MARKUP, serve_chat
from tests.apps.conftest import Studio

BOX = "#chat_question textarea"
SAID = "#chat_log .said"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """The server and its script."""
    with serve_chat(tmp_path_factory.mktemp("chat")) as served:
        yield served


@pytest.fixture(scope="module")
def page_of_module(browser, chat) -> Iterator[Studio]:
    """One page for all tests of this module."""
    studio = Studio(browser, chat[0], tab="chat")
    yield studio
    faults = (studio.outside, studio.faults, studio.dialogs)
    studio.close()
    assert faults == ([], [], [])


@pytest.fixture
def studio(page_of_module) -> Studio:
    """The page with an example and nothing said."""
    page = page_of_module.page
    page.set_viewport_size({"width": 1280, "height": 900})
    page.click("#chat_example_1")
    page_of_module.wait("ready: Picture read in")
    page.fill(BOX, "")
    return page_of_module


def ask(studio: Studio, text: str, count: int, wait: str = "Answered in") -> None:
    """Type a question, send it by Enter, and wait for the answer of that number."""
    studio.page.fill(BOX, text)
    studio.page.press(BOX, "Enter")
    wait_said(studio, count)
    studio.wait(wait)


def wait_said(studio: Studio, count: int) -> None:
    studio.page.wait_for_function(
        "([said, count]) => document.querySelectorAll(said).length === count", arg=[SAID, count]
    )


def source(studio: Studio) -> str:
    return studio.page.locator("#chat_canvas .image-frame img").get_attribute("src")


def wait_other_picture(studio: Studio, before: str) -> str:
    studio.page.wait_for_function(
        "before => document.querySelector('#chat_canvas .image-frame img').src !== before",
        arg=before,
    )
    return source(studio)


def test_a_conversation_by_suggestion_and_by_keyboard(studio):
    page = studio.page
    count = page.locator(".suggestions button").count()
    page.click(".suggestions button >> nth=0")
    wait_said(studio, 1)
    assert page.locator(".suggestions button").count() == count - 1
    page.fill(BOX, "I am")
    page.press(BOX, "Shift+Enter")
    page.keyboard.type("hungry.")
    assert page.input_value(BOX) == "I am\nhungry."
    page.press(BOX, "Enter")
    wait_said(studio, 2)
    page.wait_for_function(f"document.querySelector('{BOX}').value === ''")
    assert page.locator(".asked").all_inner_texts()[1].endswith("I am hungry.")
    phrases = page.locator(f"{SAID} .phrase")
    assert phrases.all_inner_texts() == ["the alarm clock1", "the red apple2", "the knife3"]
    assert phrases.nth(1).get_attribute("aria-label").startswith("the red apple: mask 2, ")
    colours = phrases.evaluate_all("all => all.map((one) => getComputedStyle(one).boxShadow)")
    assert len(set(colours)) == 3


def test_phrases_show_their_masks_by_pointer_click_and_keyboard(studio):
    page = studio.page
    ask(studio, "I am hungry.", 1)
    first, second = (page.locator(f"{SAID} .phrase").nth(k) for k in (0, 1))
    everything = source(studio)
    first.hover()
    alone = wait_other_picture(studio, everything)
    page.mouse.move(5, 5)
    everything = wait_other_picture(studio, alone)
    second.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".phrase[aria-pressed=true] >> text=the knife")
    assert page.evaluate("document.activeElement.innerText").startswith("the knife")
    alone = wait_other_picture(studio, everything)
    assert "Masks: 2, " in page.locator("#chat_canvas img").first.get_attribute("alt")
    page.keyboard.press("Escape")
    page.wait_for_selector(".phrase[aria-pressed=true]", state="detached")
    wait_other_picture(studio, alone)
    before = source(studio)
    page.locator("#chat_overlay input").uncheck()
    wait_other_picture(studio, before)
    page.locator("#chat_overlay input").check()
    ask(studio, "Which of these can fly?", 2)
    page.click("[data-do=turn]")
    page.wait_for_selector(".said.chosen >> nth=0")
    assert page.locator(".said.chosen").count() == 1


def test_an_answer_is_stopped_and_one_question_goes_at_a_time(studio):
    page = studio.page
    page.fill(BOX, "a long story")
    page.press(BOX, "Enter")
    page.wait_for_selector("#chat_live .phrase")
    shown = page.locator("#chat_live .answer").inner_text()
    page.wait_for_function(
        "length => document.querySelector('#chat_live .answer').innerText.length > length",
        arg=len(shown),
    )
    page.fill(BOX, "and now?")
    page.press(BOX, "Enter")
    studio.wait("wait for it, or press Stop")
    assert page.input_value(BOX) == "and now?"
    page.press(BOX, "Escape")
    studio.wait("hint: Stopped; what was said so far is kept.")
    assert "The answer was stopped at token" in page.locator(SAID).inner_text()
    ask(studio, "I am hungry.", 2)
    assert page.locator(f"{SAID} .phrase b").all_inner_texts() == ["1", "2", "3"]


def test_what_is_refused_stays_in_the_box_and_markup_is_text(studio, chat):
    page = studio.page
    page.press(BOX, "Enter")
    studio.wait("warning: There is no question")
    long = "x" * 10_000
    page.fill(BOX, long)
    page.click("#chat_run")
    studio.wait("warning: The question has 10000 characters; the limit is 1000")
    assert page.input_value(BOX) == long
    ask(studio, f"markup {MARKUP} [SEG0]", 1)
    said = page.locator(SAID).inner_text()
    assert MARKUP in said and "only the model may write" in said
    assert page.locator("#chat_side img").count() == 0
    assert "[SEG0]" not in chat[1].asked[-1]


def test_clear_put_back_new_picture_and_downloads(studio, square_picture):
    page = studio.page
    ask(studio, "I am hungry.", 1)
    page.click("#chat_forget")
    wait_said(studio, 0)
    page.click("#chat_status button")
    wait_said(studio, 1)
    page.click("#chat_prepare")
    page.wait_for_selector("#chat_files a")
    links = page.eval_on_selector_all("#chat_files a", "all => all.map((a) => a.href)")
    archive = next(link for link in links if link.endswith(".zip"))
    names = zipfile.ZipFile(io.BytesIO(studio.context.request.get(archive).body())).namelist()
    assert sum("_mask_" in name for name in names) == 2
    told = next(link for link in links if link.endswith("_conversation.json"))
    record = json.loads(studio.context.request.get(told).body())
    assert record["turns"][0]["instances"][0]["rle"]["size"] == [512, 512]
    page.click("#chat_new_picture")
    page.wait_for_selector("#chat_canvas .image-frame img", state="detached")
    studio.wait("hint: Drop a picture into the frame")
    page.set_input_files("#chat_canvas input[type=file]", str(square_picture))
    studio.wait("ready: Picture read in")
    assert page.locator(".suggestions button").count() == 4


def test_two_visitors_at_once(studio, browser, chat):
    phone = {"width": 360, "height": 740}
    other = Studio(browser, chat[0], "?__theme=dark", tab="chat", viewport=phone)
    other.page.click("#chat_example_2")
    other.wait("ready: Picture read in")
    studio.page.fill(BOX, "a long story")
    studio.page.press(BOX, "Enter")
    studio.page.wait_for_selector("#chat_live .phrase")
    other.page.fill(BOX, "I am hungry.")
    other.page.press(BOX, "Enter")
    other.wait("busy: Waiting for the model")
    studio.page.click("#chat_cancel")
    studio.wait("hint: Stopped")
    other.wait("ready: Answered in")
    assert other.page.locator(f"{SAID} .phrase b").all_inner_texts() == ["1", "2"]
    assert "alarm" not in other.page.locator("#chat_log").inner_text()
    order = ["canvas", "status", "scroll", "box"]
    tops = [other.page.locator(other.part(one)).bounding_box()["y"] for one in order]
    assert tops == sorted(tops)
    assert (
        min(
            one.bounding_box()["height"]
            for one in other.page.locator("#chat_side button:not(.phrase)").all()
        )
        >= 44
    )
    for one in (studio, other):
        for width in (360, 768):
            one.page.set_viewport_size({"width": width, "height": 800})
            inner, scroll = one.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
            assert scroll <= inner
    assert (other.outside, other.faults, other.dialogs) == ([], [], [])
    other.close()
