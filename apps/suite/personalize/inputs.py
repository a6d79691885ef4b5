"""What a visitor gives the Personalize tab: pictures, masks, profiles, clips, clicks, settings.

Each a plain function that changes the session; none of them asks the model. All arguments come
from a browser and are checked here or where they are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

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

T = TypeVar("T")

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
        forget_results(session)
        if not session.threshold_is_own:
            session.change(presence_threshold=threshold_of(model_id))


def forget_results(session: PersonalizeSession) -> None:
    """Drop what was found; pictures, objects and settings stay."""
    with session.lock:
        for query in session.queries:
            query.results.clear()
            query.asked.clear()
        session.followed = session.followed_file = None


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
        session.frame = None
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
    clips = [path for path in paths if Path(path).suffix.lower() in CLIP_ENDINGS]
    with session.lock:
        session.queries, session.selected = (), 0
        session.clip = session.followed = session.followed_file = None
        session.stage = "result"
    if clips:
        _read_clip(session, clips[0], others=len(paths) - 1)
    elif paths:
        _use_queries(session, *_load_each(paths))


def use_queries(session: PersonalizeSession, pictures: Sequence[LoadedImage]) -> None:
    """Search these pictures, RGB, within the limits of number and size."""
    _use_queries(session, list(pictures), [])


def _load_each(paths: Sequence[str]) -> tuple[list[LoadedImage], list[str]]:
    """Read pictures; sentences about those that cannot be read."""
    loaded, left_out = [], []
    for path in paths[: settings.max_test_images]:
        try:
            loaded.append(load(path))
        except ImageError as error:
            left_out.append(f"{Path(path).name}: {error.message}")
    if len(paths) > settings.max_test_images:
        left_out.insert(
            0,
            f"There are {len(paths)} pictures; the first {settings.max_test_images} are searched, "
            "choose the others afterwards.",
        )
    if not loaded:
        raise ImageError(" ".join(left_out))
    return loaded, left_out


def _use_queries(
    session: PersonalizeSession, loaded: list[LoadedImage], left_out: list[str]
) -> None:
    taken: list[Query] = []
    pixels = 0
    for picture in loaded:
        height, width = picture.size
        pixels += height * width
        if taken and pixels > settings.max_test_pixels:
            left_out.append(
                f"From {picture.stem} on they are left out: together at most "
                f"{settings.max_test_pixels / 1e6:.0f} megapixels are searched at a time."
            )
            break
        taken.append(Query(picture, View.of(picture.image)))
    with session.lock:
        session.queries = tuple(taken)
        session.notice = Notice("warning" if left_out else "busy", " ".join(left_out) or "Reading…")


def _read_clip(session: PersonalizeSession, path: str, *, others: int) -> None:
    from core.persam.clips import ClipLimits, read_clip

    limits = ClipLimits(max_bytes=settings.max_clip_bytes, max_frames=settings.max_clip_frames)
    clip = read_clip(Path(path), limits)
    height, width = clip.size
    text = (
        f"Clip of {len(clip.frames)} frames, {width}×{height}. Mark the object in one of its "
        "frames, or press Find to look for the objects that you marked already."
    )
    if others:
        text += f" The other {others} files are left out: one clip at a time."
    with session.lock:
        session.clip, session.clip_stem = clip, Path(path).stem
        session.notice = Notice("ready", text)


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
            raise PromptError(f"There is no frame {number}: the clip has {count}.")
        if session.picture is not None and session.scene.instances:
            another_reference(session)
        index = int(number) - 1
        stem = f"{session.clip_stem} frame {index + 1}"
        edits.use_picture(session, LoadedImage(session.clip.frames[index], stem, ()))
        session.frame = index


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
    if number not in {item.number for item in session.objects()}:
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
        query = session.need_query()
        if query.result(session.variant) is None:
            raise PromptError("There is nothing to correct yet: press Find first.")
        place = query.view.to_original(x, y)
        session.corrections.append((query, *place, int(tool == "foreground")))


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
    if value is None or not math.isfinite(float(value)) or not low <= float(value) <= high:
        raise PromptError(f"The {words} is {value}; choose between {low:g} and {high:g}.")
    return kind(value)


def begin_search(session: PersonalizeSession) -> None:
    """Get ready to search. Raises PromptError without an object, a picture or a clip."""
    with session.lock:
        if not session.objects():
            raise PromptError(NO_OBJECT)
        if session.clip is None:
            session.need_query()
        forget_results(session)
        session.begin_job()
        session.notice = Notice("busy", "Waiting for the model…")


def start_over(session: PersonalizeSession) -> None:
    """Drop everything that was marked, loaded and found; the settings stay."""
    with session.lock:
        session.cancel_job()
        session.forget()
        session.history = [Scene()]
