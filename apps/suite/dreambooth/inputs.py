"""What a visitor gives the DreamBooth tab: pictures, masks, decisions, settings, prompts.

Each a plain function that changes the session; none of them asks a model. All arguments come from
a browser and are checked here or where they are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.dreambooth.session import (
    FIELDS,
    METHODS,
    DreamBoothSession,
    Item,
    Wishes,
    diffusion_models,
    model_set_of,
)
from apps.suite.models import can_download, is_here
from apps.suite.notices import Notice, say_bytes
from apps.suite.personalize.session import PersonalizeSession
from apps.suite.segment import edits
from apps.suite.segment import scene as scenes
from apps.suite.segment.patch import Patch
from apps.suite.segment.scene import Scene
from apps.suite.segment.session import Picture
from core.dreambooth.config import PRESETS, DreamBoothConfig, Subject, check_prompt
from core.dreambooth.subjects import MAX_PICTURES, SubjectPicture, check_count
from core.errors import ImageError, PromptError
from core.images import LoadedImage, load
from core.models.catalogue import catalogue
from core.settings import settings

MOST_SEEDS = 8  # pictures of one drawing, each before and after
MOST_KNOWN = 50  # trainings that a browser remembers


# The pictures


def add_uploads(session: DreamBoothSession, paths: Sequence[str] | None) -> None:
    """Take files as more pictures; what cannot be used is left out and named.

    Raises:
        ImageError: none of them can be used.
    """
    paths = list(paths or ())
    for path in paths:
        session.own_upload(path)
    loaded, left_out = _load_each(session, paths)
    if paths and not loaded:
        raise ImageError(" ".join(left_out))
    add_pictures(session, loaded)
    if left_out:
        session.notice = Notice("warning", " ".join(left_out))


def add_upload(session: DreamBoothSession, path: str | None) -> None:
    """Take the file that was dropped into the frame, and show it there.

    Raises:
        ImageError: it cannot be used.
    """
    session.on_canvas = None  # the browser shows the file itself by now
    if path is not None:
        add_uploads(session, [path])
        select(session, len(session.items) - 1)


def add_pictures(session: DreamBoothSession, loaded: Sequence[LoadedImage]) -> None:
    """Put pictures behind those that are there; the first one of all comes into the frame."""
    from core.dreambooth.masks import name_pictures

    with session.lock:
        names = [item.subject.stem for item in session.items]
        stems = name_pictures([*names, *(one.stem for one in loaded)])[len(names) :]
        first = not session.items
        for one, stem in zip(loaded, stems, strict=True):
            subject = SubjectPicture(stem, one.image)
            session.items.append(Item(Picture(one, View.of(one.image)), subject))
        if first and session.items:
            _put_into_frame(session, 0)


def _load_each(
    session: DreamBoothSession, paths: Sequence[str]
) -> tuple[list[LoadedImage], list[str]]:
    """Read pictures within the limits; sentences about those that are left out."""
    loaded: list[LoadedImage] = []
    left_out: list[str] = []
    room = MAX_PICTURES - len(session.items)
    pixels = sum(
        item.subject.image.shape[0] * item.subject.image.shape[1] for item in session.items
    )
    for number, path in enumerate(paths):
        if len(loaded) == room:
            left_out.append(
                f"{len(paths) - number} pictures are left out: {MAX_PICTURES} are the most."
            )
            break
        try:
            one = load(path)
        except ImageError as error:
            left_out.append(f"{Path(path).name}: {error.message}")
            continue
        pixels += one.size[0] * one.size[1]
        if pixels > settings.max_test_pixels:
            left_out.append(
                f"From {one.stem} on they are left out: together at most "
                f"{settings.max_test_pixels / 1e6:.0f} megapixels; make them smaller."
            )
            break
        loaded.append(one)
    return loaded, left_out


def select(session: DreamBoothSession, index: int) -> None:
    """Show a picture in the frame, to mark or correct it. Raises PromptError if there is none."""
    with session.lock:
        session.need_item(index)
        _keep_scenes(session)
        _put_into_frame(session, index)


def step(session: DreamBoothSession, by: int) -> None:
    """Show the next or the previous picture, round and round."""
    with session.lock:
        if session.items:
            select(session, (session.selected + by) % len(session.items))


def remove(session: DreamBoothSession, index: int) -> None:
    """Drop a picture. Raises PromptError if there is none."""
    with session.lock:
        session.need_item(index)
        _keep_scenes(session)
        marked = session.items[session.marked] if session.marked is not None else None
        shown = session.items[session.selected]
        gone = session.items.pop(index)
        if marked is gone:  # another one that was drawn takes its place
            marked = next((one for one in session.items if _is_drawn(one)), None)
        session.marked = None if marked is None else session.items.index(marked)
        if not session.items:
            session.selected = 0
            session.forget_picture()
            session.notice = Notice("ready", "")
        else:
            later = (
                shown if shown is not gone else session.items[min(index, len(session.items) - 1)]
            )
            _put_into_frame(session, session.items.index(later))


def remove_shown(session: DreamBoothSession) -> None:
    """Drop the picture in the frame."""
    session.on_canvas = None
    with session.lock:
        session.cancel_job()
        if session.items:
            remove(session, session.selected)


def start_over(session: DreamBoothSession) -> None:
    """Drop all pictures; settings, training and learned subject stay."""
    with session.lock:
        session.cancel_job()
        session.forget()


def _keep_scenes(session: DreamBoothSession) -> None:
    if session.item is not None:
        session.item.history = session.history


def _put_into_frame(session: DreamBoothSession, index: int) -> None:
    session.selected = index
    item = session.items[index]
    session.picture, session.history = item.picture, item.history
    session.seconds = {}


def _is_drawn(item: Item) -> bool:
    return item.subject.decision == "redraw"


# Masks and decisions


def take_mask(session: DreamBoothSession) -> None:
    """Make what is marked in the frame the mask of its picture, unless it is so already."""
    with session.lock:
        item = session.item
        if item is None:
            return
        patches = tuple(one.mask for one in session.scene.current)
        if patches == item.taken or (not patches and item.taken is None):
            return
        item.taken = patches or None
        mask = _union(patches, item.picture.size)
        if not mask.any():
            item.subject = SubjectPicture(item.subject.stem, item.subject.image)
            item.sought = None
            if session.marked == session.selected:
                session.marked = None
            return
        item.subject = item.subject.redraw(mask)
        if session.marked is None:
            session.marked = session.selected


def _union(patches: Sequence[Patch], size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, bool)
    for patch in patches:
        mask |= patch.full()
    return mask


def put_found(session: DreamBoothSession, item: Item, found: SubjectPicture, sought: Any) -> None:
    """Give a picture the mask that was found in it, to be decided about."""
    with session.lock:
        item.subject, item.sought = found, sought
        scene = Scene()
        item.taken = None
        if found.mask is not None and found.mask.any():
            shown = Patch.of(item.picture.view.mask(found.mask))
            scene = scenes.with_mask(scene, Patch.of(found.mask), shown)
            item.taken = tuple(one.mask for one in scene.current)
        item.history = [scene]
        if session.item is item:
            session.history = item.history


def put_mask(session: DreamBoothSession, index: int, mask: NDArray[np.bool_]) -> None:
    """Give a picture a mask that is known, such as an example's."""
    with session.lock:
        select(session, index)
        edits.put_mask(session, mask)
        take_mask(session)


def decide(session: DreamBoothSession, index: int, decision: str) -> None:
    """Accept a mask, use the whole picture, or leave it out; the same once more takes it back.

    Raises:
        PromptError: no such picture or decision, or there is no mask to accept.
    """
    ways: dict[str, Callable[[SubjectPicture], SubjectPicture]] = {
        "accept": SubjectPicture.accept,
        "whole": SubjectPicture.use_whole,
        "exclude": SubjectPicture.exclude,
    }
    if decision not in ways:
        raise PromptError(f"There is no decision {decision[:20]!r}.")
    with session.lock:
        item = session.need_item(index)
        if item.subject.decision == decision:
            item.subject = replace(item.subject, decision=None)
        else:
            item.subject = ways[decision](item.subject)


def accept_all(session: DreamBoothSession) -> None:
    """Accept the masks that nothing is said against. Raises PromptError if there are none."""
    with session.lock:
        sound = [
            item
            for item in session.undecided
            if item.subject.mask is not None and not item.subject.warnings
        ]
        if not sound:
            raise PromptError(
                "There is no mask to accept without a look at it: decide about each picture."
            )
        for item in sound:
            item.subject = item.subject.accept()
        if session.undecided:
            session.notice = Notice("hint", _say_open(len(session.undecided)))


def _say_open(count: int) -> str:
    what = "1 picture has" if count == 1 else f"{count} pictures have"
    return f"{what} a warning: draw the mask, use the whole picture, or leave it out."


