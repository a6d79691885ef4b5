"""Masks of all pictures from one marked one, by PerSAM; and pictures with masks as files.

On disk: ``pictures/<stem>.png``, ``masks/<stem>.png`` (8 bit, 0 and 255, of the picture's size)
and ``masks.json`` with where each mask comes from, its scores and the decision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.dreambooth.storage import write_atomically
from core.dreambooth.subjects import SubjectPicture, area_warnings, check_count
from core.errors import PromptError
from core.models.presets import calibrated_threshold
from core.persam.config import FitConfig, PersamConfig
from core.persam.pipeline import find, learn
from core.persam.target import Reference

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine
    from core.persam.pipeline import PersamResult, Progress

MaskMethod = Literal["persam_f", "persam"]

LIST_FILE = "masks.json"


@dataclass(frozen=True)
class MaskOrigin:
    """How a subject's masks were made.

    Args:
        method: "persam_f", "persam", or "drawn" if nobody was asked.
        model: id of the SAM.
        scale_weights: PerSAM-F's w1 and w2; None for the others.
        presence_threshold: below it, the subject counts as absent; None: no such threshold.
    """

    method: str
    model: str
    scale_weights: tuple[float, float] | None = None
    presence_threshold: float | None = None


def propose_masks(
    engine: Engine,
    model_id: str,
    pictures: Sequence[SubjectPicture],
    marked: int,
    *,
    method: MaskMethod = "persam_f",
    fit: FitConfig | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> tuple[list[SubjectPicture], MaskOrigin]:
    """Find the subject of one marked picture in all others.

    Args:
        model_id: a SAM of the catalogue.
        marked: index of the picture whose mask is the visitor's; it is kept as it is.
        fit: of PerSAM-F's weights.

    Returns:
        The pictures in their order, those without decision with a mask, scores and warnings, and
        the marked one accepted. Where the subject seems absent, the warning says so and the mask
        shows what comes closest.

    Raises:
        PromptError: too few or too many pictures, or the marked one has no mask.
        Cancelled: on request.
    """
    check_count(len(pictures))
    reference = pictures[marked]
    if reference.mask is None:
        raise PromptError(f"{reference.stem} has no mask: paint the subject in it first.")
    threshold = calibrated_threshold(engine.entry(model_id))
    if method == "persam_f":
        config = PersamConfig.persam_f(presence_threshold=threshold)
    else:
        config = PersamConfig(presence_threshold=threshold)
    learned = learn(
        engine,
        model_id,
        [Reference(reference.image, reference.mask)],
        name="subject",
        config=config,
        fit=(fit or FitConfig()) if method == "persam_f" else None,
        cancel=cancel,
    )
    done = []
    for index, picture in enumerate(pictures):
        if progress is not None:
            progress(index / len(pictures), f"Looking for the subject in {picture.stem}")
        if index == marked:
            done.append(picture.redraw(reference.mask))
        elif picture.decision is not None:
            done.append(picture)
        else:
            result = find(engine, model_id, picture.image, learned.profile, config, cancel=cancel)
            done.append(_with_answer(picture, result, method, threshold))
    weights = learned.profile.scale_weights
    pair = None if weights is None else (weights.w1, weights.w2)
    return done, MaskOrigin(method, model_id, pair, threshold)


def name_pictures(names: Sequence[str]) -> list[str]:
    """Make stems of uploads' names: safe as file names, and no two alike."""
    stems: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w-]+", "-", name).strip("-")[:40] or "picture"
        stem, number = plain, 1
        while stem.lower() in {one.lower() for one in stems}:
            number += 1
            stem = f"{plain}-{number}"
        stems.append(stem)
    return stems


def save_pictures(
    folder: Path, pictures: Sequence[SubjectPicture], origin: MaskOrigin | None = None
) -> None:
    """Write pictures, masks and their list; the list comes last, so that it is never too early."""
    for name in ("pictures", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        name = _file_name(picture.stem)
        _save_png(folder / "pictures" / name, picture.image)
        if picture.mask is not None:
            drawn = picture.mask.astype(np.uint8) * np.uint8(255)
            _save_png(folder / "masks" / name, drawn)
    record = {
        "method": origin.method if origin else "drawn",
        "model": origin.model if origin else None,
        "scale_weights": origin.scale_weights if origin else None,
        "presence_threshold": origin.presence_threshold if origin else None,
        "pictures": [_record(picture) for picture in pictures],
    }
    write_atomically(folder / LIST_FILE, json.dumps(record, indent=1).encode())


def load_pictures(folder: Path) -> list[SubjectPicture]:
    """Read what ``save_pictures`` wrote.

    Raises:
        PromptError: a file is missing or damaged.
    """
    try:
        record = json.loads((folder / LIST_FILE).read_bytes())
        return [_load_picture(folder, facts) for facts in record["pictures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"The subject's pictures in {folder.name} are missing or damaged: give them again."
        ) from error


def _with_answer(
    picture: SubjectPicture, result: PersamResult, method: MaskMethod, threshold: float | None
) -> SubjectPicture:
    """A picture with PerSAM's best answer, whether it was accepted or not."""
    answer = result.traces[0].found[0]
    presence = answer.presence.score
    warnings = area_warnings(answer.mask)
    if not answer.mask.any():
        warnings = ("The subject was not found: draw the mask, or leave the picture out.",)
    elif not answer.accepted:
        warnings = (
            f"The subject seems not to be in this picture (presence {presence:.2f}, expected "
            f"{threshold or 0:.2f} or more): leave it out, or draw the mask.",
            *warnings,
        )
    return replace(
        picture,
        mask=answer.mask,
        source=method,
        score=float(np.clip(answer.stages[-1].score, 0, 1)),
        presence=presence,
        warnings=warnings,
    )


def _record(picture: SubjectPicture) -> dict[str, Any]:
    return {
        "stem": picture.stem,
        "has_mask": picture.mask is not None,
        "source": picture.source,
        "decision": picture.decision,
        "score": picture.score,
        "presence": picture.presence,
        "area_share": picture.area_share,
        "warnings": picture.warnings,
    }


def _load_picture(folder: Path, facts: dict[str, Any]) -> SubjectPicture:
    name = _file_name(facts["stem"])
    with Image.open(folder / "pictures" / name) as file:
        image = np.asarray(file.convert("RGB"))
    mask: NDArray[np.bool_] | None = None
    if facts["has_mask"]:
        with Image.open(folder / "masks" / name) as file:
            mask = np.asarray(file.convert("L")) > 127
    return SubjectPicture(
        stem=facts["stem"],
        image=image,
        mask=mask,
        source=facts["source"],
        decision=facts["decision"],
        score=facts["score"],
        presence=facts["presence"],
        warnings=tuple(facts["warnings"]),
    )


def _file_name(stem: str) -> str:
    """A stem as a file's name, which leads nowhere else whatever the stem is."""
    return f"{name_pictures([stem])[0]}.png"


def _save_png(path: Path, array: NDArray[np.uint8]) -> None:
    Image.fromarray(array).save(path, format="PNG", compress_level=3)
