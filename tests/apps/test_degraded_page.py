"""The Degraded tab in a real browser, against the real server."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from core.degradations import DEGRADATIONS


@pytest.fixture
def studio(open_studio):
    return open_studio(tab="degraded")


SHOWN = "#degraded_canvas .image-frame img"


def redrawn(studio, action) -> None:
    """Do something and wait until the page shows another picture."""
    before = studio.page.locator(SHOWN).get_attribute("src")
    action()
    studio.page.wait_for_function(
        "([shown, before]) => ![null, before].includes("
        "document.querySelector(shown)?.getAttribute('src') ?? null)",
        arg=[SHOWN, before],
    )


def choose(studio, title: str) -> None:
    """Choose a kind of degradation by its title."""

    def pick():
        studio.page.click("#degraded_name input")
        studio.page.get_by_role("option", name=title).click()

    redrawn(studio, pick)


def test_an_example_answers_a_click_by_both_models(studio):
    page = studio.page
    page.click("#degraded_example_1")
    studio.wait("Picture read in", "once for both models")
    assert page.locator("#degraded_name input").input_value() == "Weather · Fog"
    studio.click(0.5, 0.4)
    studio.wait("ready: Both answered", "RobustSAM")
    assert page.locator("#degraded_answers tbody tr").count() == 2
    page.locator("#degraded_panel label").nth(1).click()
    page.wait_for_selector("#degraded_compare img")
    page.locator("#degraded_panel label").nth(2).click()
    page.wait_for_selector("#degraded_four figure")
    captions = page.locator("#degraded_four figcaption").all_inner_texts()
    assert captions[:2] == ["Before", "Fog, severity 5"]
    assert captions[2].startswith("SAM · IoU") and captions[3].startswith("RobustSAM · IoU")


def test_another_kind_keeps_the_prompts(studio, square_picture):
    studio.upload(square_picture)
    studio.click(0.5, 0.5)
    studio.wait("ready: Both answered", "agree to")
    choose(studio, "Blur · Motion blur")
    studio.wait("ready: Both answered", "RobustSAM")
    redrawn(studio, lambda: studio.page.click("#degraded_new_seed"))
    studio.page.wait_for_function("document.querySelector('#degraded_seed input').value === '1'")
    studio.wait("ready: Both answered", "RobustSAM")


def test_the_sheet_fills_and_a_card_is_chosen(studio, square_picture):
    page = studio.page
    studio.upload(square_picture)
    studio.drag((0.36, 0.32), (0.64, 0.68))  # a click tool: nothing yet
    studio.page.locator("#degraded_tool [value=box]").check()
    studio.drag((0.36, 0.32), (0.64, 0.68))
    studio.wait("ready: Both answered")
    page.click("#degraded_find_all")
    studio.wait("ready: 15 pictures")
    assert page.locator(".degradation").count() == len(DEGRADATIONS)
    page.click(".degradation[data-kind=fog]")
    studio.wait("ready: Both answered", "RobustSAM")
    assert page.locator("#degraded_name input").input_value() == "Weather · Fog"
    page.click("#degraded_find_series")
    studio.wait("ready: 5 pictures")
    assert page.locator("#degraded_series polyline").count() == 2


def test_a_blur_is_undone_beside_its_figures(studio, square_picture):
    page = studio.page
    studio.upload(square_picture)
    page.locator("#degraded_panel label").nth(4).click()
    page.wait_for_selector("#degraded_restored .placeholder")
    assert "choose Motion blur" in page.locator("#degraded_restored").inner_text()
    assert page.locator("#degraded_restore").is_disabled()
    page.locator("#degraded_panel label").nth(0).click()
    page.wait_for_selector(SHOWN)
    choose(studio, "Blur · Motion blur")
    studio.wait("ready: Picture read in")
    studio.click(0.5, 0.5)
    studio.wait("ready: Both answered", "RobustSAM")
    page.click("#degraded_restore")
    studio.wait("ready: Around the subject", "RobustSAM's")
    page.wait_for_selector("#degraded_restored figure")
    captions = page.locator("#degraded_restored figcaption").all_inner_texts()
    titles = ["Blurred", "No mask", "SAM's mask", "RobustSAM's mask"]
    assert [text.splitlines()[0] for text in captions] == titles
    assert all(text.count(" dB") == 2 for text in captions)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        inner, scroll = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner
    page.locator("#degraded_panel label").nth(0).click()
    page.wait_for_selector(SHOWN)
    studio.click(0.1, 0.1)
    studio.wait("ready: Both answered")
    page.locator("#degraded_panel label").nth(4).click()
    page.wait_for_selector("#degraded_restored .placeholder")


def test_points_as_numbers_and_in_the_picture_are_the_same(studio, square_picture):
    studio.upload(square_picture)
    studio.open_points()
    studio.page.locator("#degraded_prompts [data-do=add-point]").click()
    studio.wait("ready: Both answered")
    field = studio.page.locator("#degraded_prompts [data-column=x]")
    assert float(field.input_value()) == 159.5
    field.fill("20")
    field.press("Enter")
    studio.page.wait_for_function(
        "document.querySelector('#degraded_prompts [data-column=x]').value === '20'"
    )


def test_downloads(studio, square_picture):
    page = studio.page
    studio.upload(square_picture)
    choose(studio, "Noise · Gaussian noise")
    studio.wait("ready: Picture read in")
    studio.click(0.5, 0.5)
    studio.wait("ready: Both answered", "RobustSAM")
    page.click("#degraded_prepare")
    page.wait_for_selector("#degraded_files a")
    links = page.eval_on_selector_all("#degraded_files a", "all => all.map((a) => a.href)")
    archive = next(link for link in links if link.endswith(".zip"))
    names = zipfile.ZipFile(io.BytesIO(studio.context.request.get(archive).body())).namelist()
    told = next(link for link in links if link.endswith("comparison.json"))
    record = json.loads(studio.context.request.get(told).body())
    assert record["degradation"]["name"] == "gauss_noise"
    assert any("_sam_" in name for name in names) and any("_robustsam_" in name for name in names)


def test_what_is_missing_or_wrong_is_said(studio, tmp_path):
    studio.page.click("#degraded_run")
    studio.wait("warning: There is no picture yet")
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    studio.page.set_input_files("#degraded_canvas input[type=file]", str(path))
    studio.wait("warning: The file is not a picture")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_without_scrolling_sideways(open_studio, square_picture, scheme):
    studio = open_studio(tab="degraded", color_scheme=scheme, reduced_motion="reduce")
    studio.upload(square_picture)
    studio.click(0.5, 0.5)
    studio.wait("ready: Both answered")
    for width, height in ((390, 844), (768, 1024), (1280, 720)):
        studio.page.set_viewport_size({"width": width, "height": height})
        inner, scroll = studio.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner
