"""Make the README's pictures of the running suite: `python tests/apps/make_screenshots.py`.

By hand, whenever the page or the weights have changed. Needs Chromium, as the browser tests do.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from core.benchmark.suite import serve  # noqa: E402
from tests.apps.conftest import FLAGS, Server, Studio, find_chromium  # noqa: E402

FOLDER = ROOT / "assets" / "screenshots"
MOST_BYTES = 400_000
SIZE = {"width": 1280, "height": 900}

# Example, then clicks as (tool's key, share of the width, share of the height).
EXAMPLE = "coffee.jpg"
CLICKS = (("f", 0.45, 0.25), ("f", 0.38, 0.62), ("f", 0.60, 0.30), ("b", 0.05, 0.50))


def take(browser: Browser, server: Server) -> None:
    """Segment one photograph by clicks and keep the page as a picture."""
    studio = Studio(browser, server, viewport=SIZE, color_scheme="light", reduced_motion="reduce")
    studio.page.click(f"button.example[data-name='{EXAMPLE}']")
    studio.wait("Picture read in")
    studio.open_points()
    for count, (key, x, y) in enumerate(CLICKS, start=1):
        studio.page.keyboard.press(key)
        studio.click(x, y)
        studio.wait_points(count)
    studio.wait("ready: Mask in")
    studio.open_points()  # closes them
    studio.page.evaluate("document.fonts.ready")
    studio.page.evaluate("scrollTo(0, 0)")
    studio.page.mouse.move(5, 5)
    save(studio.page.screenshot(animations="disabled"), FOLDER / "segment.png")
    studio.close()


def save(shot: bytes, path: Path) -> None:
    """Write a screenshot with as many colours as MOST_BYTES allow."""
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
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as (url, _):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=find_chromium(), headless=True, args=FLAGS
            )
            take(browser, Server(url, Path(folder)))
            browser.close()


if __name__ == "__main__":
    main()
