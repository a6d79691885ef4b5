"""Files of a comparison: the degraded picture, both models' results, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.exports import name_prefix, picture_png, record, to_json, write_all, write_zip
from core.robustsam.pipeline import Comparison

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class ComparisonFiles:
    """Where `write_comparison` put everything; one overlay for each model that found something."""

    archive: Path
    comparison: Path
    picture: Path
    overlays: tuple[Path, ...]

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.archive, self.comparison, self.picture, *self.overlays)


def comparison_record(
    comparison: Comparison,
    parameters: dict[str, Any],
    ious: tuple[float, float] | None,
    notices: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Describe a comparison as JSON values.

    Args:
        parameters: of the degradation, as ``Degraded`` has them.
        ious: of SAM and RobustSAM with the clear picture's mask, if known.
        notices: sentences about the picture.
    """
    answers = {"sam": comparison.sam, "robustsam": comparison.robust}
    return {
        "degradation": parameters,
        "results": {
            name: None if answer is None else record(answer.segmentation)
            for name, answer in answers.items()
        },
        "iou": None if ious is None else {"sam": ious[0], "robustsam": ious[1]},
        "agreement": comparison.agreement,
        "warnings": list(notices),
    }


def write_comparison(
    image: Image,
    comparison: Comparison,
    told: dict[str, Any],
    stem: str,
    folder: Path,
    overlays: dict[str, Image] | None = None,
    when: datetime | None = None,
) -> ComparisonFiles:
    """Write every download of a comparison.

    Args:
        image: RGB uint8 (H, W, 3), the picture that both models saw.
        told: as ``comparison_record`` returns it.
        stem: the upload's name; slugged here.
        folder: made if it is not there; give each call its own.
        overlays: RGB(A) of "sam" and "robustsam" as the visitor sees them; else the defaults.
        when: the time in the names, now if None.
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = name_prefix(stem, "robustsam", when)
    picture = folder / f"{prefix}_picture.png"
    picture.write_bytes(picture_png(image))
    summary = folder / f"{prefix}_comparison.json"
    summary.write_bytes(to_json(told))
    written = [
        write_all(
            image, answer.segmentation, stem, folder, when, overlay=(overlays or {}).get(name)
        )
        for name, answer in (("sam", comparison.sam), ("robustsam", comparison.robust))
        if answer is not None
    ]
    entries = [(path.name, path.read_bytes()) for path in (picture, summary)]
    entries += [(path.name, path.read_bytes()) for files in written for path in files.all]
    archive = write_zip(folder / f"{prefix}_comparison.zip", entries, when)
    return ComparisonFiles(archive, summary, picture, tuple(one.overlay for one in written))
