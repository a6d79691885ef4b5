"""The frame of the page in a real browser: start, looks, keys, visitors apart."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from apps.suite.tabs import TABS

SIZES = [(390, 844), (768, 1024), (1280, 720), (1920, 1080)]


def test_the_page_introduces_itself(open_studio):
    studio = open_studio()
    page = studio.page
    assert page.title() == "Segment Studio"
    assert page.get_by_role("tab").all_inner_texts() == [
        "Segment",
        "Personalize",
        "Degraded",
        "Text query",
        "Reasoning chat",
        "DreamBooth",
    ]
    assert "offline" in page.locator("#studio_title").inner_text()
    page.wait_for_function("document.querySelector('.device').innerText.includes('core')")
    assert page.locator(".example").count() >= 10
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_in_dark_and_light(open_studio, scheme):
    studio = open_studio(color_scheme=scheme, reduced_motion="reduce")
    studio.page.click("#example_1")
    studio.wait("Picture read in")
    dark = studio.page.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")
    for width, height in SIZES:
        studio.page.set_viewport_size({"width": width, "height": height})
        inner, scroll = studio.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner
        shot = Image.open(io.BytesIO(studio.page.screenshot(animations="disabled")))
        assert len(np.unique(np.asarray(shot.convert("RGB")).reshape(-1, 3), axis=0)) > 500
        ground = np.asarray(shot.convert("L"))[2:8, 2:8].mean()
        assert ground < 60 if dark else ground > 200


def test_on_a_phone_the_picture_comes_first(open_studio):
    studio = open_studio(viewport={"width": 390, "height": 844}, has_touch=True)
    studio.page.click("#example_1")
    studio.wait("Picture read in")
    order = ["#segment_canvas", "#segment_tool", "#segment_status", "#segment_actions"]
    tops = [studio.page.locator(one).bounding_box()["y"] for one in order]
    assert tops == sorted(tops)
    boxes = [label.bounding_box() for label in studio.page.locator("#segment_tool label").all()]
    assert len(boxes) == 6 and len({round(box["y"]) for box in boxes}) == 2  # rows
    assert min(box["height"] for box in boxes) >= 44


def test_presentation_mode(open_studio):
    studio = open_studio("?present=1", viewport={"width": 1280, "height": 720})
    page = studio.page
    assert not page.locator("#segment_drawing").is_visible()
    page.keyboard.press("1")
    studio.wait("Picture read in")
    assert page.locator("#segment_everything").is_visible()
    for part in ("#segment_everything", "#segment_canvas", "#segment_status"):
        box = page.locator(part).bounding_box()
        assert box["y"] + box["height"] <= 720
    page.keyboard.press("p")
    page.wait_for_selector("#segment_drawing", state="visible")


def test_the_list_of_keys(open_studio):
    studio = open_studio()
    page = studio.page
    page.keyboard.press("?")
    page.wait_for_selector("#studio_keys[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#studio_keys:not([open])", state="attached")
    targets = set(
        page.eval_on_selector_all(
            "#studio_keys [data-target]", "all => all.map((row) => row.dataset.target)"
        )
    )
    found = set()
    for tab in TABS:
        studio.open_tab(tab.name)
        found |= {one for one in targets if page.query_selector(one.replace("{tab}", tab.name))}
    later = {one for one in targets if one.endswith(("reading_1", "reading_2", "reading_3"))}
    assert targets - found == later | {"#{tab}_next", "#{tab}_previous"}


def test_keys_press_what_the_tab_in_front_has(open_studio):
    studio = open_studio()
    page = studio.page
    for key, tool in (("b", "background"), ("m", "paint")):
        page.keyboard.press(key)
        assert page.locator(f"#segment_tool [value={tool}]").is_checked()
    studio.open_tab("personalize")
    page.keyboard.press("x")
    assert page.locator("#personalize_tool [value=box]").is_checked()
    assert page.locator("#segment_tool [value=paint]").is_checked()
    page.keyboard.press("e")  # only the other tab has it
    page.keyboard.press("1")  # no readings yet
    page.keyboard.press("ArrowRight")  # no pictures yet; the tabs' own key, too
    assert page.locator("#personalize_tool [value=box]").is_checked()
    assert "There is no picture" in page.locator("#segment_status").inner_text()


def test_everything_on_the_page_has_a_name_and_can_be_reached(open_studio):
    studio = open_studio()
    studio.page.click("#example_1")
    studio.wait("Picture read in")
    nameless = studio.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")]
          .filter((one) => one.checkVisibility() && one.type !== "file")
          .filter((one) => !(one.innerText?.trim() || one.ariaLabel || one.title || one.alt
            || one.labels?.length || one.placeholder || one.closest("label")
            || one.getAttribute("aria-labelledby") || one.querySelector("[alt], title")))
          .map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    reached = set()
    studio.page.locator("#studio_theme").focus()
    for _ in range(60):
        studio.page.keyboard.press("Tab")
        reached.add(
            studio.page.evaluate(
                "document.activeElement.closest('[id^=segment_], [id^=example_]')?.id ?? ''"
            )
        )
    assert {"segment_tool", "segment_run", "segment_everything", "example_1"} <= reached
    assert {"segment_opacity", "segment_panel"} <= reached


def test_the_full_models_say_what_they_need(open_studio):
    studio = open_studio()
    page = studio.page
    page.locator("#studio_set input").click()
    page.get_by_role("option", name="Full").click()
    page.wait_for_function(
        "document.querySelector('#studio_notice').innerText.includes('not downloaded')"
    )
    notice = page.locator("#studio_notice").inner_text()
    assert "embedded model is in use" in notice
    assert "published" in page.locator("#studio_title").inner_text()
    page.click("#example_1")
    studio.wait("Picture read in")
    assert "SAM, embedded" in page.locator("#studio_device").inner_text()


def test_two_visitors_do_not_meet_and_leave_nothing(open_studio, server, square_picture):
    before = server.visits()
    first, second = open_studio(), open_studio()
    first.upload(square_picture)
    (folder,) = server.visits() - before
    assert second.page.locator("#segment_canvas .image-frame img").count() == 0
    second.page.click("#segment_run")
    second.wait("warning: There is no picture yet")
    second.page.click("#example_2")
    second.wait("Picture read in")
    sources = [
        studio.page.locator("#segment_canvas .image-frame img").get_attribute("src")
        for studio in (first, second)
    ]
    assert folder.name in sources[0] and folder.name not in sources[1]
    uploads = list(server.folder.glob("segment-studio-*/*/square.png"))
    assert uploads
    first.close()
    end = time.monotonic() + 20
    while (folder.exists() or any(path.exists() for path in uploads)) and time.monotonic() < end:
        second.page.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert not folder.exists()
    assert not any(path.exists() for path in uploads)
    second.click(0.5, 0.5)
    second.wait("ready: Mask in")
