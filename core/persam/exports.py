"""Results of PerSAM as files: pictures with their records, profiles and weights, and clips.

Names and formats are those of ``core.exports``; several pictures have a folder each, and a clip's
masks are in DAVIS's layout.
"""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import NothingFound
from core.exports import Files, merge_coco, name_prefix, record, slug, to_json, write_all, write_zip
from core.overlays import draw, hex_color
from core.persam.clips import Clip, write_clip, write_davis

if TYPE_CHECKING:
    from core.persam.pipeline import PersamResult, Trace
    from core.persam.profile import Profile
    from core.persam.scale import ScaleWeights
    from core.persam.video import FrameResult, VideoResult


@dataclass(frozen=True, eq=False)
class FoundPicture:
    """One picture with what was found in it.

    Args:
        stem: the upload's name; slugged for files.
        image: RGB uint8 (H, W, 3), the original picture.
        overlay: RGB(A) as the visitor sees it; drawn with the defaults if None.
    """

    stem: str
    image: NDArray[np.uint8]
    result: PersamResult
    overlay: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class PictureFiles:
    """Where ``write_pictures`` put everything; ``pictures`` and ``profiles`` in the given order.

    Args:
        archive: ZIP of all, with a folder for each picture.
        coco: annotations of all pictures in one file.
        results: list of records, one for each picture, as ``picture_record`` makes them.
        weights: PerSAM-F's, None if none were learned.
        pictures: each picture's own files, in a folder of its own.
    """

    archive: Path
    coco: Path
    results: Path
    profiles: tuple[Path, ...]
    weights: Path | None
    pictures: tuple[Files, ...]

    @property
    def overlays(self) -> tuple[Path, ...]:
        """One picture for each picture given."""
        return tuple(files.overlay for files in self.pictures)

    @property
    def summaries(self) -> tuple[Path, ...]:
        """The files that are about all pictures together."""
        weights = () if self.weights is None else (self.weights,)
        return (self.results, self.coco, *weights, *self.profiles)

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file but the archives, which hold them."""
        return (*self.summaries, *(path for files in self.pictures for path in files.all))


@dataclass(frozen=True)
class ClipFiles:
    """Where ``write_follow`` put everything.

    Args:
        overlay: MP4 with the objects drawn over the frames.
        davis: ZIP of indexed PNGs in DAVIS's layout.
        record: JSON, as ``clip_record`` makes it.
    """

    overlay: Path
    davis: Path
    record: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file."""
        return (self.overlay, self.davis, self.record)


def write_pictures(
    pictures: Iterable[FoundPicture],
    profiles: Sequence[Profile],
    folder: Path,
    when: datetime | None = None,
) -> PictureFiles:
    """Write every download of one or more pictures.

    Args:
        pictures: taken one by one, so a generator needs no more memory than its largest picture.
        profiles: of the objects that were looked for.
        folder: made if it is not there; give each call its own.
        when: the time in the names, now if None.

    Raises:
        NothingFound: there is no picture. (One in which nothing was found is written.)
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    records: list[dict[str, Any]] = []
    written: list[Files] = []
    names: set[str] = set()
    for number, picture in enumerate(pictures, start=1):
        name = _distinct(picture.stem, names)
        own = folder / f"{number:02d}_{slug(name) or 'image'}"
        segmentation = picture.result.segmentation
        written.append(
            write_all(picture.image, segmentation, name, own, when, overlay=picture.overlay)
        )
        records.append(picture_record(name, picture.result))
    if not records:
        raise NothingFound("There is no result to download yet; look for an object first.")
    return _write_summaries(records, written, profiles, folder, when)


def _write_summaries(
    records: Sequence[dict[str, Any]],
    written: Sequence[Files],
    profiles: Sequence[Profile],
    folder: Path,
    when: datetime,
) -> PictureFiles:
    """Write what is about all pictures, and the archive."""
    method, model = records[0]["method"], records[0]["model"]
    stem = records[0]["image"]["name"] if len(records) == 1 else f"{len(records)} pictures"
    prefix = folder / name_prefix(stem, method, when)
    coco = merge_coco(
        [json.loads(files.coco.read_bytes()) for files in written],
        f"{method} ({model}) on {stem}",
        [profile.name for profile in profiles],
    )
    weights = [
        {"name": profile.name, **describe_weights(profile.scale_weights)}
        for profile in profiles
        if profile.scale_weights is not None
    ]
    slugs: set[str] = set()
    labels = [_distinct(slug(profile.name) or "object", slugs) for profile in profiles]
    files = PictureFiles(
        archive=Path(f"{prefix}_all.zip"),
        coco=_write(f"{prefix}_coco.json", to_json(coco)),
        results=_write(f"{prefix}_results.json", to_json(records)),
        profiles=tuple(
            profile.save(Path(f"{prefix}_profile_{label}.safetensors"))
            for profile, label in zip(profiles, labels, strict=True)
        ),
        weights=_write(f"{prefix}_weights.json", to_json(weights)) if weights else None,
        pictures=tuple(written),
    )
    write_zip(files.archive, _entries(files), when)
    return files


def picture_record(name: str, result: PersamResult) -> dict[str, Any]:
    """Describe what was found in one picture, and the evidence for it, as JSON values.

    It is ``core.exports.record`` with the picture's name, the ``presence_score`` of each
    instance, and ``objects``: a row for each object that was looked for, also if it is not there.
    """
    told = record(result.segmentation)
    scores = {found.number: found.presence.score for t in result.traces for found in t.found}
    for instance in told["instances"]:
        instance["presence_score"] = round(scores[instance["id"]], 4)
    told["image"] = {"name": name, **told["image"]}
    told["objects"] = [_object(trace, result) for trace in result.traces]
    return told


def _object(trace: Trace, result: PersamResult) -> dict[str, Any]:
    """One object in one picture: its numbers there, and the evidence of its first answer.

    ``presence_threshold`` is None where a mask was always to be given.
    """
    there = result.segmentation.numbers
    weights = trace.profile.scale_weights if result.config.scale == "learned" else None
    return {
        "name": trace.profile.name,
        "instances": [found.number for found in trace.found if found.number in there],
        "presence_score": round(trace.found[0].presence.score, 4),
        "presence_threshold": result.config.presence_threshold,
        "weights": None if weights is None else describe_weights(weights),
    }


def describe_weights(weights: ScaleWeights) -> dict[str, float]:
    """PerSAM-F's weights as JSON: w1 and w2 of the second and third reading, w3 of the first."""
    return {"w1": weights.w1, "w2": weights.w2, "w3": 1 - weights.w1 - weights.w2}


