"""What all endpoints share: their parameters, their guard, pictures in and files out."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import gradio as gr

from apps.suite.canvas import Picture
from apps.suite.components import MODEL
from apps.suite.limits import Doorkeeper
from apps.suite.notices import error_for_client
from core.errors import ImageError
from core.images import LoadedImage, load

KEEP_SECONDS = 3600  # files of a call


class Rows(gr.JSON):
    """A JSON parameter that says it is a list of rows of numbers; none by default."""

    is_template = True
    row = ""  # what a row holds

    def api_info(self) -> dict[str, Any]:
        numbers = {"type": "array", "items": {"type": "number"}}
        return {"type": "array", "items": numbers, "description": f"list of {self.row}"}


def rows(label: str, row: str) -> Rows:
    """Return an empty list of rows, each of which holds what `row` says."""
    parameter = Rows([], label=label)
    parameter.row = row
    return parameter


def picture(label: str) -> Picture:
    """Return a picture parameter."""
    return Picture(type="filepath", image_mode=None, label=label)


def open_switch(label: str) -> gr.Checkbox:
    """Return a yes-or-no parameter that is neither if not given."""
    switch = gr.Checkbox(label=label)
    switch.value = None
    return switch


def expose(
    button: gr.Button,
    function: Callable[..., Any],
    inputs: Sequence[gr.components.Component],
    outputs: Sequence[gr.components.Component],
    doorkeeper: Doorkeeper,
    line: dict[str, Any] = MODEL,
) -> None:
    """Make a function an endpoint of its name: limited, with errors that say what to do.

    A generator function streams.

    Args:
        line: that its calls wait in, as gradio's listeners take it.
    """

    @wraps(function)
    def endpoint(*args: Any) -> Any:
        try:
            doorkeeper.check()
            return function(*args)
        except Exception as error:
            raise error_for_client(error) from None

    @wraps(function)
    def streaming(*args: Any) -> Iterator[Any]:
        try:
            doorkeeper.check()
            yield from function(*args)
        except Exception as error:
            raise error_for_client(error) from None

    listener = streaming if isgeneratorfunction(function) else endpoint
    button.click(listener, list(inputs), list(outputs), api_name=function.__name__, **line)


def load_picture(path: str | None, name: str = "image") -> LoadedImage:
    """Read the picture of a parameter. Raises ImageError if there is none, or on a bad one."""
    if path is None:
        raise ImageError(f"There is no picture; give one as `{name}`.")
    return load(path)


def new_folder() -> Path:
    """Make a folder for one call; those of calls long ago go, whatever was fetched from them."""
    root = os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()
    for former in Path(root).glob("call-*"):
        with suppress(OSError):  # another call may be at it
            if former.stat().st_mtime < time.time() - KEEP_SECONDS:
                shutil.rmtree(former, ignore_errors=True)
    folder = Path(root, f"call-{secrets.token_hex(16)}")
    folder.mkdir(parents=True, mode=0o700)
    return folder
