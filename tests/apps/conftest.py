"""One real server and one real browser for all tests of the pages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client
from PIL import Image
from playwright.sync_api import Error as PlaywrightError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90
PATIENCE_MS = 60_000  # of each wait: a machine that is busy with training is many times slower
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()

# What the status line says once a tab's picture is removed.
GONE = {
    "segment": "There is no picture yet",
    "personalize": "Drop a picture of your object",
    "degraded": "Drop a bad picture",
    "text": "Drop a picture into the frame",
    "chat": "Drop a picture into the frame",
    "dreambooth": "Drop 3 to 20 pictures",
}

SQUARE = (120, 80, 200, 160)  # x0, y0, x1, y1 of the orange square in `square_picture`


@dataclass(frozen=True)
class Server:
    """A running suite: its address, and the folder of its temporary files."""

    url: str
    folder: Path

    def visits(self) -> set[Path]:
        """Folders of the visitors that the server holds files of."""
        return set(self.folder.glob("segment-studio-*/visit-*"))

    def client(self, **options: Any) -> Client:
        """A new visitor, by gradio's own client for Python."""
        return Client(self.url, verbose=False, httpx_kwargs={"trust_env": False}, **options)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`python -m apps.suite`, as a visitor's machine runs it."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "log.txt").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "apps.suite", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_until_up(process, url, folder / "log.txt")
        yield Server(url, folder)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _wait_until_up(process: subprocess.Popen, url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
    raise RuntimeError(f"the suite did not start:\n{log.read_text()[-3000:]}")


def find_chromium() -> str | None:
    """Path of the distribution's browser; None if there is none."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    return path if path and Path(path).exists() else None


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """The distribution's Chromium, driven by playwright."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium: install it, or name its path in CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Studio:
    """One tab of the page as a visitor uses it; waits for what it says, never for time."""

    def __init__(
        self, browser, server: Server, query: str = "", *, tab: str = "segment", **context
    ) -> None:
        context = {"viewport": {"width": 1280, "height": 900}, **context}
        self.server = server
        self.outside: list[str] = []  # requests to other hosts
        self.faults: list[str] = []  # console errors, exceptions, failed responses
        self.dialogs: list[str] = []
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.route("**/*", self._guard)
        self.page = self.context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss())
        )
        self.page.on("response", self._on_response)
        self.page.goto(server.url + query)
        self.open_tab(tab)

    def open_tab(self, tab: str) -> None:
        """Bring a tab to the front; everything else here is about that tab from now on."""
        self.tab = tab
        button = self.page.locator(f"#tab_{tab}-button")
        if button.get_attribute("aria-selected") != "true":
            button.click()
        self.page.wait_for_selector(f"{self.part('canvas')} input[type=file]", state="attached")
        self.page.wait_for_selector(f"{self.part('status')}[aria-live]")

    def part(self, name: str) -> str:
        """Selector of one part of the tab in front."""
        return f"#{self.tab}_{name}"

    def _guard(self, route) -> None:
        url = route.request.url
        if url.startswith((self.server.url, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def _on_console(self, message) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _on_response(self, response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} {response.url}")

    @property
    def status(self) -> str:
        """The status line, as "kind: sentence"."""
        line = self.page.locator(f"{self.part('status')} .status")
        return f"{line.get_attribute('data-kind')}: {line.inner_text().strip()}"

    def wait(self, *parts: str) -> str:
        """Wait until the status line contains all parts, and return it."""
        try:
            self.page.wait_for_function(
                """([status, parts]) => {
                  const line = document.querySelector(status + " .status");
                  const text = line?.dataset.kind + ": " + line?.innerText;
                  return parts.every((part) => text.includes(part));
                }""",
                arg=[self.part("status"), list(parts)],
            )
        except PlaywrightError as error:
            raise AssertionError(f"waited for {parts}, the page says: {self.status}") from error
        return self.status

    def upload(self, path: Path, *, wait: str = "Picture read in") -> None:
        """Choose a file, replacing the picture that is there."""
        canvas, page = self.part("canvas"), self.page
        if page.locator(f"{canvas} .image-frame img").count():
            page.click(f"{canvas} button[aria-label='Remove Image']")
            page.wait_for_selector(f"{canvas} .image-frame img", state="detached")
            self.wait(GONE[self.tab])
        page.set_input_files(f"{canvas} input[type=file]", str(path))
        self.wait(wait)

    def picture(self, part: str = "canvas") -> dict[str, float]:
        """Box of a picture's pixels on the page, with natural sizes, once it is loaded."""
        return self.page.wait_for_function(
            """canvas => {
              const img = document.querySelector(canvas + " .image-frame img");
              if (!img?.complete || !img.naturalWidth) return false;
              img.scrollIntoView({ block: "center" });
              const box = img.getBoundingClientRect();
              if (!box.width) return false;
              const wide = box.width / img.naturalWidth, high = box.height / img.naturalHeight;
              const scale = Math.min(wide, high, 1);
              return {
                scale, width: img.naturalWidth, height: img.naturalHeight,
                left: box.left + (box.width - img.naturalWidth * scale) / 2,
                top: box.top + (box.height - img.naturalHeight * scale) / 2,
              };
            }""",
            arg=self.part(part),
        ).json_value()

    def place(self, x: float, y: float, part: str = "canvas") -> tuple[float, float]:
        """Where a share (x, y) of a picture is on the screen."""
        picture = self.picture(part)
        return (
            picture["left"] + x * picture["width"] * picture["scale"],
            picture["top"] + y * picture["height"] * picture["scale"],
        )

    def click(self, x: float, y: float, part: str = "canvas") -> None:
        """Click at a share (x, y) of a picture."""
        self.page.mouse.click(*self.place(x, y, part))

    def drag(self, *places: tuple[float, float]) -> None:
        """Press, move through shares of the picture, release."""
        mouse = self.page.mouse
        mouse.move(*self.place(*places[0]))
        mouse.down()
        for place in places[1:]:
            mouse.move(*self.place(*place), steps=4)
        mouse.up()

    def open(self, title: str) -> None:
        """Open an accordion."""
        self.page.get_by_role("button", name=title).click()

    def open_points(self) -> None:
        """Open the tables of points and boxes."""
        self.open("Points and boxes as numbers")

    def open_parameters(self) -> None:
        """Open the parameters of the tab."""
        self.page.locator(f"{self.part('parameters')} button").first.click()

    def points(self) -> list[list[float]]:
        """The table of points: x, y, label."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll("table.prompts:first-of-type tbody tr")]
              .filter((row) => row.querySelector("select"))
              .map((row) => [...row.querySelectorAll("input, select")])
              .map((fields) => fields.map((field) => Number(field.value)))"""
        )

    def boxes(self) -> list[list[float]]:
        """The table of boxes: x0, y0, x1, y1."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll("[data-do=edit-box][data-column=x0]")]
              .map((field) => [...field.closest("tr").querySelectorAll("input")]
              .map((f) => Number(f.value)))"""
        )

    def wait_points(self, count: int) -> list[list[float]]:
        """Wait until the table of points has so many rows, and the answer is there."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('[data-do=edit-point][data-column=x]').length"
            " === count",
            arg=count,
        )
        return self.points()

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def open_studio(browser, server: Server) -> Iterator[Callable[..., Studio]]:
    """Open pages; afterwards none may have asked another host or reported an error."""
    studios: list[Studio] = []

    def open_page(query: str = "", *, tab: str = "segment", **context) -> Studio:
        studios.append(Studio(browser, server, query, tab=tab, **context))
        return studios[-1]

    yield open_page
    for studio in studios:
        studio.close()
    for studio in studios:
        assert studio.outside == []
        assert studio.faults == []
        assert studio.dialogs == []


def draw_square(size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """An orange square on a soft blue-grey ground, RGB uint8 (H, W, 3)."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    shade = np.linspace(150, 190, width).astype(np.uint8)
    image[:] = np.stack([shade - 60, shade - 20, shade], axis=-1)
    x0, y0, x1, y1 = SQUARE
    image[y0:y1, x0:x1] = (226, 110, 30)
    return image


@pytest.fixture(scope="session")
def square_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 320×240 with an orange square."""
    path = tmp_path_factory.mktemp("pictures") / "square.png"
    Image.fromarray(draw_square()).save(path)
    return path


@pytest.fixture(scope="session")
def turned_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same picture as a JPEG whose pixels lie on their side, with the EXIF turn to undo it."""
    path = tmp_path_factory.mktemp("pictures") / "turned.jpg"
    upright = Image.fromarray(draw_square())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    return path
