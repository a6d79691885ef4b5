"""The DreamBooth tab in a real browser, with a text-to-image model of some thousand weights."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator

import pytest

from tests.apps.conftest import Studio
from tests.apps.dreambooth_server import serve_dreambooth

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def dreambooth(tmp_path_factory):
    with serve_dreambooth(tmp_path_factory.mktemp("dreambooth")) as server:
        yield server


@pytest.fixture(scope="module")
def studio(browser, dreambooth) -> Iterator[Studio]:
    """One page for the tests of this module, which go on from one another."""
    studio = Studio(browser, dreambooth, tab="dreambooth", reduced_motion="reduce")
    yield studio
    faults = (studio.outside, studio.faults, studio.dialogs)
    studio.close()
    assert faults == ([], [], [])


def card_texts(studio: Studio) -> list[str]:
    return studio.page.locator(".card figcaption").all_inner_texts()


def test_two_pictures_only(studio, square_picture, turned_picture):
    assert "Drop 3 to 20 pictures" in studio.status
    for part in ("step2", "step3", "step4"):
        assert not studio.page.locator(studio.part(part)).is_visible()
    drop = f"{studio.part('drop')} input[type=file]"
    studio.page.set_input_files(drop, [str(square_picture), str(turned_picture)])
    studio.wait("hint: 2 pictures are too few to learn from: add one more")
    studio.page.wait_for_selector(".card >> nth=1")
    assert [text.split("\n")[0] for text in card_texts(studio)] == ["square", "turned"]


def test_an_example_is_found_accepted_and_trained(studio):
    page = studio.page
    page.click("#dreambooth_example_1")
    studio.wait("ready: Look at the masks: 4 of them wait")
    page.wait_for_selector("[data-do=accept-all]")
    assert sum("PerSAM-F" in text for text in card_texts(studio)) == 4
    page.click("[data-do=accept-all]")
    studio.wait("ready: Everything is ready", "It takes about")
    assert "Quick look · " in page.locator("#dreambooth_preset").inner_text()
    assert page.input_value("#dreambooth_class_noun input, #dreambooth_class_noun textarea")
    page.fill("#dreambooth_class_noun :is(input, textarea)", "")
    page.click("#dreambooth_train")
    studio.wait("warning: Say what kind of thing it is")
    page.fill("#dreambooth_class_noun :is(input, textarea)", MARKUP)
    page.click("#dreambooth_train")
    page.wait_for_selector("[data-training][data-state]")
    page.wait_for_function("location.search.includes('training=')")


def test_a_reload_finds_the_training_again(studio):
    page = studio.page
    training = page.get_attribute("[data-state]", "data-training")
    assert re.search(rf"training={training}$", page.url)
    page.reload()
    page.wait_for_selector(f'[data-training="{training}"][data-state]')
    studio.open_tab("dreambooth")  # in front already
    page.wait_for_selector("[data-state=finished]")
    studio.wait("ready: Learned: a sks <img")
    assert page.locator(".loss polyline").count() == 2
    assert page.locator("table.samples img").count() >= 1
    assert MARKUP in page.locator(".training-head").inner_text()


def test_before_and_after(studio, tmp_path):
    page = studio.page
    assert page.input_value("#dreambooth_prompt textarea") == f"a photo of a sks {MARKUP}"
    page.click("#dreambooth_suggestions button >> nth=1")
    assert page.input_value("#dreambooth_prompt textarea").endswith("on grass")
    page.fill("#dreambooth_seeds :is(input, textarea)", "3, 5")
    page.click("#dreambooth_run")
    studio.wait("ready: Drawn 2 pictures")
    assert page.locator(".pair img").count() == 4
    assert page.locator(".pair figcaption b").all_inner_texts() == ["seed 3", "seed 5"]
    assert page.locator("#dreambooth_gallery .thumbnail-item").count() == 2
    page.click("#dreambooth_prepare")
    link = page.wait_for_selector("#dreambooth_files a[href*='weights.zip']")
    with page.expect_download() as download:
        link.click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert "card.json" in names


def test_what_is_said_stays_in_sight_and_nothing_is_too_wide(studio):
    page = studio.page
    for width, height in ((1280, 720), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 300)")
        box = page.locator("#dreambooth_status").bounding_box()
        assert 0 <= box["y"] and box["y"] + box["height"] <= height
        inner, scroll = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner
    page.set_viewport_size({"width": 1280, "height": 900})


def test_others_do_not_see_it_and_the_same_browser_does(studio, browser, dreambooth):
    other = Studio(browser, dreambooth, tab="dreambooth")
    other.wait("Drop 3 to 20 pictures")
    assert other.page.locator("[data-do=open-saved]").count() == 0
    other.close()
    page = studio.context.new_page()
    page.goto(dreambooth.url)
    page.click("#tab_dreambooth-button")
    page.click("[data-do=open-saved]")
    page.wait_for_selector("#dreambooth_step4", state="visible")
    page.close()


def test_pictures_and_masks_come_from_personalize(studio):
    page = studio.page
    page.click("#tab_personalize-button")
    page.click("#personalize_example_1")
    page.wait_for_function(
        "document.querySelector('#personalize_status').innerText.includes('found in')"
    )
    page.click("#personalize_dreambooth")
    page.wait_for_selector("#dreambooth_cards .card >> nth=6")
    assert sum("PerSAM" in text for text in card_texts(studio)) == 6
