"""The endpoint that follows personal objects through a clip."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from apps.suite import models
from apps.suite.api.common import expose, new_folder
from apps.suite.api.persam import check_variant
from apps.suite.layout import Upload
from apps.suite.limits import Doorkeeper
from apps.suite.masks import read_objects
from core.errors import ImageError, PromptError
from core.models.catalogue import catalogue
from core.settings import settings

if TYPE_CHECKING:
    from core.persam.profile import Profile
    from core.persam.video import VideoObject
    from core.prompts import MaskPrompt


def add_follow(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add the endpoint, with its parameters, to the row that is being built."""
    inputs = [
        Upload(label="clip"),
        Upload(label="first_mask"),
        gr.Number(0, precision=0, label="start"),
        gr.Textbox("persam", label="variant"),
        Upload(label="profile"),
        gr.Textbox("embedded", label="model"),
    ]
    outputs = [gr.File(label="overlay"), gr.JSON(label="record"), gr.File(label="archive")]
    expose(button, follow_persam, inputs, outputs, doorkeeper)


def follow_persam(
    clip: str | None = None,
    first_mask: str | None = None,
    start: int = 0,
    variant: str = "persam",
    profile: str | None = None,
    model: str = "embedded",
) -> tuple[str, dict[str, Any], str]:
    """Follow objects through a clip with PerSAM or PerSAM-F; they may leave it and come back.

    Args:
        clip: MP4, MOV, WebM or GIF, at most 300 frames and 50 MiB.
        first_mask: the object in frame `start`, bright on black or opaque. An indexed PNG holds
            several objects: value k is object k.
        start: the frame of first_mask, from 0; the objects are followed from there on.
        variant: "persam", or "persam_f", which learns two mask weights for each object.
        profile: a saved profile of the object, instead of first_mask or together with it.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The clip with the objects drawn over it (MP4), a record with the presence scores and areas
        in each frame, and a ZIP of indexed PNGs in DAVIS's layout.
    """
    from core.engine import get_engine
    from core.persam.clips import ClipLimits, read_clip
    from core.persam.exports import write_follow
    from core.persam.profile import Profile
    from core.persam.video import VideoConfig, follow

    check_variant(variant)
    start = int(start or 0)
    model_id = models.resolve(model)
    if clip is None:
        raise ImageError("There is no clip; give one as `clip`.")
    limits = ClipLimits(max_bytes=settings.max_clip_bytes, max_frames=settings.max_clip_frames)
    known = None if profile is None else Profile.read(Path(profile))
    film = read_clip(Path(clip), limits)
    objects, warnings = _objects(first_mask, film.size, start, known, variant)
    config = VideoConfig.for_model(catalogue()[model_id], learned=variant == "persam_f")
    result = follow(get_engine(), model_id, film.frames, objects, config)
    facts = {
        "model": model_id,
        "model_set": catalogue()[model_id].set,
        "parameters": {"variant": variant, "start": start, **asdict(config)},
        "warnings": list(warnings),
    }
    files = write_follow(film, result, Path(clip).stem, new_folder(), facts=facts)
    return str(files.overlay), json.loads(files.record.read_bytes()), str(files.davis)


def _objects(
    first_mask: str | None,
    size: tuple[int, int],
    start: int,
    profile: Profile | None,
    variant: str,
) -> tuple[list[VideoObject], tuple[str, ...]]:
    """What to follow in a clip of a size (H, W), and warnings."""
    from core.persam.video import MAX_OBJECTS, VideoObject

    masks = {} if first_mask is None else read_objects(first_mask, size, MAX_OBJECTS)
    notices = tuple(dict.fromkeys(text for prompt in masks.values() for text in prompt.notices))
    if profile is not None:
        return [_personal_object(profile, masks, start)], notices
    if not masks:
        raise PromptError("There is nothing to follow; give `first_mask` or a `profile`.")
    numbers = list(masks)
    if numbers != list(range(1, len(numbers) + 1)):
        notices += (f"The mask's values {numbers} became objects 1 to {len(numbers)}.",)
    names = ["my object"] if len(masks) == 1 else [f"object {k}" for k in numbers]
    pairs = zip(names, masks.values(), strict=True)
    return [VideoObject(name, start, prompt.mask) for name, prompt in pairs], notices


def _personal_object(profile: Profile, masks: dict[int, MaskPrompt], start: int) -> VideoObject:
    """An object known by its profile, with its first mask if there is one."""
    from core.persam.video import VideoObject

    if len(masks) > 1:
        raise PromptError(
            f"The profile is of one object and the mask has {len(masks)}; leave one out."
        )
    mask = next((prompt.mask for prompt in masks.values()), None)
    return VideoObject(profile.name, start, mask, profile)
