"""Files of a text query: what `core.exports` writes, each step of the recurrence, the maps."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.car.queries import Queries
from core.car.recurrence import Step
from core.car.results import CarResult
from core.exports import Files, name_prefix, record, slug, to_json, write_all, write_zip


@dataclass(frozen=True)
class TextFiles:
    """Where `write_text` put everything.

    Args:
        masks: what every method writes.
        told: the record with the steps.
        maps: of the words that stayed, 8-bit grey in the size that was worked on.
    """

    masks: Files
    told: Path
    maps: tuple[Path, ...]

    @property
    def archive(self) -> Path:
        """A ZIP of all the others, with `parameters.json`."""
        return self.masks.archive

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.archive, self.told, *self.masks.all, *self.maps)


def text_record(result: CarResult, notices: Sequence[str] = ()) -> dict[str, Any]:
    """Describe an answer as JSON values: the common record, and ``steps``.

    Args:
        notices: sentences about the picture.
    """
    told = record(result.segmentation)
    told["warnings"] = [*notices, *told["warnings"]]
    told["steps"] = [
        _step(result.queries, step, number) for number, step in enumerate(result.steps, start=1)
    ]
    return told


def write_text(
    image: NDArray[np.uint8],
    result: CarResult,
    stem: str,
    folder: Path,
    when: datetime | None = None,
    *,
    overlay: NDArray[np.uint8] | None = None,
    notices: Sequence[str] = (),
) -> TextFiles:
    """Write every download of a text query.

    Args:
        image, stem, folder, when, overlay: as ``core.exports.write_all`` takes them.
        notices: as ``text_record`` takes them.
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    found = result.segmentation
    files = write_all(image, found, stem, folder, when, overlay=overlay)
    prefix = name_prefix(stem, found.method, when)
    told = folder / f"{prefix}_text.json"
    told.write_bytes(to_json(text_record(result, notices)))
    maps = []
    for word, values in zip(result.steps[-1].kept, result.maps(), strict=True):
        name = "_".join(part for part in (f"map_{word + 1}", slug(result.queries.words[word])))
        path = folder / f"{prefix}_{name.rstrip('_')}.png"
        grey = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
        path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())
        maps.append(path)
    written = TextFiles(files, told, tuple(maps))
    _rewrite_archive(written, when)
    return written


def _step(queries: Queries, step: Step, number: int) -> dict[str, Any]:
    scores = step.scores
    words = []
    for row, word in enumerate(step.live):
        one: dict[str, Any] = {"label": queries.words[word], "kept": step.reasons[row] is None}
        one["reason"] = step.reasons[row]
        one["score"] = None if scores is None else _rounded(scores.own[row])
        one["template_mean"] = None if scores is None else _rounded(scores.template_means[row])
        known = scores is not None and scores.presence is not None
        one["presence"] = _rounded(scores.presence[row]) if known else None  # type: ignore
        words.append(one)
    return {"step": number, "words": words}


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _rewrite_archive(files: TextFiles, when: datetime) -> None:
    """Put what is particular to text queries into the archive of all files."""
    with zipfile.ZipFile(files.archive) as archive:
        parameters = archive.read("parameters.json")
    entries = [(path.name, path.read_bytes()) for path in files.all[1:]]
    write_zip(files.archive, [*entries, ("parameters.json", parameters)], when)
