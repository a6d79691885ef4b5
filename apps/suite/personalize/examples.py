"""The tab's own examples: a marked object, and pictures or a clip to find it in.

``assets/examples/personal/sets.json`` maps a folder's name to {"title", "object", "credit"}. A
folder holds ``reference.jpg`` with ``reference_mask.png``, and either ``01.jpg``, ``02.jpg`` … or
``clip.mp4``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from apps.suite.examples import FOLDER as PICTURES
from apps.suite.examples import example_button
from apps.suite.notices import Notice
from apps.suite.personalize import inputs
from apps.suite.personalize.session import PersonalizeSession
from apps.suite.segment import edits
from core.errors import ImageError
from core.images import load
from core.prompts import MaskPrompt

FOLDER = PICTURES / "personal"


@dataclass(frozen=True)
class ExampleSet:
    """One object with its pictures or clip."""

    folder: Path
    title: str
    object: str
    credit: str

    @property
    def reference(self) -> Path:
        return self.folder / "reference.jpg"

    @property
    def mask(self) -> Path:
        return self.folder / "reference_mask.png"

    @property
    def files(self) -> list[str]:
        """The clip, or all pictures to search."""
        clip = self.folder / "clip.mp4"
        if clip.is_file():
            return [str(clip)]
        return [str(path) for path in sorted(self.folder.glob("[0-9]*.jpg"))]


@cache
def example_sets(folder: Path = FOLDER) -> dict[str, ExampleSet]:
    """All sets by name, in the order of the file."""
    facts = json.loads((folder / "sets.json").read_text("utf-8"))
    return {
        name: ExampleSet(folder / name, fact["title"], fact["object"], fact["credit"])
        for name, fact in facts.items()
    }


@cache
def gallery_html(folder: Path = FOLDER) -> str:
    """Write a button for each set, its number key in presentation mode."""
    buttons = "".join(
        example_button(name, f"personalize_example_{number}", one.reference, one.title, one.credit)
        for number, (name, one) in enumerate(example_sets(folder).items(), start=1)
    )
    return f'<div class="panel-title">Examples</div><div class="gallery">{buttons}</div>'


def use_example(session: PersonalizeSession, name: object) -> None:
    """Start anew with one of the sets. Raises ImageError if there is none of that name."""
    if not isinstance(name, str) or name not in example_sets():
        raise ImageError("That example is not here any more; choose another one.")
    chosen = example_sets()[name]
    with session.lock:
        inputs.start_over(session)
        edits.use_picture(session, load(chosen.reference))
        mask = MaskPrompt.parse(load(chosen.mask).image, session.need_picture().size).mask
        edits.put_mask(session, mask)
        edits.name_current(session, chosen.object)
        inputs.read_queries(session, chosen.files, own=False)
        if session.clip is None:
            session.notice = Notice("busy", "Reading the example…")
        else:
            session.frame = session.clip, 0  # the reference is its first frame
