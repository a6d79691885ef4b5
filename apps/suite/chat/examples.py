"""The tab's own examples: scenes of stickers with questions about each.

``assets/examples/chat/scenes.json`` maps a picture's name to {"title", "questions", "credit"};
``tests/data/make_chat.py`` makes both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from apps.suite.examples import FOLDER as PICTURES
from apps.suite.examples import example_button
from core.errors import ImageError

FOLDER = PICTURES / "chat"

# Suggested for any other picture.
GENERAL = (
    "What do you see in this picture?",
    "Which of these is the largest?",
    "What here is alive?",
    "I am hungry. What can I eat?",
)


@dataclass(frozen=True)
class ChatExample:
    """One picture with its questions."""

    path: Path
    title: str
    questions: tuple[str, ...]
    credit: str


@cache
def chat_examples(folder: Path = FOLDER) -> dict[str, ChatExample]:
    """All examples by the picture's file name, in the order of the file."""
    facts = json.loads((folder / "scenes.json").read_text("utf-8"))
    return {
        name: ChatExample(folder / name, fact["title"], tuple(fact["questions"]), fact["credit"])
        for name, fact in facts.items()
    }


def example(name: object) -> ChatExample:
    """Return one example. Raises ImageError if there is none of that name."""
    if not isinstance(name, str) or name not in chat_examples():
        raise ImageError("That example is not here any more; choose another one.")
    return chat_examples()[name]


@cache
def gallery_html(folder: Path = FOLDER) -> str:
    """Write a button for each example, its number key in presentation mode."""
    buttons = "".join(
        example_button(name, f"chat_example_{number}", one.path, one.title, one.credit)
        for number, (name, one) in enumerate(chat_examples(folder).items(), start=1)
    )
    return f'<div class="panel-title">Examples</div><div class="gallery">{buttons}</div>'
