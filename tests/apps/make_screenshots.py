"""Make the README's pictures of the running suite: `python tests/apps/make_screenshots.py`.

By hand, whenever the page or the weights have changed. Needs Chromium, as the browser tests do.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from core.benchmark.suite import serve  # noqa: E402
from core.engine import get_engine  # noqa: E402
from core.images import load  # noqa: E402
from core.overlays import draw, draw_boxes, draw_points  # noqa: E402
from core.prompts import Boxes, Points  # noqa: E402
from core.sam.pipeline import segment  # noqa: E402
from tests.apps.conftest import FLAGS, Server, Studio, find_chromium  # noqa: E402

FOLDER = ROOT / "assets" / "screenshots"
EXAMPLES = ROOT / "assets" / "examples"
MOST_BYTES = 400_000
SIZE = {"width": 1280, "height": 900}

# The page's picture and its box, as shares of width and height.
EXAMPLE = "coffee.jpg"
BOX = (0.10, 0.02, 0.83, 0.93)

# One click (x, y) and one box (x0, y0, x1, y1) on each example; what they give is not selected.
PROMPTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "coffee": ((0.48, 0.38), BOX),
    "dogs": ((0.33, 0.30), (0.22, 0.16, 0.46, 0.52)),
    "cat": ((0.50, 0.55), (0.12, 0.0, 0.85, 1.0)),
    "astronaut": ((0.40, 0.75), (0.02, 0.02, 0.72, 1.0)),
    "ladybird": ((0.70, 0.52), (0.645, 0.43, 0.755, 0.60)),
    "cups": ((0.32, 0.27), (0.22, 0.13, 0.42, 0.43)),
    "nuthatch": ((0.36, 0.58), (0.23, 0.36, 0.53, 0.78)),
    "wine": ((0.35, 0.80), (0.02, 0.55, 0.80, 0.99)),
    "coins": ((0.40, 0.165), (0.34, 0.09, 0.47, 0.24)),
    "rocket": ((0.505, 0.55), (0.47, 0.25, 0.53, 0.92)),
    "seeds": ((0.64, 0.90), (0.52, 0.80, 0.78, 1.0)),
    "moss": ((0.65, 0.50), (0.60, 0.43, 0.71, 0.57)),
}
TILE = (360, 270)  # px


def take(browser: Browser, server: Server) -> None:
    """Segment one photograph by clicks and keep the page as a picture."""
    studio = Studio(browser, server, viewport=SIZE, color_scheme="light", reduced_motion="reduce")
    studio.page.click(f"button.example[data-name='{EXAMPLE}']")
    studio.wait("Picture read in")
    studio.page.keyboard.press("x")
    studio.click(*BOX[:2])
    studio.wait("First corner set")
    studio.click(*BOX[2:])
    studio.wait("ready: Mask in")
    studio.page.evaluate("document.fonts.ready")
    studio.page.evaluate("scrollTo(0, 0)")
    studio.page.mouse.move(5, 5)
    save(studio.page.screenshot(animations="disabled"), FOLDER / "segment.png")
    studio.close()


def take_personalize(browser: Browser, server: Server) -> None:
    """Press the first example and keep the page as a picture."""
    looks = {"color_scheme": "light", "reduced_motion": "reduce"}
    size = {"width": 1280, "height": 1080}
    studio = Studio(browser, server, tab="personalize", viewport=size, **looks)
    studio.page.click("#personalize_example_1")
    studio.wait("ready: PerSAM: found in")
    studio.page.wait_for_selector("#personalize_result img")
    studio.page.evaluate("document.fonts.ready")
    studio.page.evaluate("scrollTo(0, 0)")
    studio.page.mouse.move(5, 5)
    save(studio.page.screenshot(animations="disabled"), FOLDER / "personalize.png")
    studio.close()


def take_degraded(browser: Browser, server: Server) -> None:
    """Put a box around the cup in the fog, and keep the four pictures side by side."""
    looks = {"color_scheme": "light", "reduced_motion": "reduce"}
    studio = Studio(browser, server, tab="degraded", viewport=SIZE, **looks)
    studio.page.click("#degraded_example_1")
    studio.wait("Picture read in")
    studio.page.keyboard.press("x")
    studio.drag(BOX[:2], BOX[2:])
    studio.wait("ready: Both answered")
    studio.page.locator("#degraded_panel label").nth(2).click()
    studio.page.wait_for_selector("#degraded_four figure img")
    studio.page.evaluate("document.fonts.ready")
    studio.page.evaluate("scrollTo(0, 0)")
    studio.page.mouse.move(5, 5)
    save(studio.page.screenshot(animations="disabled"), FOLDER / "degraded.png")
    studio.close()


def take_text(browser: Browser, server: Server) -> None:
    """Press an example, and keep its label map and the steps that led to it."""
    looks = {"color_scheme": "light", "reduced_motion": "reduce"}
    studio = Studio(browser, server, tab="text", viewport=SIZE, **looks)
    studio.page.click("#text_example_1")
    studio.wait("ready: Found")
    for place, (name, part) in enumerate({"text": "canvas img", "text_steps": "steps img"}.items()):
        studio.page.locator("#text_panel label").nth(place).click()
        studio.page.wait_for_selector(f"#text_{part}")
        studio.page.evaluate("document.fonts.ready")
        studio.page.evaluate("scrollTo(0, 0)")
        studio.page.mouse.move(5, 5)
        save(studio.page.screenshot(animations="disabled"), FOLDER / f"{name}.png")
    studio.close()


def take_chat(browser: Browser, server: Server) -> None:
    """Ask two of an example's questions, and keep the conversation."""
    looks = {"color_scheme": "light", "reduced_motion": "reduce"}
    studio = Studio(browser, server, tab="chat", viewport=SIZE, **looks)
    studio.page.click("#chat_example_1")
    studio.wait("ready: Picture read in")
    for count in (1, 2):
        studio.page.click("#chat_suggestions button >> nth=0")
        studio.page.wait_for_selector(f"#chat_log .said >> nth={count - 1}")
        studio.wait("Answered in")
    studio.page.evaluate("document.fonts.ready")
    studio.page.evaluate("scrollTo(0, 0)")
    studio.page.mouse.move(5, 5)
    save(studio.page.screenshot(animations="disabled"), FOLDER / "chat.png")
    studio.close()