def write_follow(
    clip: Clip,
    result: VideoResult,
    stem: str,
    folder: Path,
    when: datetime | None = None,
    *,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> ClipFiles:
    """Write the downloads of a clip: those frames that are done.

    Args:
        clip: what ``result`` is of.
        stem: the upload's name; slugged for files and as the sequence's name.
        folder: made if it is not there; give each call its own.
        when: the time in the names, now if None.
        facts: more of the record, as JSON values: model, parameters, warnings.

    Raises:
        NothingFound: not a single frame is done.
    """
    if not result.frames:
        raise NothingFound("No frame of the clip is done yet, so there is nothing to download.")
    when = (when or datetime.now(UTC)).astimezone(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / name_prefix(stem, "persam_video", when)
    seen = (
        _draw_frame(image, frame) for image, frame in zip(clip.frames, result.frames, strict=False)
    )
    return ClipFiles(
        overlay=write_clip(Path(f"{prefix}_overlay.mp4"), seen, clip.frame_rate),
        davis=_write_davis_zip(Path(f"{prefix}_davis.zip"), slug(stem) or "clip", result, when),
        record=_write(f"{prefix}_record.json", to_json({**clip_record(clip, result), **facts})),
    )


def clip_record(clip: Clip, result: VideoResult) -> dict[str, Any]:
    """Describe a followed clip as JSON values.

    ``scores`` are presence scores in the objects' order, None where an object was not looked for
    (1.0 in the frame that its mask was given for), and ``area_px`` the pixels of its mask.
    """
    height, width = clip.size
    names = list(zip(result.numbers, result.names, strict=True))
    return {
        "method": "persam_video",
        "clip": {
            "width": width,
            "height": height,
            "frames": len(clip.frames),
            "frame_rate": round(clip.frame_rate, 4),
        },
        "objects": [{"id": k, "name": name, "color": hex_color(k)} for k, name in names],
        "frames_done": len(result.frames),
        "complete": result.complete,
        "frames": [_frame(frame, result.numbers) for frame in result.frames],
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
    }


def _frame(frame: FrameResult, numbers: Sequence[int]) -> dict[str, Any]:
    scores = [float(score) for score in frame.scores]
    areas = np.bincount(frame.labels.ravel(), minlength=256)[list(numbers)]
    return {
        "index": frame.index,
        "scores": [None if math.isnan(score) else round(score, 4) for score in scores],
        "area_px": areas.tolist(),
    }


def _draw_frame(image: NDArray[np.uint8], frame: FrameResult) -> NDArray[np.uint8]:
    """Draw the objects in sight over a frame (H, W, 3), in their own numbers' colours."""
    numbers = [int(k) for k in np.unique(frame.labels) if k]
    masks = frame.labels == np.array(numbers, np.uint8)[:, None, None]  # (N, H, W)
    return draw(image, masks, ids=numbers)


def _write_davis_zip(path: Path, sequence: str, result: VideoResult, when: datetime) -> Path:
    """Zip the label maps as ``Annotations/<resolution>/<sequence>/00000.png`` and so on.

    DAVIS 2017 calls its resolutions ``480p`` (480 rows) and ``Full-Resolution``.
    """
    height = result.frames[0].labels.shape[0]
    inside = f"Annotations/{'480p' if height == 480 else 'Full-Resolution'}/{sequence}"
    labels = (frame.labels for frame in result.frames)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        pictures = write_davis(Path(scratch), sequence, labels, result.frames[0].index)
        entries = ((f"{inside}/{picture.name}", picture.read_bytes()) for picture in pictures)
        return write_zip(path, entries, when)


def _entries(files: PictureFiles) -> Iterator[tuple[str, bytes]]:
    """What goes into the archive of all pictures: each one's archive as a folder, and the rest."""
    for path in files.summaries:
        yield path.name, path.read_bytes()
    for picture in files.pictures:
        with zipfile.ZipFile(picture.archive) as archive:
            for name in archive.namelist():
                yield f"{picture.archive.parent.name}/{name}", archive.read(name)


def _distinct(name: str, used: set[str]) -> str:
    """Return a name that is not among those used, with a number if need be, and note it there."""
    chosen, n = name, 1
    while chosen in used:
        n += 1
        chosen = f"{name}-{n}"
    used.add(chosen)
    return chosen


def _write(path: str, data: bytes) -> Path:
    Path(path).write_bytes(data)
    return Path(path)
