"""The Text query tab in a real browser, against the real server."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

FIELD = "#text_words_input"
CHIPS = "#text_words .word"
PASTE = """([field, text]) => {
  const target = document.querySelector(field);
  target.focus();
  const clipboardData = new DataTransfer();
  clipboardData.setData("text", text);
  target.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
  document.execCommand("insertText", false, text);
}"""


@pytest.fixture
def studio(open_studio):
    return open_studio(tab="text")


def chips(studio, count: int) -> list[str]:
    """The words, once there are so many."""
    studio.page.wait_for_function(
        "([chips, count]) => document.querySelectorAll(chips).length === count",
        arg=[CHIPS, count],
    )
    return studio.page.locator(CHIPS).all_inner_texts()


def field_is(studio, text: str) -> None:
    """Wait until the field holds a text."""
    studio.page.wait_for_function(
        "([field, text]) => document.querySelector(field).value === text", arg=[FIELD, text]
    )


def type_words(studio, *words: str) -> None:
    studio.page.locator(FIELD).focus()
    for word in words:
        studio.page.keyboard.type(word)
        studio.page.keyboard.press("Enter")


def keep_all(studio, theta: str = "0") -> None:
    """Set the thresholds so that what stays does not hang on the weights."""
    studio.open_parameters()
    studio.page.locator("#text_presence_on input").uncheck()
    studio.page.locator("#text_theta input[type=number]").fill(theta)
    studio.page.keyboard.press("Tab")


def show_panel(studio, place: int, wait_for: str) -> None:
    studio.page.locator("#text_panel label").nth(place).click()
    studio.page.wait_for_selector(wait_for)


def test_words_are_typed_pasted_and_removed(studio):
    page = studio.page
    type_words(studio, "dog, small", "강아지 🐶")
    assert chips(studio, 2) == ["dog, small", "강아지 🐶"]
    field_is(studio, "")
    assert page.evaluate("document.activeElement.id") == FIELD[1:]
    page.evaluate(PASTE, [FIELD, "red car\nbus\ntrain"])
    assert chips(studio, 5)[2:] == ["red car", "bus", "train"]
    page.click("#text_words [data-word=bus]")
    assert "bus" not in chips(studio, 4)
    page.keyboard.type("walk")  # typed, and left without Enter
    page.locator(FIELD).fill("ship")
    page.locator("#text_run").focus()
    assert chips(studio, 5)[-1] == "ship"


def test_chips_by_keyboard(studio):
    page = studio.page
    type_words(studio, "cow", "pig", "owl")
    chips(studio, 3)
    page.keyboard.press("Backspace")
    assert page.evaluate("document.activeElement.dataset.word") == "owl"
    page.keyboard.press("Enter")
    assert chips(studio, 2) == ["cow", "pig"]
    page.wait_for_function(f"document.activeElement === document.querySelector('{FIELD}')")
    page.locator("#text_words [data-word=cow]").focus()
    page.keyboard.press("Space")
    assert chips(studio, 1) == ["pig"]
    page.wait_for_function("document.activeElement.dataset.word === 'pig'")


def test_what_is_refused_stays_in_the_field(studio):
    page = studio.page
    many = "\n".join(f"word {k}" for k in range(200))
    page.evaluate(PASTE, [FIELD, many])
    studio.wait("warning: That would be 200 words; the limit is 100")
    field_is(studio, many)
    page.locator(FIELD).fill("x" * 500)
    page.locator(FIELD).press("Enter")
    studio.wait("warning: The word", "has 500 characters; the limit is 100")
    field_is(studio, "x" * 500)
    page.locator(FIELD).fill("<img src=x onerror=alert(1)>")
    page.locator(FIELD).press("Enter")
    assert chips(studio, 1) == ["<img src=x onerror=alert(1)>"]


def test_lists_replace_words_which_can_be_put_back(studio):
    page = studio.page
    type_words(studio, "my own word")
    chips(studio, 1)
    page.click("#text_list input")
    page.get_by_role("option", name="Vehicles").click()
    studio.wait("hint: 1 word was replaced")
    assert page.locator(CHIPS).count() > 5
    page.click("#text_status button")
    assert chips(studio, 1) == ["my own word"]
    page.click("#text_preset input")
    page.get_by_role("option", name="COCO Object").click()
    studio.open_parameters()
    page.wait_for_function(
        "document.querySelector('#text_theta input[type=number]')?.value === '0.3'"
    )


def test_an_example_is_looked_for_and_played_step_by_step(studio):
    page = studio.page
    keep_all(studio, "0.1")
    page.click("#text_example_1")
    studio.wait("ready: Found", "step")
    assert page.locator("#text_answers tbody tr").count() >= 1
    show_panel(studio, 1, "#text_steps .strip")
    count = page.locator(".step-card").count()
    assert page.locator(".playback b").inner_text() == f"Step 1 of {count}"
    assert (
        page.locator("#text_steps figure").count() == page.locator(".step-card.chosen li").count()
    )
    if count > 1:
        page.click("[data-play]")
        assert page.locator("[data-play]").inner_text() == "Pause"
        page.wait_for_function(
            "count => document.querySelector('.playback b').innerText === "
            "`Step ${count} of ${count}`",
            arg=count,
        )
        page.wait_for_function("document.querySelector('[data-play]').innerText === 'Play'")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(
            "count => document.querySelector('.playback b').innerText === "
            "`Step ${count - 1} of ${count}`",
            arg=count,
        )
    show_panel(studio, 2, "#text_maps figure")
    assert page.locator("#text_maps figure").count() == 4
    page.click("#text_maps [data-do=map] >> nth=1")
    page.wait_for_selector("#text_maps [data-do=map][aria-pressed=true] >> nth=0")
    show_panel(studio, 3, "#text_compare img")
    assert page.locator("#text_pair label").count() >= 1


def test_nothing_found_can_be_shown_anyway(studio):
    page = studio.page
    studio.open_parameters()
    page.locator("#text_presence input[type=number]").fill("1")
    page.keyboard.press("Tab")
    page.click("#text_example_2")
    studio.wait("hint: All words were dropped. Best:")
    assert page.locator("#text_answers s").count() == page.locator(CHIPS).count()
    page.click("#text_status button")
    studio.wait("ready: Found")


def test_a_picture_of_ones_own_by_ctrl_enter(studio, square_picture):
    page = studio.page
    studio.upload(square_picture, wait="There is no word yet")
    keep_all(studio)
    page.locator(FIELD).focus()
    page.keyboard.type("orange square")
    page.keyboard.press("Control+Enter")
    studio.wait("ready: Found 1 of 1")
    assert "orange square" in page.locator("#text_answers").inner_text()
    before = page.locator("#text_canvas .image-frame img").get_attribute("src")
    page.locator("#text_overlay input").uncheck()
    page.wait_for_function(
        "before => document.querySelector('#text_canvas .image-frame img').src !== before",
        arg=before,
    )


def test_a_search_is_cancelled(studio):
    page = studio.page
    type_words(studio, *[f"word {k}" for k in range(3)])
    chips(studio, 3)
    page.evaluate(PASTE, [FIELD, "\n".join(f"thing {k}" for k in range(90))])
    chips(studio, 93)
    page.set_input_files("#text_canvas input[type=file]", "assets/examples/cat.jpg")
    studio.wait("ready: Press Find")
    keep_all(studio)
    page.click("#text_run")
    page.wait_for_selector("#text_cancel:not([disabled])")
    page.click("#text_cancel")
    studio.wait("hint: ")
    page.wait_for_selector("#text_cancel[disabled]")
    assert len(chips(studio, 93)) == 93


def test_downloads(studio):
    page = studio.page
    keep_all(studio)
    page.click("#text_example_3")
    studio.wait("ready: Found")
    page.click("#text_prepare")
    page.wait_for_selector("#text_files a")
    links = page.eval_on_selector_all("#text_files a", "all => all.map((a) => a.href)")
    archive = next(link for link in links if link.endswith(".zip"))
    names = zipfile.ZipFile(io.BytesIO(studio.context.request.get(archive).body())).namelist()
    assert "parameters.json" in names
    told = next(link for link in links if link.endswith("_text.json"))
    record = json.loads(studio.context.request.get(told).body())
    assert record["steps"] and len(record["instances"]) >= 1


def test_what_is_missing_or_wrong_is_said(studio, tmp_path, square_picture):
    page = studio.page
    page.click("#text_run")
    studio.wait("warning: Drop a picture into the frame")
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    page.set_input_files("#text_canvas input[type=file]", str(path))
    studio.wait("warning: The file is not a picture")


def test_no_play_where_motion_is_unwanted(open_studio):
    studio = open_studio(tab="text", reduced_motion="reduce")
    keep_all(studio, "0.1")
    studio.page.click("#text_example_1")
    studio.wait("ready: Found")
    show_panel(studio, 1, "#text_steps .strip")
    assert not studio.page.locator("[data-play]").is_visible()
    assert studio.page.locator("#text_next").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_without_scrolling_sideways(open_studio, scheme):
    studio = open_studio(tab="text", color_scheme=scheme, reduced_motion="reduce")
    page = studio.page
    type_words(studio, "w" * 100)
    chips(studio, 1)
    keep_all(studio)
    page.click("#text_example_4")
    studio.wait("ready: Found")
    for panel in ("result", "steps", "maps", "compare"):
        page.locator(f"#text_panel input[value={panel}]").check(force=True)
        for width, height in ((360, 740), (390, 844), (768, 1024), (1280, 720)):
            page.set_viewport_size({"width": width, "height": height})
            inner, scroll = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
            assert scroll <= inner, (panel, width)
