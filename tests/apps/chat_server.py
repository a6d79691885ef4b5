"""A real server in this process whose PixelLM is scripted, for tests of the chat tab."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from apps.suite import app
from apps.suite.tabs import TABS
from core.settings import settings
from tests.apps.conftest import Server
from tests.core.pixellm.scripted import Line, Script, scripted

CHAT = tuple(tab for tab in TABS if tab.name == "chat")
LEFT, RIGHT, EMPTY = (0.1, 0.2, 0.4, 0.7), (0.55, 0.2, 0.9, 0.6), (0.0, 0.0, 0.0, 0.0)
MARKUP = "<img src=x onerror=alert(1)>${x}"

LINES = {
    "find out the time": Line("You could use the alarm clock {seg} for that.", [LEFT]),
    "hungry": Line(
        "You could eat the red apple {seg} and cut it with the knife {seg}.", [LEFT, RIGHT]
    ),
    "apples": Line("I see two apples {seg} {seg} here.", [LEFT, RIGHT]),
    "markup": Line(f"It is {MARKUP} and the cup {{seg}}.", [RIGHT]),
    "half": Line("It is the knife {half}."),
    "empty": Line("It is the knife {seg}.", [EMPTY]),
    "short story": Line("The apple {seg} is red and round and on the table.", [LEFT], 0.04),
    "long story": Line(
        "The apple {seg} is red. " + "The knife is on the table. " * 30, [LEFT], 0.15
    ),
}


@contextmanager
def serve_chat(folder: Path, script: Script | None = None) -> Iterator[tuple[Server, Script]]:
    """Serve a page with the chat tab alone."""
    script = script or Script(LINES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with scripted(script), pytest.MonkeyPatch.context() as patch:
        place = folder / "segment-studio-chat"
        place.mkdir()
        patch.setitem(os.environ, "GRADIO_TEMP_DIR", str(place))
        options = replace(settings, port=port)
        # The page sets it for its process, which is the tests' here.
        patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        page = app.build(options, CHAT)
        try:
            yield Server(app.launch(page, options), folder), script
        finally:
            page.close()
