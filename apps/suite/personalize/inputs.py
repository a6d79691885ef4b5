"""What a visitor gives the Personalize tab: pictures, masks, profiles, clips, clicks, settings.

Each a plain function that changes the session; none of them asks the model. All arguments come
from a browser and are checked here or where they are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from apps.suite.canvas import View
from apps.suite.masks import read_mask
from apps.suite.notices import Notice
from apps.suite.personalize.session import (
    NO_OBJECT,
    STAGES,
    VARIANTS,
    Choices,
    MarkedPicture,
    PersonalizeSession,
    Query,
    threshold_of,
)
from apps.suite.segment import edits
from apps.suite.segment import scene as scenes
from apps.suite.segment.scene import Scene
from core.errors import ImageError, PromptError
from core.images import LoadedImage, load
from core.models.catalogue import catalogue
from core.settings import settings

if TYPE_CHECKING:
    from core.persam.clips import Clip

T = TypeVar("T")

MOST_OBJECTS = 10

CLIP_ENDINGS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".gif")
RANGES: dict[str, tuple[float, float]] = {
    "guidance_weight": (0, 10),
    "points": (1, 10),
    "max_instances": (1, 20),
    "presence_threshold": (0, 1),
    "steps": (1, 5000),
    "learning_rate": (1e-6, 1),
}


def use_model(session: PersonalizeSession, model_id: str) -> None:
    """Go on with another model: nothing that was learned with the former one counts."""
    session.model = model_id
    edits.forget_answers(session)
    with session.lock:
        session.learned.clear()
        session.forget_results()
        if not session.threshold_is_own:
            session.change(presence_threshold=threshold_of(model_id))


# The reference pictures


def another_reference(session: PersonalizeSession) -> None:
    """Store the reference picture with its masks and make room for the next one.

    Raises:
        PromptError: nothing is marked in it, or there are as many as can be used.
    """
    from core.persam.profile import MAX_REFERENCES

    with session.lock:
        picture = session.need_picture()
        if not session.scene.instances:
            raise PromptError("Nothing is marked in this picture yet: mark the object first.")
        if len(session.references) + 2 > MAX_REFERENCES:
            raise PromptError(f"There are {MAX_REFERENCES} reference pictures, the most there are.")
        scene = scenes.keep_current(session.scene) if session.scene.current else session.scene
        session.references += (MarkedPicture(picture, scene, session.frame),)
        session.forget_picture()
        session.notice = Notice(
            "hint",
            "Drop another picture of the same object on the left. Numbers stay: object 1 there is "
            "object 1 here.",
        )


def remove_reference(session: PersonalizeSession, index: int) -> None:
    """Drop a stored reference picture. Raises PromptError if there is none such."""
    with session.lock:
        session.references = _without(session.references, index, "reference picture")


def _without(items: tuple[T, ...], index: int, what: str) -> tuple[T, ...]:
    if not 0 <= index < len(items):
        raise PromptError(f"There is no {what} {index + 1} any more.")
    return items[:index] + items[index + 1 :]


def upload_mask(session: PersonalizeSession, path: str | None) -> None:
    """Take a mask picture as the present object's mask, resized if it has another size.

    Raises:
        ImageError: the file is no readable picture.
        PromptError: there is no reference picture, or the mask is empty.
    """
    if path is None:
        return
    session.own_upload(path)
    picture = session.need_picture()
    prompt = read_mask(path, picture.size)
    edits.put_mask(session, prompt.mask)
    if prompt.notices:
        session.notice = Notice("hint", " ".join(prompt.notices))


def load_profile(session: PersonalizeSession, path: str | None) -> None:
    """Add the object of a saved profile.

    Raises:
        PromptError: it is none, damaged, or of another model.
    """
    if path is None:
        return
    from core.persam.profile import Profile

    session.own_upload(path)
    profile = Profile.read(Path(path))
    profile.check_model(catalogue()[session.model])
    with session.lock:
        if len(session.objects()) >= MOST_OBJECTS:
            raise PromptError(f"There are {MOST_OBJECTS} objects already, the most there can be.")
        session.profiles += (profile,)
        number = session.objects()[-1].number
        session.notice = Notice("ready", f"Loaded '{profile.name}' as object {number}.")


def remove_profile(session: PersonalizeSession, index: int) -> None:
    """Drop a loaded object. Raises PromptError if there is none such."""
    with session.lock:
        session.profiles = _without(session.profiles, index, "profile")


# The pictures that are searched


def read_queries(
    session: PersonalizeSession, paths: Sequence[str] | None, *, own: bool = True
) -> None:
    """Take files as the pictures to search, or one clip to follow objects through.

    What cannot be used is left out and named; the rest is taken.

    Args:
        own: they are the visitor's uploads, to be deleted with the session.

    Raises:
        ImageError: none of them can be used.
    """
    paths = list(paths or ())
    for path in paths if own else ():
        session.own_upload(path)
    with session.lock:
        session.upload += 1
        number = session.upload
    clips = [path for path in paths if Path(path).suffix.lower() in CLIP_ENDINGS]
    clips = [path for path in clips if not _is_still(path)]
    clip = _read_clip(clips[0]) if clips else None
    queries, left_out = _load_each(paths) if paths and clip is None else ((), [])
    if clip is not None and len(paths) > 1:
        left_out.append(f"The other {len(paths) - 1} files are left out: one clip at a time.")
    with session.lock:
        if session.upload != number:
            return
        session.queries, session.selected = queries, 0
        session.clip, session.followed, session.followed_file = clip, None, None
        session.stage = "result"
        if clip is not None:
            session.clip_stem = Path(clips[0]).stem
            left_out.insert(0, _clip_text(clip))
        session.notice = Notice("warning" if left_out and queries else "ready", " ".join(left_out))


def _is_still(path: str) -> bool:
    """Whether a GIF is a picture rather than a clip."""
    if Path(path).suffix.lower() != ".gif":
        return False
    try:
        with Image.open(path, formats=("GIF",)) as picture:
            return getattr(picture, "n_frames", 1) < 2
    except OSError:
        return False  # reading it as a clip says what is wrong


def _load_each(paths: Sequence[str]) -> tuple[tuple[Query, ...], list[str]]:
    """Read pictures within the limits; sentences about those that are left out."""
    queries: list[Query] = []
    left_out: list[str] = []
    pixels = 0
    for path in paths[: settings.max_test_images]:
        try:
            picture = load(path)
        except ImageError as error:
            left_out.append(f"{Path(path).name}: {error.message}")
            continue
        pixels += picture.size[0] * picture.size[1]
        if queries and pixels > settings.max_test_pixels:
            left_out.append(
                f"From {picture.stem} on they are left out: together at most "
                f"{settings.max_test_pixels / 1e6:.0f} megapixels are searched at a time."
            )
            break
        queries.append(Query(picture, View.of(picture.image)))
    if len(paths) > settings.max_test_images:
        left_out.insert(
            0,
            f"There are {len(paths)} pictures; the first {settings.max_test_images} are searched, "
            "choose the others afterwards.",
        )
    if not queries:
        raise ImageError(" ".join(left_out))
    return tuple(queries), left_out


def _read_clip(path: str) -> Clip:
    from core.persam.clips import ClipLimits, read_clip

    limits = ClipLimits(max_bytes=settings.max_clip_bytes, max_frames=settings.max_clip_frames)
    return read_clip(Path(path), limits)


def _clip_text(clip: Clip) -> str:
    height, width = clip.size
    return (
        f"Clip of {len(clip.frames)} frames, {width}×{height}. Mark the object in one of its "
        "frames, or press Find to look for the objects that you marked already."
    )


def mark_frame(session: PersonalizeSession, number: float | None) -> None:
    """Make a frame of the clip the reference picture; what was marked in another one is stored.

    Args:
        number: 1 for the first frame.

    Raises:
        PromptError: there is no clip, or no such frame.
    """
    with session.lock:
        if session.clip is None:
            raise PromptError("There is no clip: drop one on the right first.")
        count = len(session.clip.frames)
        if number is None or not 1 <= number <= count:
            raise PromptError(f"There is no frame {number or 0:.0f}: the clip has {count}.")
        if session.picture is not None and session.scene.instances:
            another_reference(session)
        index = int(number) - 1
        stem = f"{session.clip_stem} frame {index + 1}"
        edits.use_picture(session, LoadedImage(session.clip.frames[index], stem, ()))
        session.frame = session.clip, index


def read_truth(session: PersonalizeSession, paths: Sequence[str] | None) -> None:
    """Take masks to measure against; each belongs to the picture whose file name it has.

    Raises:
        PromptError: a mask belongs to none of the pictures.
    """
    masks = {}
    for path in paths or ():
        session.own_upload(path)
        masks[Path(path).stem] = path
    with session.lock:
        names = [query.loaded.stem for query in session.queries]
        if strangers := [name for name in masks if name not in names]:
            raise PromptError(
                f"No picture is called {strangers[0]!r}: a mask has the file name of its picture, "
                f"such as {names[0] if names else 'cup'}.png."
            )
        session.queries = tuple(
            replace(query, truth=_read_truth(masks.get(query.loaded.stem), query))
            for query in session.queries
        )


def _read_truth(path: str | None, query: Query) -> Any:
    if path is None:
        return None
    mask = load(path).image
    if not mask.any():  # the right one for a picture without the object
        return np.zeros(query.loaded.size, bool)
    return read_mask(path, query.loaded.size).mask


def select(session: PersonalizeSession, index: int) -> None:
    """Show one of the pictures large. Raises PromptError if there is none such."""
    with session.lock:
        if not 0 <= index < len(session.queries):
            raise PromptError(f"There is no picture {index + 1} any more.")
        session.selected = index


def step(session: PersonalizeSession, by: int) -> None:
    """Show the next or the previous picture, round and round."""
    with session.lock:
        session.need_query()
        session.selected = (session.selected + by) % len(session.queries)


def activate(session: PersonalizeSession, number: int) -> None:
    """Choose the object that correction clicks are for. Raises PromptError if unknown."""
    with session.lock:
        result = session.query.result(session.variant) if session.query else None
        known = {item.number for item in session.objects()}
        if result is not None:
            known |= {found.number for trace in result.traces for found in trace.found}
        if number not in known:
            raise PromptError(f"There is no object {number} any more.")
        session.active = number


def correct(session: PersonalizeSession, x: float, y: float, tool: str) -> None:
    """Take a correction click at a pixel of the large picture as shown, for the active object.

    Raises:
        PromptError: there is no result to correct, or no such tool.
    """
    if tool not in ("foreground", "background"):
        raise PromptError(f"There is no tool {str(tool)[:20]!r}; use foreground or background.")
    with session.lock:
        query, variant = session.need_query(), session.variant
        result = query.result(variant)
        if result is None:
            raise PromptError("There is nothing to correct yet: press Find first.")
        known = [found.number for trace in result.traces for found in trace.found]
        number = session.active if session.active in known else known[0]
        place = query.view.to_original(x, y)
        session.corrections.append((query, variant, number, *place, int(tool == "foreground")))


def show_anyway(session: PersonalizeSession) -> None:
    """Answer every picture with a mask, as published: no presence threshold."""
    with session.lock:
        session.threshold_is_own = True
        session.change(presence_threshold=0.0)


def new_object(session: PersonalizeSession) -> None:
    """Keep the mask and go on to the next object.

    Where there are earlier references an object can be left out: it is not in this picture.

    Raises:
        PromptError: there is no mask, and no earlier reference.
    """
    with session.lock:
        if session.scene.current or not session.references:
            edits.new_object(session)
            return
        number = session.scene.next_number + 1
        session.put(replace(session.scene, next_number=number))
        session.notice = Notice("ready", f"Now mark object {number}.")


def take_back(session: PersonalizeSession) -> None:
    """Take the last correction back. Raises PromptError if there is none."""
    with session.lock:
        results = session.need_query().results.get(session.variant, [])
        if len(results) < 2:
            raise PromptError("There is no correction to take back in this picture.")
        results.pop()


# Settings


def set_variant(session: PersonalizeSession, variant: str) -> None:
    """Choose PerSAM or PerSAM-F. Raises PromptError if it is neither."""
    if variant not in VARIANTS:
        raise PromptError(f"There is no method {str(variant)[:20]!r}; use one of {list(VARIANTS)}.")
    session.variant = variant  # type: ignore[assignment]


def set_stage(session: PersonalizeSession, stage: str) -> None:
    """Choose what the large frame shows. Raises PromptError if unknown."""
    if stage not in STAGES:
        raise PromptError(f"There is no view {str(stage)[:20]!r}; use one of {', '.join(STAGES)}.")
    session.need_query()
    session.stage = stage


def set_choices(session: PersonalizeSession, **values: Any) -> None:
    """Change settings of the method, by the names of `Choices`.

    Raises:
        PromptError: a number is out of its range.
    """
    kinds = {field.name: type(field.default) for field in fields(Choices)}
    checked = {name: _checked(name, value, kinds[name]) for name, value in values.items()}
    with session.lock:
        threshold = checked.get("presence_threshold", session.choices.presence_threshold)
        session.threshold_is_own = threshold != threshold_of(session.model)
        session.change(**checked)


def _checked(name: str, value: Any, kind: type) -> Any:
    if kind is bool:
        return bool(value)
    low, high = RANGES[name]
    words = name.replace("_", " ")
    if value is None:
        raise PromptError(f"There is no {words}: choose between {low:g} and {high:g}.")
    if not math.isfinite(float(value)) or not low <= float(value) <= high:
        raise PromptError(f"The {words} is {value}; choose between {low:g} and {high:g}.")
    return kind(value)


def begin_search(session: PersonalizeSession) -> None:
    """Get ready to search. Raises PromptError without an object, a picture or a clip."""
    with session.lock:
        if not session.objects():
            raise PromptError(NO_OBJECT)
        if session.clip is None:
            session.need_query()
        session.followed = session.followed_file = None
        session.notice = Notice("busy", "Waiting for the model…")


def start_over(session: PersonalizeSession) -> None:
    """Drop everything that was marked, loaded and found; the settings stay."""
    with session.lock:
        session.cancel_job()
        session.forget()
        session.history = [Scene()]
