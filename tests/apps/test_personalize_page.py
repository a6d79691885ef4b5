"""The Personalize tab in a real browser, against the real server."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.suite.personalize.examples import example_sets
from core.masks import iou

SETS = list(example_sets())
PICTURES = [name for name in SETS if not (example_sets()[name].folder / "clip.mp4").exists()]


@pytest.fixture
def studio(open_studio):
    return open_studio(tab="personalize")


def press_example(studio, name: str) -> None:
    studio.page.click(f"#personalize_example_{SETS.index(name) + 1}")


def gallery(studio) -> int:
    return studio.page.locator("#personalize_gallery img").count()


def choose_mask(studio, path: Path) -> None:
    with studio.page.expect_file_chooser() as chooser:
        studio.page.click("#personalize_mask")
    chooser.value.set_files(str(path))


def downloads(studio) -> dict[str, bytes]:
    """The files that "Prepare downloads" offers, by the end of their names."""
    studio.page.click("#personalize_prepare")
    studio.page.wait_for_selector("#personalize_files a")
    links = studio.page.eval_on_selector_all(
        "#personalize_files a", "all => all.map((a) => a.href)"
    )
    return {link.rsplit("Z_", 1)[-1]: studio.context.request.get(link).body() for link in links}


def test_one_press_shows_an_object_found_in_every_picture(studio):
    press_example(studio, PICTURES[0])
    studio.wait("ready: PerSAM: found in", "each.")
    assert gallery(studio) == 6
    page = studio.page
    page.wait_for_selector("#personalize_result img")
    assert page.locator("#personalize_answers tbody tr").count() == 1
    page.get_by_role("button", name="How it got there").click()
    page.wait_for_selector("#personalize_how_html .stage")
    assert page.locator("#personalize_how_html .stage").count() >= 6
    page.click("#personalize_next")
    page.wait_for_function("document.querySelector('#personalize_how_html .stage img').complete")
    archive = zipfile.ZipFile(io.BytesIO(downloads(studio)["all.zip"]))
    assert sum(name.endswith("overlay.png") for name in archive.namelist()) == 6


def test_own_pictures_by_click_and_upload(studio):
    one = example_sets()[PICTURES[1]]
    studio.upload(one.reference, wait="Click the object")
    mask = np.asarray(Image.open(one.mask))
    y, x = np.argwhere(mask).mean(axis=0)
    studio.click(x / mask.shape[1], y / mask.shape[0])
    studio.wait("Object learned")
    choose_mask(studio, one.mask)
    studio.page.wait_for_selector(f"#personalize_objects td[title*='{(mask > 0).sum()} px']")
    studio.page.set_input_files("#personalize_tests input[type=file]", one.files)
    studio.wait("ready: PerSAM: found in")
    assert gallery(studio) == len(one.files)
    (record,) = [
        json.loads(data) for name, data in downloads(studio).items() if name == "results.json"
    ]
    assert len(record) == len(one.files)


def test_a_point_as_numbers_marks_the_object(studio):
    one = example_sets()[PICTURES[0]]
    studio.upload(one.reference, wait="Click the object")
    studio.open_points()
    studio.page.locator("#personalize_prompts [data-do=add-point]").click()
    studio.wait("Object learned")
    assert (
        studio.page.locator("#personalize_prompts [data-do=edit-point][data-column=x]").count() == 1
    )


def test_painting_and_erasing(studio):
    one = example_sets()[PICTURES[0]]
    studio.upload(one.reference, wait="Click the object")
    page = studio.page
    page.keyboard.press("m")
    studio.drag((0.3, 0.3), (0.6, 0.3), (0.6, 0.6))
    page.wait_for_function(
        "document.querySelector('#personalize_objects td[title]')?.title.includes('px')"
    )
    area = "() => parseInt(document.querySelector('#personalize_objects td[title]').title)"
    painted = page.evaluate(area)
    page.keyboard.press("r")
    studio.drag((0.3, 0.3), (0.5, 0.3))
    page.wait_for_function(f"before => ({area})() < before", arg=painted)
    page.keyboard.press("u")
    page.wait_for_function(f"before => ({area})() === before", arg=painted)


def test_persam_f_shows_its_weights_and_the_comparison(studio):
    press_example(studio, PICTURES[0])
    studio.wait("ready: PerSAM: found in")
    page = studio.page
    page.locator("#personalize_variant label").nth(1).click()
    studio.wait("ready: PerSAM-F: found in")
    assert page.locator("#personalize_weights .bar-row").count() == 3
    assert "1000 steps" in page.locator("#personalize_weights").inner_text()
    page.locator("#personalize_panel label").nth(1).click()
    page.wait_for_selector("#personalize_compare img")
    page.locator("#personalize_panel label").nth(2).click()
    page.wait_for_selector("#personalize_similarity img")


def test_a_correction_click_changes_the_mask_and_is_taken_back(studio):
    press_example(studio, PICTURES[0])
    studio.wait("ready: PerSAM: found in")
    page = studio.page
    picture = page.locator("#personalize_result img")
    picture.wait_for()
    cell = "() => document.querySelector('#personalize_answers td[title]')?.title ?? ''"
    before = page.evaluate(cell)
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 2, "y": box["height"] * 0.1})
    page.wait_for_function(f"before => ({cell})() !== before", arg=before)
    page.click("#personalize_take_back")
    page.wait_for_function(f"before => ({cell})() === before", arg=before)


def test_a_clip_is_followed_and_downloaded(studio):
    press_example(studio, "clip")
    studio.wait("Clip of 24 frames")
    studio.page.click("#personalize_run")
    studio.wait("24 frames in")
    studio.page.wait_for_selector("#personalize_clip video")
    files = downloads(studio)
    names = zipfile.ZipFile(io.BytesIO(files["davis.zip"])).namelist()
    assert len(names) == 24 and names[0].endswith("00000.png")


def test_what_is_missing_is_said_and_nothing_is_lost(studio, tmp_path):
    page = studio.page
    page.click("#personalize_run")
    studio.wait("warning: There is no object yet")
    one = example_sets()[PICTURES[0]]
    studio.upload(one.reference, wait="Click the object")
    empty = tmp_path / "empty.png"
    Image.new("L", (64, 64)).save(empty)
    choose_mask(studio, empty)
    studio.wait("warning: The mask is empty; paint the object first.")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no picture")
    page.set_input_files("#personalize_tests input[type=file]", str(broken))
    studio.wait("warning: ", "broken")
    small = tmp_path / "small.png"
    Image.open(one.mask).resize((64, 64)).save(small)
    choose_mask(studio, small)
    studio.wait("resized from 64×64 to 256×256")
    page.wait_for_selector("#personalize_objects tbody tr")


def test_fifty_pictures_get_an_answer(studio, tmp_path):
    one = example_sets()[PICTURES[0]]
    press_example(studio, PICTURES[0])
    studio.wait("ready: PerSAM: found in")
    files = []
    for k in range(50):
        files.append(str(tmp_path / f"{k:02d}.jpg"))
        Path(files[-1]).write_bytes(Path(one.files[k % 6]).read_bytes())
    studio.page.set_input_files("#personalize_tests input[type=file]", files)
    studio.wait("There are 50 pictures; the first 20 are searched")
    studio.page.wait_for_function(
        "document.querySelectorAll('#personalize_gallery img').length === 20"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_without_scrolling_sideways(open_studio, scheme):
    studio = open_studio(tab="personalize", color_scheme=scheme, reduced_motion="reduce")
    press_example(studio, PICTURES[0])
    studio.wait("ready: PerSAM: found in")
    for width, height in ((390, 844), (1280, 720), (1920, 1080)):
        studio.page.set_viewport_size({"width": width, "height": height})
        inner, scroll = studio.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert scroll <= inner


def test_the_found_mask_is_the_engines(studio):
    """The whole way through the browser gives what the engine gives."""
    from core.engine import get_engine
    from core.images import load
    from core.models.catalogue import catalogue
    from core.models.presets import calibrated_threshold
    from core.persam.config import PersamConfig
    from core.persam.pipeline import find, learn
    from core.persam.target import Reference

    one = example_sets()[PICTURES[2]]
    press_example(studio, PICTURES[2])
    studio.wait("ready: PerSAM: found in")
    archive = zipfile.ZipFile(io.BytesIO(downloads(studio)["all.zip"]))
    labels = sorted(name for name in archive.namelist() if name.endswith("labels.png"))
    engine, model = get_engine(), "sam_embedded"
    reference = Reference(load(one.reference).image, np.asarray(Image.open(one.mask)) > 0)
    learned = learn(engine, model, [reference])
    config = PersamConfig(presence_threshold=calibrated_threshold(catalogue()[model]))
    for name, path in zip(labels, one.files, strict=True):
        expected = find(engine, model, load(path).image, learned.profile, config).segmentation
        got = np.asarray(Image.open(io.BytesIO(archive.read(name)))) > 0
        true = expected.masks.any(axis=0)
        assert iou(got, true) >= 0.999 or not (got.any() or true.any())