def take_over(session: DreamBoothSession, other: PersonalizeSession) -> None:
    """Take the pictures of the Personalize tab, with the masks of its first object.

    Raises:
        PromptError: there is no marked object, or there are too few or too many pictures.
    """
    with other.lock:
        objects = [one for one in other.objects() if one.masks]
        if not objects:
            raise PromptError("There is no object in Personalize yet: mark it there first.")
        first = objects[0]
        references = [(marked.picture.loaded, patch.full()) for marked, patch in first.masks]
        found = [(query.loaded, query.result(other.variant)) for query in other.queries]
    check_count(len(references) + len(found))
    with session.lock:
        start_over(session)
        add_pictures(session, [one for one, _ in (*references, *found)])
        for index, (_, mask) in enumerate(references):
            put_mask(session, index, mask)
        sought = session.marked_mask
        for item, (_, result) in zip(session.items[len(references) :], found, strict=True):
            if result is None:
                continue
            answer = result.find(first.number)[1]
            subject = replace(
                item.subject,
                mask=answer.mask,
                source=other.variant,
                score=float(np.clip(answer.stages[-1].score, 0, 1)),
                presence=answer.presence.score,
                warnings=() if answer.accepted else ("Personalize found it not to be here.",),
            )
            put_found(session, item, subject, sought)
        select(session, 0)
        name_subject(session, first.name)
        session.notice = Notice("ready", "")


# Settings


def name_subject(session: DreamBoothSession, class_noun: str) -> None:
    """Fill in what kind of thing it is."""
    with session.lock:
        session.wishes = replace(session.wishes, class_noun=class_noun)
        session.fill_noun = True


def set_wishes(
    session: DreamBoothSession,
    preset: str,
    class_noun: str,
    identifier: str,
    masked: bool,
    method: str,
    *values: Any,
) -> None:
    """Take the settings of the page's fields. Raises PromptError if one is not possible.

    Args:
        values: in the order of FIELDS.
    """
    if preset not in PRESETS or method not in METHODS:
        raise PromptError("The page sent something that cannot be read; reload it.")
    with session.lock:
        session.wishes = Wishes(
            preset=preset,
            class_noun=str(class_noun or "")[:200],
            identifier=str(identifier or "")[:200],
            masked=bool(masked),
            method=method,
            values=dict(zip(FIELDS, map(_read_value, FIELDS, values), strict=True)),
        )
        config_of(session)


def set_preset(session: DreamBoothSession, preset: str) -> None:
    """Set all fields as a preset has them. Raises PromptError if there is none such."""
    with session.lock:
        wishes = Wishes.of_preset(str(preset)[:20], model_set_of(session.diffusion))
        session.wishes = replace(
            session.wishes, preset=wishes.preset, method=wishes.method, values=wishes.values
        )


def use_diffusion(session: DreamBoothSession, model_id: str | None) -> None:
    """Choose the text-to-image model; its presets are others.

    Raises:
        PromptError: no such model, or it is not here and must not be downloaded.
    """
    entry = catalogue().get(str(model_id))
    if entry is None or entry not in diffusion_models():
        raise PromptError(f"There is no text-to-image model {str(model_id)[:40]!r}.")
    here = is_here(entry.id)
    if not here and not can_download():
        raise PromptError(
            f"{entry.title} needs {say_bytes(entry.bytes)} that are not downloaded, and downloads "
            "are off here: start the suite with --models full on a machine with a network."
        )
    with session.lock:
        session.diffusion = entry.id
        session.seconds_by_preset, session.measured = {}, None
        set_preset(session, session.wishes.preset)
        if not here:
            session.notice = Notice(
                "hint",
                f"{entry.title} needs {say_bytes(entry.bytes)}: they are downloaded when the "
                "training begins.",
            )


