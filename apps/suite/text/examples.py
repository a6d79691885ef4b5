"""The tab's own examples: scenes of stickers with what is asked of each.

``assets/examples/text/scenes.json`` maps a picture's name to {"title", "mode", "words", "credit"};
``tests/data/make_text.py`` makes both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from apps.suite.examples import FOLDER as PICTURES
from apps.suite.examples import example_button
from core.errors import ImageError

FOLDER = PICTURES / "text"


@dataclass(frozen=True)
class TextExample:
    """One picture with its words; ``mode`` is "words" or "phrases"."""

    path: Path
    title: str
    mode: str
    words: tuple[str, ...]
    credit: str


@cache
def text_examples(folder: Path = FOLDER) -> dict[str, TextExample]:
    """All examples by the picture's file name, in the order of the file."""
    facts = json.loads((folder / "scenes.json").read_text("utf-8"))
    return {
        name: TextExample(
            folder / name, fact["title"], fact["mode"], tuple(fact["words"]), fact["credit"]
        )
        for name, fact in facts.items()
    }


def example(name: object) -> TextExample:
    """Return one example. Raises ImageError if there is none of that name."""
    if not isinstance(name, str) or name not in text_examples():
        raise ImageError("That example is not here any more; choose another one.")
    return text_examples()[name]


@cache
def gallery_html(folder: Path = FOLDER) -> str:
    """Write a button for each example, its number key in presentation mode."""
    buttons = "".join(
        example_button(name, f"text_example_{number}", one.path, one.title, one.credit)
        for number, (name, one) in enumerate(text_examples(folder).items(), start=1)
    )
    return f'<div class="panel-title">Examples</div><div class="gallery">{buttons}</div>'
