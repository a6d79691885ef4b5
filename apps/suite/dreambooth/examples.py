"""The tab's own examples: a thing that no model has seen, in a few places, marked in one of them.

``assets/examples/dreambooth/subjects.json`` maps a folder's name to {"title", "class_noun",
"marked", "credit"}. A folder holds ``01.jpg``, ``02.jpg`` …, and ``mask.png`` of the one that is
marked. ``tests/data/make_dreambooth.py`` makes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from apps.suite.dreambooth import inputs
from apps.suite.dreambooth.session import DreamBoothSession
from apps.suite.examples import FOLDER as PICTURES
from apps.suite.examples import example_button
from apps.suite.notices import Notice
from core.errors import ImageError
from core.images import load
from core.prompts import MaskPrompt

FOLDER = PICTURES / "dreambooth"


@dataclass(frozen=True)
class ExampleSubject:
    """One thing with its pictures.

    Args:
        marked: number of the picture that ``mask.png`` belongs to, from 1.
    """

    folder: Path
    title: str
    class_noun: str
    marked: int
    credit: str

    @property
    def pictures(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jpg"))


@cache
def example_subjects(folder: Path = FOLDER) -> dict[str, ExampleSubject]:
    """All of them by name, in the order of the file."""
    facts = json.loads((folder / "subjects.json").read_text("utf-8"))
    return {
        name: ExampleSubject(
            folder / name, fact["title"], fact["class_noun"], fact["marked"], fact["credit"]
        )
        for name, fact in facts.items()
    }


@cache
def gallery_html(folder: Path = FOLDER) -> str:
    """Write a button for each, its number key in presentation mode."""
    buttons = "".join(
        example_button(
            name,
            f"dreambooth_example_{number}",
            one.pictures[one.marked - 1],
            one.title,
            one.credit,
        )
        for number, (name, one) in enumerate(example_subjects(folder).items(), start=1)
    )
    return f'<div class="panel-title">Example subjects</div><div class="gallery">{buttons}</div>'


def use_example(session: DreamBoothSession, name: object) -> None:
    """Start anew with one of them. Raises ImageError if there is none of that name."""
    if not isinstance(name, str) or name not in example_subjects():
        raise ImageError("That example is not here any more; choose another one.")
    chosen = example_subjects()[name]
    with session.lock:
        inputs.start_over(session)
        inputs.add_pictures(session, [load(path) for path in chosen.pictures])
        index = chosen.marked - 1
        size = session.items[index].picture.size
        mask = MaskPrompt.parse(load(chosen.folder / "mask.png").image, size).mask
        inputs.put_mask(session, index, mask)
        inputs.name_subject(session, chosen.class_noun)
        session.notice = Notice("busy", "Reading the example…")