def take_dreambooth(browser: Browser, server: Server) -> None:
    """Find an example subject in its pictures, and accept the masks."""
    looks = {"color_scheme": "light", "reduced_motion": "reduce"}
    studio = Studio(browser, server, tab="dreambooth", viewport=SIZE, **looks)
    studio.page.click("#dreambooth_example_1")
    studio.wait("ready: Look at the masks")
    studio.page.click("[data-do=accept-all]")
    studio.page.wait_for_selector("#dreambooth_step2", state="visible")
    studio.page.evaluate("document.fonts.ready")
    studio.page.evaluate("scrollTo(0, 0)")
    studio.page.mouse.move(5, 5)
    save(studio.page.screenshot(animations="disabled"), FOLDER / "dreambooth.png")
    studio.close()


def draw_examples() -> Image.Image:
    """Two tiles for each example, the answer to a click and to a box; two examples a row."""
    rows = []
    for name, (click, box) in PROMPTS.items():
        image = load(EXAMPLES / f"{name}.jpg").image
        size = image.shape[:2]
        scale = np.array([size[1], size[0]] * 2, np.float64)
        points = Points.parse([[*(click * scale[:2]), 1]], size)
        boxes = Boxes.parse([box * scale], size)
        clicked = segment(get_engine(), "sam_embedded", image, points=points)
        boxed = segment(get_engine(), "sam_embedded", image, boxes=boxes)
        first = draw(image, clicked.segmentation.masks, numbers=False)
        second = draw(image, boxed.segmentation.masks, numbers=False)
        rows.append(
            (draw_points(first, points.coords, points.labels), draw_boxes(second, boxes.xyxy))
        )
    sheet = Image.new("RGB", (4 * TILE[0], -(-len(rows) // 2) * TILE[1]), (24, 24, 24))
    for k, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            tile = ImageOps.pad(Image.fromarray(picture), TILE, color=(24, 24, 24))
            sheet.paste(tile, ((2 * (k % 2) + column) * TILE[0], k // 2 * TILE[1]))
    return sheet


def save(shot: bytes, path: Path) -> None:
    """Write a picture's PNG with as many colours as MOST_BYTES allow."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    for colors in (256, 128, 64):
        if buffer.tell() <= MOST_BYTES:
            break
        buffer = io.BytesIO()
        reduced = picture.quantize(colors, kmeans=2, dither=Image.Dither.NONE)
        reduced.save(buffer, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    sheet = draw_examples().resize((3 * TILE[0], 6 * TILE[1] * 3 // 4))
    path = FOLDER / "examples.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=82, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as (url, _):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=find_chromium(), headless=True, args=FLAGS
            )
            take(browser, Server(url, Path(folder)))
            take_personalize(browser, Server(url, Path(folder)))
            take_degraded(browser, Server(url, Path(folder)))
            take_text(browser, Server(url, Path(folder)))
            take_chat(browser, Server(url, Path(folder)))
            take_dreambooth(browser, Server(url, Path(folder)))
            browser.close()


if __name__ == "__main__":
    main()
