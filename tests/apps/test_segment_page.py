"""The Segment tab in a real browser, against the real server."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from apps.suite.examples import FOLDER
from core.masks import decode_rle, iou

FARM = FOLDER / "text" / "farm.jpg"
X0, Y0, X1, Y1 = 120, 80, 200, 160  # the square of `square_picture`, 320×240
CENTRE = ((X0 + X1) / 2 / 320, (Y0 + Y1) / 2 / 240)


def square_mask():
    mask = np.zeros((240, 320), bool)
    mask[Y0:Y1, X0:X1] = True
    return mask


def downloads(studio):
    """The files that "Prepare downloads" offers, by the end of their names."""
    studio.page.click("#segment_prepare")
    studio.page.wait_for_selector("#segment_files a")
    links = studio.page.eval_on_selector_all("#segment_files a", "all => all.map((a) => a.href)")
    return {link.rsplit("Z_", 1)[-1]: studio.context.request.get(link).body() for link in links}


@pytest.mark.parametrize(
    ("scale", "width", "is_turned"),
    [(1, 1280, False), (2, 1280, True), (2, 390, False), (1, 390, True)],
)
def test_a_click_lands_where_it_was_made(
    open_studio, square_picture, turned_picture, scale, width, is_turned
):
    studio = open_studio(
        viewport={"width": width, "height": 844}, device_scale_factor=scale, has_touch=width < 400
    )
    studio.upload(turned_picture if is_turned else square_picture)
    studio.open_points()
    for share in ((0.02, 0.03), CENTRE, (0.97, 0.9)):
        studio.click(*share)
    points = np.array(studio.wait_points(3))
    wanted = np.array([(0.02, 0.03), CENTRE, (0.97, 0.9)]) * (320, 240) - 0.5
    shown = studio.picture()["width"] * studio.picture()["scale"]
    assert np.abs(points[:, :2] - wanted).max() <= max(1.0, 320 / shown) + 0.5
    assert points[:, 2].tolist() == [1, 1, 1]


def test_a_click_on_the_square_gives_the_square(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.click(*CENTRE)
    studio.wait("ready: Mask in")
    assert studio.page.locator(".reading").count() == 3
    record = json.loads(downloads(studio)["instances.json"])
    found = max(iou(decode_rle(instance["rle"]), square_mask()) for instance in record["instances"])
    assert found >= 0.9


@pytest.mark.parametrize(("size", "tolerance"), [((40, 60), 0.6), ((1500, 2000), 3.0)])
def test_small_and_large_pictures_answer_in_their_own_pixels(
    open_studio, tmp_path, size, tolerance
):
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    studio = open_studio()
    studio.upload(path)
    shown = studio.picture()
    assert 640 <= max(shown["width"], shown["height"]) <= 1024
    studio.open_points()
    studio.click(0.25, 0.75)
    ((x, y, _),) = studio.wait_points(1)
    assert abs(x - (0.25 * size[1] - 0.5)) <= tolerance
    assert abs(y - (0.75 * size[0] - 0.5)) <= tolerance
    mask = Image.open(io.BytesIO(downloads(studio)["mask_1.png"]))
    assert mask.size == (size[1], size[0])


def test_points_are_added_undone_and_cleared_by_keys(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.open_points()
    press = studio.page.keyboard.press
    studio.click(*CENTRE)
    studio.wait_points(1)
    press("b")
    studio.click(0.9, 0.9)
    assert [label for *_, label in studio.wait_points(2)] == [1, 0]
    press("f")
    studio.click(0.5, 0.4)
    assert [label for *_, label in studio.wait_points(3)] == [1, 0, 1]
    press("u")
    studio.wait_points(2)
    press("Control+z")
    studio.wait_points(1)
    press("Delete")
    studio.wait_points(0)
    assert studio.page.locator("#segment_clear").is_disabled()
    press("u")
    studio.wait_points(1)


def test_quick_clicks_all_arrive(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.open_points()
    places = [studio.place(x, 0.5) for x in (0.2, 0.35, 0.5, 0.65)]
    for place in places:
        studio.page.mouse.click(*place)
    assert len(studio.wait_points(4)) == 4


def test_boxes_by_two_clicks_and_by_dragging(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.open_points()
    studio.page.keyboard.press("x")
    source = "document.querySelector('#segment_canvas .image-frame img')?.src"
    before = studio.page.evaluate(source)
    studio.click(0.375, 1 / 3)
    studio.wait("First corner set")
    studio.page.wait_for_function(f"before => {source} !== before", arg=before)  # it is marked
    studio.click(0.375, 1 / 3)
    studio.wait("warning: The box is 0×0 pixels and has no area")
    studio.click(0.625, 2 / 3)
    studio.wait("ready: Mask in")
    assert np.abs(np.array(studio.boxes()) - (X0, Y0, X1, Y1)).max() <= 2
    studio.drag((0.05, 0.05), (0.2, 0.2))
    studio.wait("ready: 2 masks in")
    assert len(studio.boxes()) == 2
    assert studio.page.locator("table.objects tbody tr").count() == 2


def test_a_scribble_becomes_points_along_it(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.open_points()
    studio.page.keyboard.press("s")
    studio.drag((0.4, 0.4), (0.5, 0.5), (0.6, 0.6))
    points = np.array(studio.wait_points(8))
    assert (points[:, 0] > 115).all() and (points[:, 0] < 205).all()
    assert np.corrcoef(points[:, 0], points[:, 1])[0, 1] > 0.95


def test_the_brush_paints_and_erases_without_clicking(open_studio, square_picture):
    studio = open_studio()
    page = studio.page
    studio.upload(square_picture)
    studio.open_points()
    page.keyboard.press("m")
    studio.click(0.3, 0.3)
    page.wait_for_selector("#segment_objects td[title]")
    share = "() => Number.parseInt(document.querySelector('#segment_objects td[title]').title)"
    dab = page.evaluate(share)
    assert abs(dab / (np.pi / 4 * (320 / 30) ** 2) - 1) < 0.25
    page.mouse.move(*studio.place(0.3, 0.6))
    page.mouse.down()
    page.mouse.move(*studio.place(0.6, 0.6), steps=5)
    assert page.locator("canvas.studio-sheet.paint").count() == 1
    page.mouse.up()
    page.wait_for_function(f"dab => ({share})() > 5 * dab", arg=dab)
    painted = page.evaluate(share)
    page.wait_for_selector("canvas.studio-sheet", state="detached")
    page.keyboard.press("r")
    studio.drag((0.4, 0.6), (0.5, 0.6))
    page.wait_for_function(f"painted => ({share})() < painted", arg=painted)
    assert studio.points() == []


def test_the_table_of_points_can_be_used_without_a_mouse(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.open_points()
    studio.page.locator("[data-do=add-point]").press("Enter")
    studio.wait_points(1)
    field = studio.page.get_by_label("point 1 x", exact=True)
    field.fill("33")
    field.press("Tab")
    studio.page.wait_for_function("document.querySelector('[data-column=x]').value === '33'")
    studio.page.wait_for_function("document.activeElement.dataset.focus === 'point-0-y'")
    studio.page.get_by_label("point 1 is", exact=True).select_option("background")
    studio.page.wait_for_function("document.querySelector('[data-column=label]').value === '0'")
    studio.page.get_by_label("Remove point 1", exact=True).press("Enter")
    studio.wait_points(0)


def test_objects_are_kept_named_hidden_merged_and_deleted(open_studio, square_picture):
    studio = open_studio()
    page = studio.page
    studio.upload(square_picture)
    studio.click(*CENTRE)
    studio.wait("ready: Mask in")
    page.keyboard.press("2")
    page.wait_for_selector("#segment_reading_2[aria-pressed=true]")
    page.keyboard.press("n")
    studio.wait("1 kept")
    label = "<img src=x onerror=alert(1)> ${1+1} {{value}} `x`"
    page.get_by_label("Name of object 1").fill(label)
    page.keyboard.press("Enter")
    page.wait_for_function(
        "label => document.querySelector('input.name').getAttribute('value') === label", arg=label
    )
    assert page.locator("table.objects img").count() == 0
    studio.click(0.1, 0.1)
    studio.wait("ready: Mask in")
    page.get_by_label("Hide object 1").click()
    page.wait_for_selector("tr.hidden-object")
    for number in (1, 2):
        page.get_by_label(f"Select object {number}").check()
    page.get_by_role("button", name="Merge selected").click()
    page.wait_for_function("document.querySelectorAll('table.objects tbody tr').length === 1")
    page.get_by_label("Delete object 1").click()
    page.wait_for_function("document.querySelectorAll('table.objects tbody tr').length === 0")


def test_opacity_redraws_without_asking_the_model(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.click(*CENTRE)
    studio.wait("ready: Mask in")
    source = "document.querySelector('#segment_canvas .image-frame img').src"
    asked: list[str] = []
    studio.page.on("request", lambda request: asked.append(request.url))
    for key in ("]", "o"):
        before = studio.page.evaluate(source)
        studio.page.keyboard.press(key)
        studio.page.wait_for_function(f"before => {source} !== before", arg=before)
    assert asked
    assert not [url for url in asked if "/queue/join" in url]


def test_downloads_agree_with_the_page(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.click(*CENTRE)
    studio.wait("ready: Mask in")
    studio.page.keyboard.press("n")
    studio.wait("1 kept")
    studio.click(0.1, 0.9)
    studio.wait("ready: Mask in")
    files = downloads(studio)

    record = json.loads(files["instances.json"])
    rows = studio.page.locator("table.objects tbody tr")
    assert rows.count() == len(record["instances"]) == 2
    for k, instance in enumerate(record["instances"]):
        assert f"{100 * instance['area_fraction']:.1f} %" in rows.nth(k).inner_text()
        mask = np.asarray(Image.open(io.BytesIO(files[f"mask_{k + 1}.png"])))
        assert mask.shape == (240, 320) and set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(mask > 0, coco.decode(instance["rle"]).astype(bool))
        assert Image.open(io.BytesIO(files[f"cutout_{k + 1}.png"])).mode == "RGBA"
    assert len(json.loads(files["coco.json"])["annotations"]) == 2
    assert Image.open(io.BytesIO(files["labels.png"])).mode == "P"
    assert Image.open(io.BytesIO(files["overlay.png"])).size == (320, 240)
    with zipfile.ZipFile(io.BytesIO(files["all.zip"])) as archive:
        inside = {name.rsplit("Z_", 1)[-1]: archive.read(name) for name in archive.namelist()}
    parameters = json.loads(inside.pop("parameters.json"))
    assert inside == {name: data for name, data in files.items() if name != "all.zip"}
    assert len(parameters["parameters"]["objects"]) == 2


def test_mistakes_get_a_sentence_and_lose_nothing(open_studio, square_picture, tmp_path):
    studio = open_studio()
    page = studio.page
    page.click("#segment_run")
    studio.wait("warning: There is no picture yet")
    page.click("#segment_everything")
    studio.wait("warning: There is no picture yet")
    wrong = tmp_path / "notes.png"
    wrong.write_text("this is no picture")
    studio.upload(wrong, wait="warning: The file is not a picture that can be read")
    assert page.locator("#segment_canvas .image-frame img").count() == 0

    studio.upload(square_picture)
    page.click("#segment_run")
    studio.wait("warning: There is nothing to run yet")
    studio.click(*CENTRE)
    studio.wait("ready: Mask in")
    studio.open_parameters()
    page.locator("#segment_mask_threshold input").fill("1000")
    page.keyboard.press("Tab")
    studio.wait("hint: No pixel is above the threshold 1000")


def test_everything_edges_and_before_after(open_studio, square_picture):
    studio = open_studio()
    page = studio.page
    studio.upload(square_picture)
    studio.open_parameters()
    page.locator("#segment_points_per_side input[type=number]").fill("6")
    page.keyboard.press("Tab")
    page.keyboard.press("e")
    studio.wait("busy:")
    page.wait_for_selector("#segment_status .status:not(.busy)")
    if "No mask reaches" in studio.status:
        page.click("[data-do=anyway]")
    studio.wait("masks in", "sorted by size")
    assert page.locator("table.objects tbody tr").count() >= 1
    page.get_by_label("Before / after").check()
    page.wait_for_selector("#segment_compare img")
    page.click("#segment_edges_button")
    studio.wait("Edges in")
    page.wait_for_selector("#segment_edges img")
    assert "edges.png" in " ".join(downloads(studio))


def test_words_are_looked_for_in_both_ways(open_studio):
    studio = open_studio()
    page = studio.page
    studio.upload(FARM)
    field = page.locator("#segment_words input, #segment_words textarea")
    field.press("Enter")
    studio.wait("warning: There is no query")
    field.fill("cow, violin")
    field.press("Enter")
    studio.wait("busy: Words")
    studio.wait("“cow”", "Not here: “violin”")
    assert page.locator("table.objects input.name").first.input_value() == "cow"
    page.get_by_label("CaR").check()
    page.get_by_role("button", name="Find", exact=True).click()
    studio.wait("busy: Words")
    studio.wait("“cow”", "Not here: “violin”")
    assert "CLIP" in page.locator("table.objects thead").inner_text()


def test_long_work_is_cancelled(open_studio, square_picture):
    studio = open_studio()
    studio.upload(square_picture)
    studio.open_parameters()
    studio.page.locator("#segment_points_per_side input[type=number]").fill("64")
    studio.page.keyboard.press("Tab")
    studio.page.wait_for_function(
        "document.querySelector('#segment_points_per_side input[type=range]').value === '64'"
    )
    studio.page.click("#segment_everything")
    studio.wait("busy:", "of 4096 points")
    studio.page.keyboard.press("Escape")
    studio.wait("hint: Stopped")
    studio.click(*CENTRE)
    studio.wait("ready: Mask in")
