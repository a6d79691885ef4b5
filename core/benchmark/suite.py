"""What a visitor waits for: the page's start, the first click, later clicks, everything mode.

The suite is started as on any machine, `python -m apps.suite`, and driven through its HTTP API.
An answer counts when its record and the picture with the masks have arrived here.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from core.benchmark.harness import environment
from core.errors import SuiteError
from core.images import load
from core.models.catalogue import PROJECT
from core.reports import Report

PHOTOGRAPH = PROJECT / "assets" / "examples" / "coffee.jpg"
SIDE = 1000  # px: one megapixel
STARTS = 3
PICTURES = 5
LATER_CLICKS = 3  # on each picture, after the first
NOTHING = "No mask reaches"  # how everything mode says that it found none
START_SECONDS = 120.0  # after which a start has failed
TARGETS = {
    "page_interactive_seconds": 8.0,
    "first_click_seconds": 1.0,
    "later_click_seconds": 0.25,
    "everything_seconds": 6.0,
}


class SuiteFailed(SuiteError):
    """The suite did not start, or an endpoint did not answer."""


def run(limit: int | None) -> Report:
    """Measure all four; figures are medians in seconds.

    Args:
        limit: at most so many starts and pictures.

    Raises:
        SuiteFailed: the suite does not start.
    """
    before = os.getloadavg()[0]
    raw: dict[str, list[float]] = {name: [] for name in TARGETS}
    starts, count = min(STARTS, limit or STARTS), min(PICTURES, limit or PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        with serve(Path(folder)):
            pass  # what is read from disk for the first time is in memory now
        for _ in range(starts - 1):
            with serve(Path(folder)) as (_, seconds):
                raw["page_interactive_seconds"].append(seconds)
        with serve(Path(folder)) as (url, seconds):
            raw["page_interactive_seconds"].append(seconds)
            stages = drive(url, new_pictures(Path(folder), 1 + count), raw)
    figures = {name: statistics.median(values) for name, values in raw.items()}
    details = {
        "targets_s": TARGETS,
        "met": {name: figures[name] <= target for name, target in TARGETS.items()},
        "raw_s": raw,
        "stages_s": stages,
        "load_before_after": [before, os.getloadavg()[0]],
        "limited_to": limit,
        "environment": environment(torch.device("cpu")),
    }
    data = f"{PHOTOGRAPH.name} as {count} pictures of {SIDE}x{SIDE}"
    return Report("benchmark suite", ["sam_embedded"], data, "the suite's own", figures, details)


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, float]]:
    """Start the suite on a free port; yield its address and the seconds until its page answers.

    Args:
        folder: for its temporary files and its log.

    Raises:
        SuiteFailed: it ends, or does not answer in time; the log's end is in the message.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}/", folder / "suite.log"
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "apps.suite", "--port", str(port)],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_interactive(process, url, log)
        yield url, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(30)


def wait_until_interactive(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the page and what it is built from are served. Raises SuiteFailed."""
    end = time.monotonic() + START_SECONDS
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if all(client.get(path).status_code == 200 for path in ("/", "/config")):
                    return
            except httpx.TransportError:
                time.sleep(0.02)
    raise SuiteFailed(f"The suite did not start; its log ends with: {log.read_text()[-500:]}")


def new_pictures(folder: Path, count: int) -> list[Path]:
    """Write so many different pictures of one megapixel: crops of a photograph, as JPEG."""
    photograph = cv2.cvtColor(load(PHOTOGRAPH).image, cv2.COLOR_RGB2BGR)
    paths = [folder / f"picture_{shift}.jpg" for shift in range(count)]
    for shift, path in enumerate(paths):
        crop = photograph[shift:, shift:]
        cv2.imwrite(str(path), cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return paths


def drive(url: str, pictures: list[Path], raw: dict[str, list[float]]) -> dict[str, Any]:
    """Click on each picture and search it; add the seconds to `raw`.

    Args:
        pictures: the first one only warms the server up.

    Returns:
        What the model itself took of each answer, by stage: that the picture is not read again
        shows in "encode" of a later click.
    """
    client = Client(url, verbose=False, download_files=False, httpx_kwargs={"trust_env": False})
    client.predict(api_name="/health")  # waits for torch
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in raw if "click" in name}
    stages["everything_seconds"] = []

    def measure(figure: str, api_name: str, picture: Path, **arguments: Any) -> None:
        seconds, inside = ask(client, api_name, picture, **arguments)
        if picture is not pictures[0]:
            raw[figure].append(seconds)
            stages[figure].append(inside)

    for picture in pictures:
        for click in range(1 + LATER_CLICKS):
            figure = "later_click_seconds" if click else "first_click_seconds"
            point = [SIDE / 2 + 20 * click, SIDE / 2, 1]
            measure(figure, "/segment_sam", picture, points=[point])
        measure("everything_seconds", "/segment_everything", picture)
    return stages


def ask(
    client: Client, api_name: str, picture: Path, **arguments: Any
) -> tuple[float, dict[str, float]]:
    """Ask one endpoint; return the seconds until record and overlay are here, and the stages.

    Nothing found is an answer, too. Raises SuiteFailed on any other error.
    """
    start = time.perf_counter()
    try:
        overlay, record, _ = client.predict(
            image=handle_file(str(picture)), api_name=api_name, **arguments
        )
    except AppError as error:
        if NOTHING not in str(error):
            raise SuiteFailed(f"{api_name} answered: {error}") from error
        return time.perf_counter() - start, {}
    httpx.get(overlay["url"], trust_env=False, timeout=60).raise_for_status()
    return time.perf_counter() - start, record["seconds"]
