"""The folders of PixelLM's data sets as they were published.

MUSE (questions with several targets), ReasonSeg (one target that takes reasoning), RefCOCO,
RefCOCO+ and RefCOCOg (one target by a phrase), and multi-RefCOCO, which asks for several of these
phrases at once. Questions have the published form that asks for masks; where training drew one of
several forms, it is always the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from core.errors import ImageError
from core.evaluation.car_layouts import refcoco_scenes
from core.evaluation.data import PICTURE_SUFFIXES
from core.evaluation.pixellm_data import Asked, Talk
from core.images import load

SEG = "{seg}"  # in MUSE's written answers, behind each target's words
ASK_FOR = "What is {} in this image?"
MULTI_SIZES = (6, 5, 4)  # phrases asked for at once, by turns
MUSE_SPLITS = {
    "val": "muse_val.json",
    "train": "muse_train.json",
    "test_less": "muse_test_less.json",
    "test_many": "muse_test_many.json",
}


def muse_talks(folder: Path, split: str | None = None) -> Iterator[Talk]:
    """Yield MUSE's questions: muse_<split>.json, and COCO's pictures anywhere below the folder.

    A question whose written answer has another number of places than targets is left out, as the
    published loader does.

    Args:
        split: val, train, test_less or test_many; None: val.

    Raises:
        ImageError: a file is missing, or the JSON has another layout.
    """
    name = MUSE_SPLITS.get(split or "val")
    found = [path for path in sorted(folder.rglob("muse_*.json")) if path.name == name]
    if not found:
        raise ImageError(f"{folder} has no {name or f'split {split}'} of MUSE.")
    pictures = pictures_below(folder)
    records = _read_json(found[0])
    if not isinstance(records, list):
        raise ImageError(f"{found[0].name} is no list of pictures with questions (MUSE).")
    for record in records:
        yield from _muse_picture(record, pictures, found[0].name)


def _muse_picture(record: Any, pictures: dict[str, Path], file: str) -> Iterator[Talk]:
    try:
        name = Path(record.get("file_name") or record["coco_url"]).name
        questions, answers = record["questions"], record["answers"]
    except (AttributeError, KeyError, TypeError):
        raise ImageError(f"{file} has a picture without name, questions or answers.") from None
    texts = record.get("text_answers") or [None] * len(questions)
    image = load(_picture(name, pictures, file)).image
    for question, targets, text in zip(questions, answers, texts, strict=True):
        if not targets or (text and text.count(SEG) != len(targets)):
            continue
        truth = np.stack([segmentation_mask(t["segmentation"], image.shape[:2]) for t in targets])
        asked = Asked(
            kind="few" if len(targets) <= 3 else "many",
            question=question,
            truth=truth,
            descriptions=tuple(_names(target) for target in targets),
            style="mask",
        )
        yield Talk(image, (asked,))


def _names(target: dict[str, Any]) -> tuple[str, ...]:
    """What MUSE calls a target, its description first."""
    names = (target.get("rephrased_name"), target.get("category_name"))
    return tuple(name.replace("_", " ") for name in names if name)


def segmentation_mask(segmentation: Any, size: Sequence[int]) -> NDArray[np.bool_]:
    """A mask (H, W) of COCO's polygons or run lengths, compressed or not.

    Raises:
        ImageError: it is neither, or of another size.
    """
    from pycocotools import mask as coco_mask

    height, width = size[:2]
    try:
        if isinstance(segmentation, list):
            parts = coco_mask.frPyObjects(segmentation, height, width)
            encoded = coco_mask.merge(parts)
        elif isinstance(segmentation["counts"], list):
            encoded = coco_mask.frPyObjects(segmentation, height, width)
        else:
            encoded = segmentation
        mask = coco_mask.decode(encoded).astype(bool)
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError("A segmentation is neither polygons nor run lengths.") from error
    if mask.shape != (height, width):
        raise ImageError(f"A mask is {mask.shape}, its picture {(height, width)} (height, width).")
    return mask


def reasonseg_talks(folder: Path, split: str | None = None) -> Iterator[Talk]:
    """Yield ReasonSeg: <split>/*.jpg with a JSON of polygons and texts of the same stem.

    The first text is asked, as in the published evaluation. All masks of the answer count as one;
    pixels marked to be ignored do not count.

    Args:
        split: train, val or test; None: val.

    Raises:
        ImageError: files are missing or of another layout.
    """
    root = folder / (split or "val")
    files = sorted(root.glob("*.json"))
    if not files:
        raise ImageError(f"{folder} has no {split or 'val'}/*.json with pictures (ReasonSeg).")
    for path in files:
        picture = path.with_suffix(".jpg")
        if not picture.is_file():
            raise ImageError(f"{path.name} has no picture {picture.name}.")
        yield _reasonseg_picture(_read_json(path), load(picture).image, path.name)


def _reasonseg_picture(record: Any, image: NDArray[np.uint8], file: str) -> Talk:
    try:
        text, is_sentence = record["text"], record["is_sentence"]
        text = text if isinstance(text, str) else text[0]
        target, ignored = _polygon_masks(record["shapes"], image.shape[:2])
    except (KeyError, TypeError, IndexError, ValueError):
        raise ImageError(f"{file} has no text, is_sentence and shapes (ReasonSeg).") from None
    asked = Asked(
        kind="long" if is_sentence else "short",
        question=text if is_sentence else ASK_FOR.format(text),
        truth=target[None] & ~ignored,
        ignored=ignored,
        matching="merged",
        style="mask",
    )
    return Talk(image, (asked,))


def _polygon_masks(
    shapes: Sequence[dict[str, Any]], size: Sequence[int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Target and ignored pixels (H, W); smaller polygons lie over larger ones."""
    values = np.zeros(size, np.uint8)
    drawn = []
    for shape in shapes:
        if "flag" in shape["label"].lower():  # a point that annotators set, no region
            continue
        canvas = Image.new("1", (size[1], size[0]))
        points = [(float(x), float(y)) for x, y in shape["points"]]
        ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
        drawn.append((np.array(canvas), 2 if "ignore" in shape["label"].lower() else 1))
    for mask, value in sorted(drawn, key=lambda one: -int(one[0].sum())):
        values[mask] = value
    return values == 1, values == 2


def refcoco_talks(folder: Path, split: str | None = None) -> Iterator[Talk]:
    """Yield RefCOCO's expressions, each a question of its own; arguments of ``refcoco_scenes``."""
    for scene in refcoco_scenes(folder, split):
        for phrase in scene.phrases:
            asked = Asked(
                kind="phrase",
                question=ASK_FOR.format(phrase),
                truth=scene.mask[None],
                matching="merged",
                style="mask",
            )
            yield Talk(scene.image, (asked,))


def multi_refcoco_talks(folder: Path, split: str | None = None) -> Iterator[Talk]:
    """Yield the expressions of each picture in groups of 6, 5, 4, 6 and so on, one question each.

    The answer's masks are taken in order, the k-th for the k-th expression.
    """
    for _, scenes in groupby(refcoco_scenes(folder, split), key=lambda scene: id(scene.image)):
        own = list(scenes)
        pairs = [(phrase, scene.mask) for scene in own for phrase in scene.phrases]
        for chosen in in_chunks(pairs):
            phrases = [phrase for phrase, _ in chosen]
            asked = Asked(
                kind=f"{len(chosen)} phrases",
                question=ASK_FOR.format(_join(phrases)),
                truth=np.stack([mask for _, mask in chosen]),
                descriptions=tuple((phrase,) for phrase in phrases),
                matching="ordered",
                style="mask",
            )
            yield Talk(own[0].image, (asked,))


def in_chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Parts of ``MULTI_SIZES`` by turns, the last one of what is left."""
    begin = 0
    for size in cycle(MULTI_SIZES):
        if begin >= len(values):
            return
        yield values[begin : begin + size]
        begin += size


Reader = Callable[[Path, str | None], Iterator[Talk]]
READERS: dict[str, Reader] = {
    "muse": muse_talks,
    "reasonseg": reasonseg_talks,
    "refcoco": refcoco_talks,
    "multi_refcoco": multi_refcoco_talks,
}


def pictures_below(folder: Path) -> dict[str, Path]:
    """All pictures of a folder by their file names."""
    return {p.name: p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES}


def _picture(name: str, pictures: dict[str, Path], file: str) -> Path:
    if name not in pictures:
        raise ImageError(f"{name} is named in {file} but is not below the data set's folder.")
    return pictures[name]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ImageError(f"{path.name} is no JSON file.") from error


def _join(phrases: Sequence[str]) -> str:
    """ "a, b and c", in small letters, as published."""
    small = [phrase.lower() for phrase in phrases]
    return small[0] if len(small) == 1 else f"{', '.join(small[:-1])} and {small[-1]}"
