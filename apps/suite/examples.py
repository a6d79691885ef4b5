"""The example pictures that a visitor loads by one click, with their credits.

`assets/examples/credits.json` maps each file's name to {"title", "author", "license", "source"}.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apps.suite.notices import escape
from core.errors import ImageError
from core.images import fit_within, load

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "examples"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
THUMBNAIL_SIDE = 176  # px


@dataclass(frozen=True)
class Example:
    """One picture of the gallery."""

    path: Path
    title: str
    author: str = ""
    license: str = ""
    source: str = ""

    @property
    def credit(self) -> str:
        """'Cat — Stéfan van der Walt, CC0'."""
        rights = ", ".join(part for part in (self.author, self.license) if part)
        return f"{self.title} — {rights}" if rights else self.title


@cache
def examples(folder: Path = FOLDER) -> dict[str, Example]:
    """All pictures of a folder by file name, in the order of its credits."""
    credits_file = folder / "credits.json"
    credits = json.loads(credits_file.read_text("utf-8")) if credits_file.is_file() else {}
    found = {path.name for path in folder.glob("*") if path.suffix.lower() in ENDINGS}
    names = [name for name in credits if name in found] + sorted(found - credits.keys())
    return {name: _example(folder / name, credits.get(name, {})) for name in names}


def example(name: object) -> Example:
    """Return one example. Raises ImageError if there is none of that name."""
    if not isinstance(name, str) or name not in examples():
        raise ImageError("That example is not here any more; choose another one.")
    return examples()[name]


@cache
def gallery_html(folder: Path = FOLDER) -> str:
    """Write the gallery: a button for each picture, its number key in presentation mode."""
    buttons = "".join(
        example_button(name, f"example_{number}", one.path, one.title, one.credit)
        for number, (name, one) in enumerate(examples(folder).items(), start=1)
    )
    return f'<div class="panel-title">Examples</div><div class="gallery">{buttons}</div>'


def example_button(
    name: str, element_id: str, path: Path, title: str, credit: str, picture: str | None = None
) -> str:
    """Write one example as a button; static/suite.js sends its name to the tab's listener.

    Args:
        picture: address of its small picture; None: made from the file.
    """
    picture = picture or thumbnail(load(path).image)
    return (
        f'<button type="button" class="example" data-do="example" data-name="{escape(name)}" '
        f'id="{element_id}" title="{escape(credit)}"><img src="{picture}" '
        f'alt=""><span>{escape(title)}</span></button>'
    )


def credits_html(folder: Path = FOLDER) -> str:
    """List where the pictures come from."""
    rows = "".join(f"<li>{escape(one.credit)}</li>" for one in examples(folder).values())
    return f"<ul>{rows}</ul>"


def _example(path: Path, credit: dict[str, str]) -> Example:
    return Example(
        path=path,
        title=credit.get("title") or path.stem.replace("_", " ").capitalize(),
        author=credit.get("author", ""),
        license=credit.get("license", ""),
        source=credit.get("source", ""),
    )


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Encode a picture RGB uint8 (H, W, 3) small, as a data address of a JPEG."""
    bgr = cv2.cvtColor(fit_within(image, THUMBNAIL_SIDE), cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 82))[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
