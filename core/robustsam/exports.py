"""Files of a comparison: the degraded picture, both models' results, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.exports import name_prefix, picture_png, record, to_json, write_all, write_zip
from core.robustsam.pipeline import Comparison
from core.robustsam.priors import BEFORE, Restoration

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class ComparisonFiles:
    """Where `write_comparison` put everything; one overlay for each model that found something."""

    archive: Path
    comparison: Path
    picture: Path
    overlays: tuple[Path, ...]
    restored: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.archive, self.comparison, self.picture, *self.overlays, *self.restored)


def comparison_record(
    comparison: Comparison,
    parameters: dict[str, Any],
    ious: tuple[float, float] | None,
    notices: tuple[str, ...] = (),
    restored: Sequence[Restoration] = (),
) -> dict[str, Any]:
    """Describe a comparison as JSON values.

    Args:
        parameters: of the degradation, as ``Degraded`` has them.
        ious: of SAM and RobustSAM with the clear picture's mask, if known.
        notices: sentences about the picture.
        restored: the picture and what deblurring made of it, if that was done.
    """
    answers = {"sam": comparison.sam, "robustsam": comparison.robust}
    told = {
        "degradation": parameters,
        "results": {
            name: None if answer is None else record(answer.segmentation)
            for name, answer in answers.items()
        },
        "iou": None if ious is None else {"sam": ious[0], "robustsam": ious[1]},
        "agreement": comparison.agreement,
        "warnings": list(notices),
    }
    if restored:
        told["restored"] = {one.name: asdict(one.quality) for one in restored}
    return told


def write_comparison(
    image: Image,
    comparison: Comparison,
    told: dict[str, Any],
    stem: str,
    folder: Path,
    overlays: dict[str, Image] | None = None,
    when: datetime | None = None,
    restored: Sequence[Restoration] = (),
) -> ComparisonFiles:
    """Write every download of a comparison.

    Args:
        image: RGB uint8 (H, W, 3), the picture that both models saw.
        told: as ``comparison_record`` returns it.
        stem: the upload's name; slugged here.
        folder: made if it is not there; give each call its own.
        overlays: RGB(A) of "sam" and "robustsam" as the visitor sees them; else the defaults.
        when: the time in the names, now if None.
        restored: as ``comparison_record`` takes it; a picture of each is written.
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = name_prefix(stem, "robustsam", when)
    picture = _write_picture(folder / f"{prefix}_picture.png", image)
    summary = folder / f"{prefix}_comparison.json"
    summary.write_bytes(to_json(told))
    written = [
        write_all(
            image, answer.segmentation, stem, folder, when, overlay=(overlays or {}).get(name)
        )
        for name, answer in (("sam", comparison.sam), ("robustsam", comparison.robust))
        if answer is not None
    ]
    deblurred = tuple(
        _write_picture(folder / f"{prefix}_restored_{one.name}.png", one.image)
        for one in restored
        if one.name != BEFORE
    )
    entries = [(path.name, path.read_bytes()) for path in (picture, summary, *deblurred)]
    entries += [(path.name, path.read_bytes()) for files in written for path in files.all]
    archive = write_zip(folder / f"{prefix}_comparison.zip", entries, when)
    overlaid = tuple(one.overlay for one in written)
    return ComparisonFiles(archive, summary, picture, overlaid, deblurred)


def _write_picture(path: Path, image: Image) -> Path:
    path.write_bytes(picture_png(image))
    return path
