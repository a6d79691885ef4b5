"""The folder of google/dreambooth: its subjects' photographs, classes and prompts.

``dataset/<subject>/*.jpg`` beside ``dataset/prompts_and_classes.txt``, which lists a class for each
subject and two lists of prompts, for things and for animals. There are no masks in it. Whoever has
one puts it at ``masks/<subject>/<photograph>.png``; else the first photograph is marked by SAM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from core.errors import ImageError

LIST = "prompts_and_classes.txt"
LIVE_CLASSES = frozenset({"cat", "dog"})
ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Prompt:
    """A prompt of an evaluation.

    Args:
        template: with "{0}" for the identifier and "{1}" for the class.
        backdrop: row of the embedded world's backdrops that it names; None outside of that world.
    """

    template: str
    backdrop: int | None = None

    @property
    def is_scene(self) -> bool:
        """Whether it says where the subject is, and changes nothing of the subject itself."""
        worn = ("wearing", "outfit")
        inside = self.template.removeprefix("a photo of ").startswith("a {0} {1} ")
        return inside and not any(word in self.template for word in worn)

    def fill(self, identifier: str, noun: str) -> str:
        """The prompt of a learned subject; with an empty identifier that of the class."""
        return " ".join(self.template.format(identifier, noun).split())


@dataclass(frozen=True, eq=False)
class GivenSubject:
    """One subject to learn.

    Args:
        images: RGB uint8 (H, W, 3).
        masks: bool (H, W) of each picture, None where there is none.
        backdrops: rows of the embedded world's backdrops that the pictures show; () elsewhere.
        prompts: to draw afterwards.
    """

    name: str
    noun: str
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.bool_] | None, ...]
    prompts: tuple[Prompt, ...]
    backdrops: tuple[int, ...] = ()


def google_subjects(folder: Path) -> Iterator[GivenSubject]:
    """Read the subjects in the order of the list.

    Args:
        folder: the repository, or its folder ``dataset``.

    Raises:
        ImageError: the list or a subject's photographs are missing.
    """
    root = folder / "dataset" if (folder / "dataset").is_dir() else folder
    if not (root / LIST).is_file():
        raise ImageError(f"There is no {LIST} in {folder}: give the folder of google/dreambooth.")
    text = (root / LIST).read_text("utf-8")
    things, animals = read_prompts(text)
    for name, noun in read_classes(text).items():
        paths = sorted(p for p in (root / name).glob("*") if p.suffix.lower() in ENDINGS)
        if not paths:
            raise ImageError(f"There are no photographs of {name} in {root}: get the data again.")
        yield GivenSubject(
            name=name,
            noun=noun,
            images=tuple(_read(path) for path in paths),
            masks=tuple(_mask(folder / "masks" / name / f"{p.stem}.png") for p in paths),
            prompts=animals if noun in LIVE_CLASSES else things,
        )


def read_classes(text: str) -> dict[str, str]:
    """Class of each subject, of the list's text. Raises ImageError if there is none."""
    part = text.partition("subject_name,class")[2].partition("Prompts")[0]
    rows = dict(line.strip().split(",", 1) for line in part.splitlines() if "," in line)
    if not rows:
        raise ImageError(f"{LIST} names no subjects: get the data again.")
    return rows


def read_prompts(text: str) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Prompts of things and of animals, of the list's text. Raises ImageError if there are none."""
    things, _, animals = text.partition("Live Subject Prompts")
    found = tuple(
        tuple(Prompt(template) for template in re.findall(r"^'(.*\{1\}.*)'\.format", part, re.M))
        for part in (things, animals)
    )
    if not all(found):
        raise ImageError(f"{LIST} lists no prompts: get the data again.")
    return found[0], found[1]


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))


def _mask(path: Path) -> NDArray[np.bool_] | None:
    if not path.is_file():
        return None
    with Image.open(path) as file:
        return np.asarray(file.convert("L")) > 127