def config_of(session: DreamBoothSession) -> DreamBoothConfig:
    """The settings that are wished for. Raises PromptError if one is not possible."""
    return session.wishes.config(model_set_of(session.diffusion))


def subject_of(session: DreamBoothSession) -> Subject:
    """The words that are wished for. Raises PromptError if one is missing or not usable."""
    return Subject(session.wishes.identifier, session.wishes.class_noun)


def begin_training(session: DreamBoothSession, *fields: Any) -> None:
    """Check everything that a training needs.

    Args:
        fields: as of `set_wishes`.

    Raises:
        PromptError: pictures, words or settings are not ready, or a training still goes on.
    """
    set_wishes(session, *fields)
    with session.lock:
        _ = session.entry
        check_count(len(session.used) if not session.undecided else len(session.items))
        subject_of(session)
        standing = session.standing
        if session.training and standing is not None and not standing.has_ended:
            raise PromptError(
                "Your training still goes on: wait for its end, or cancel it, before the next one."
            )
        session.notice = Notice("busy", "Beginning the training…")


def _read_value(name: str, value: Any) -> Any:
    """A field's value in the type of the setting; an empty one stays None, which is refused."""
    default = getattr(DreamBoothConfig(), name)
    if isinstance(default, bool):
        return bool(value)
    if name == "sample_steps" and not value:
        return None
    if isinstance(value, float) and value.is_integer() and not isinstance(default, float):
        return int(value)
    return value


# A training and what was learned


def recall(session: DreamBoothSession, asked: Any, known: Any) -> None:
    """Take the ids of trainings that the browser remembers, and the one of the page's address."""
    ids = [one for one in known if _is_id(one)] if isinstance(known, list) else []
    with session.lock:
        session.known = list(dict.fromkeys(ids))[-MOST_KNOWN:]
        if asked:
            session.training = str(asked) if _is_id(asked) else "0"
            session.standing = None


def remember(session: DreamBoothSession, training_id: str) -> None:
    """Follow a training of the visitor's own from now on."""
    with session.lock:
        known = [one for one in session.known if one != training_id]
        session.known = [*known, training_id][-MOST_KNOWN:]
        session.training, session.standing, session.shown_samples = training_id, None, None


def put_aside(session: DreamBoothSession) -> None:
    """Follow no training any more; it goes on, and its link finds it again."""
    with session.lock:
        session.need_training()
        session.training, session.standing, session.shown_samples = "", None, None


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


# Drawing


@dataclass(frozen=True)
class Order:
    """What is to be drawn."""

    prompt: str
    seeds: list[int]
    guidance: float
    steps: int
    compare: bool


def read_order(prompt: Any, seeds: Any, guidance: Any, steps: Any, compare: Any) -> Order:
    """Read the fields of step 4. Raises PromptError if one is not possible."""
    from core.dreambooth.serving import parse_seeds

    numbers = {"guidance": (guidance, 0, 50), "number of steps": (steps, 1, 200)}
    for name, (value, low, high) in numbers.items():
        good = isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
        if not good:
            raise PromptError(f"The {name} is {value}: choose between {low} and {high}.")
    return Order(
        check_prompt(str(prompt or "")),
        parse_seeds(str(seeds or ""), MOST_SEEDS),
        float(guidance),
        int(steps),
        bool(compare),
    )


def begin_drawing(session: DreamBoothSession, *fields: Any) -> None:
    """Check what is to be drawn. Raises SuiteError if that is not possible."""
    session.need_learned()
    read_order(*fields)
    session.begin_job()
    session.notice = Notice("busy", "Waiting for the model…")
