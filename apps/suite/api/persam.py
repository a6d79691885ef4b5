"""The endpoints of PerSAM and PerSAM-F: find an object again, or learn it for later."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from apps.suite import models
from apps.suite.api.common import expose, load_picture, new_folder, open_switch, picture
from apps.suite.layout import Upload
from apps.suite.limits import Doorkeeper
from apps.suite.masks import read_mask
from apps.suite.personalize.inputs import RANGES
from core.errors import ImageError, PromptError
from core.exports import name_prefix, slug
from core.images import load
from core.models.catalogue import catalogue
from core.models.presets import calibrated_threshold
from core.settings import settings

if TYPE_CHECKING:
    from core.persam.config import FitConfig, PersamConfig
    from core.persam.exports import FoundPicture
    from core.persam.pipeline import Learned

CURVE_POINTS = 100  # of a loss curve as returned


def add_persam(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add PerSAM's endpoints, with their parameters, to the row that is being built."""
    reference = [picture("reference_image"), picture("reference_mask")]
    fit = [
        gr.Number(1000, precision=0, label="steps"),
        gr.Number(1e-3, label="learning_rate"),
    ]
    model = gr.Textbox("embedded", label="model")
    find_inputs = [
        *reference,
        Upload(file_count="multiple", label="test_images"),
        gr.Textbox("persam", label="variant"),
        *fit,
        open_switch("guided_attention"),
        open_switch("semantic_prompt"),
        gr.Checkbox(True, label="refinement_1"),
        gr.Checkbox(True, label="refinement_2"),
        open_switch("negative_point"),
        gr.Number(1, precision=0, label="points"),
        gr.Number(1, precision=0, label="max_instances"),
        gr.Number(None, label="presence_threshold"),
        Upload(label="profile"),
        model,
    ]
    learn_inputs = [
        *reference,
        gr.Textbox("my object", label="name"),
        gr.Textbox("persam_f", label="variant"),
        *fit,
        model,
    ]
    found = [
        gr.Gallery(format="png", label="overlays", interactive=False),
        gr.JSON(label="records"),
        gr.File(label="archive"),
    ]
    expose(button, segment_persam, find_inputs, found, doorkeeper)
    learned = [gr.File(label="profile"), gr.JSON(label="record")]
    expose(button, learn_persam, learn_inputs, learned, doorkeeper)


def segment_persam(
    reference_image: str | None = None,
    reference_mask: str | None = None,
    test_images: list[str] | None = None,
    variant: str = "persam",
    steps: int = 1000,
    learning_rate: float = 1e-3,
    guided_attention: bool | None = None,
    semantic_prompt: bool | None = None,
    refinement_1: bool = True,
    refinement_2: bool = True,
    negative_point: bool | None = None,
    points: int = 1,
    max_instances: int = 1,
    presence_threshold: float | None = None,
    profile: str | None = None,
    model: str = "embedded",
) -> tuple[list[tuple[str, str]], list[dict[str, Any]], str]:
    """Find one object, shown once, in other pictures with PerSAM or PerSAM-F.

    Show it by a reference picture and its mask, or give a profile that learn_persam or the page
    saved. "Not in this picture" is an answer: the object is then among the record's `dropped`.

    Args:
        reference_image: picture of the object: JPEG, PNG, WebP, BMP, TIFF or GIF.
        reference_mask: where it is in there: a picture in which the object is bright on black, or
            opaque; resized to the reference's size, with a warning, if it has another one.
        test_images: the pictures to search, at most 20.
        variant: "persam", or "persam_f", which first learns two mask weights from the reference.
        steps: of learning these weights.
        learning_rate: of learning these weights.
        guided_attention: target-guided attention. This and the other switches without a default
            are, if not given, as published: on in persam, off in persam_f.
        semantic_prompt: target-semantic prompting.
        refinement_1: second pass of the decoder.
        refinement_2: third pass of the decoder.
        negative_point: also prompt with the least similar pixel.
        points: positive points.
        max_instances: look for so many instances of the object in each picture.
        presence_threshold: presence score in [0, 1] below which the answer is "not in this
            picture"; 0 always answers with a mask. If not given, the one calibrated for the model
            is used; the record says which one that was (null: none was, always a mask).
        profile: a saved profile, instead of reference_image and reference_mask.
        model: "embedded", "full", or an id from list_models.

    Returns:
        Each picture with what was found drawn over it (PNG), a list of records with scores,
        presence scores and COCO run lengths, and a ZIP of all files.
    """
    from core.persam.exports import write_pictures

    model_id = models.resolve(model)
    config = _config(
        variant,
        guided_attention=guided_attention,
        semantic_prompt=semantic_prompt,
        refinement_1=refinement_1,
        refinement_2=refinement_2,
        negative_point=negative_point,
        points=points,
        max_instances=max_instances,
        presence_threshold=_threshold(model_id, presence_threshold),
    )
    fit = _fit(variant, steps, learning_rate)
    paths = _check_count(test_images)
    if profile is None:
        learned = _learn(model_id, reference_image, reference_mask, "my object", fit)
    else:
        learned = _recall(profile, reference_image or reference_mask)
    found = _search(model_id, paths, learned, config, fit)
    files = write_pictures(found, [learned.profile], new_folder())
    records = json.loads(files.results.read_bytes())
    names = [record["image"]["name"] for record in records]
    overlays = [str(path) for path in files.overlays]
    return list(zip(overlays, names, strict=True)), records, str(files.archive)


def learn_persam(
    reference_image: str | None = None,
    reference_mask: str | None = None,
    name: str = "my object",
    variant: str = "persam_f",
    steps: int = 1000,
    learning_rate: float = 1e-3,
    model: str = "embedded",
) -> tuple[str, dict[str, Any]]:
    """Learn one object from a picture and its mask, to find it later by segment_persam.

    Args:
        reference_image: picture of the object: JPEG, PNG, WebP, BMP, TIFF or GIF.
        reference_mask: where it is in there: a picture in which the object is bright on black, or
            opaque; resized to the reference's size, with a warning, if it has another one.
        name: what to call it.
        variant: "persam_f" also learns two mask weights, and its profile serves both variants;
            "persam" learns none.
        steps: of learning these weights.
        learning_rate: of learning these weights.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The profile (safetensors), and a record: the weights w1 and w2 of the decoder's second and
        third reading and w3 of the first, the loss curve as [step, loss], warnings and seconds.
    """
    fit = _fit(variant, steps, learning_rate)
    model_id = models.resolve(model)
    learned = _learn(model_id, reference_image, reference_mask, _named(name), fit)
    prefix = name_prefix(Path(str(reference_image)).stem, variant, datetime.now(UTC))
    path = new_folder() / f"{prefix}_profile_{slug(learned.profile.name) or 'object'}.safetensors"
    return str(learned.profile.save(path)), _learned_record(learned, variant, model_id, fit)


def check_variant(variant: str) -> None:
    """Raise PromptError if there is no such variant of PerSAM."""
    if variant not in ("persam", "persam_f"):
        raise PromptError(f"There is no variant {str(variant)[:40]!r}; use 'persam' or 'persam_f'.")


def _config(variant: str, **wanted: Any) -> PersamConfig:
    """The variant as published, but for what is given."""
    from core.persam.config import PersamConfig

    check_variant(variant)
    _check_ranges(points=wanted["points"], max_instances=wanted["max_instances"])
    published = PersamConfig.persam_f() if variant == "persam_f" else PersamConfig()
    return replace(published, **{key: value for key, value in wanted.items() if value is not None})


def _fit(variant: str, steps: int, learning_rate: float) -> FitConfig | None:
    from core.persam.config import FitConfig

    check_variant(variant)
    if variant == "persam":
        return None
    _check_ranges(steps=steps, learning_rate=learning_rate)
    return FitConfig(steps=steps, learning_rate=learning_rate)


def _threshold(model_id: str, wanted: float | None) -> float | None:
    if wanted is None:
        return calibrated_threshold(catalogue()[model_id])
    _check_ranges(presence_threshold=wanted)
    return wanted


def _check_ranges(**values: float | None) -> None:
    for name, value in values.items():
        low, high = RANGES[name]
        if value is None or not low <= value <= high:
            raise PromptError(f"{name} is {value}; it must be {low:g} to {high:g}.")


def _check_count(paths: list[str] | None) -> list[str]:
    most = settings.max_test_images
    if not paths:
        raise ImageError("There is no test picture; give one or more as `test_images`.")
    if len(paths) > most:
        raise ImageError(
            f"There are {len(paths)} test pictures; the limit is {most}, so send the others in "
            "another call."
        )
    return paths


def _named(name: str | None) -> str:
    from core.persam.profile import MAX_NAME_CHARS

    words = " ".join((name or "").split())
    if not 0 < len(words) <= MAX_NAME_CHARS:
        raise PromptError(
            f"The name has {len(words)} characters; it must have 1 to {MAX_NAME_CHARS}."
        )
    return words


def _learn(
    model_id: str, image: str | None, mask: str | None, name: str, fit: FitConfig | None
) -> Learned:
    """Learn from uploaded files; the warnings also tell what was changed on the way in."""
    from core.engine import get_engine
    from core.persam.pipeline import learn
    from core.persam.target import Reference

    loaded = load_picture(image, "reference_image")
    if mask is None:
        raise PromptError("The reference has no mask; give one as `reference_mask`.")
    prompt = read_mask(mask, loaded.size)
    reference = Reference(loaded.image, prompt.mask)
    learned = learn(get_engine(), model_id, [reference], name=name, fit=fit)
    notices = (*(f"Reference picture: {text}" for text in loaded.notices), *prompt.notices)
    return replace(learned, warnings=(*notices, *learned.warnings))


def _recall(profile: str, reference: str | None) -> Learned:
    from core.persam.pipeline import Learned
    from core.persam.profile import Profile

    if reference is not None:
        raise PromptError("Give either a reference picture with its mask, or a profile.")
    return Learned(Profile.read(Path(profile)), None, (), {})


def _search(
    model_id: str,
    paths: Sequence[str],
    learned: Learned,
    config: PersamConfig,
    fit: FitConfig | None,
) -> Iterator[FoundPicture]:
    """Search one picture after the other; only one is in memory at a time."""
    from core.engine import get_engine
    from core.persam.exports import FoundPicture
    from core.persam.pipeline import find

    how = {"steps": fit.steps, "learning_rate": fit.learning_rate} if fit and learned.fit else {}
    for number, path in enumerate(paths, start=1):
        try:
            loaded = load(path)
        except ImageError as error:
            raise ImageError(f"Test picture {number}: {error.message}") from error
        result = find(get_engine(), model_id, loaded.image, learned.profile, config)
        told = replace(
            result.segmentation,
            parameters={**result.segmentation.parameters, **how},
            warnings=(*learned.warnings, *loaded.notices, *result.segmentation.warnings),
        )
        yield FoundPicture(loaded.stem, loaded.image, replace(result, segmentation=told))


def _learned_record(
    learned: Learned, variant: str, model_id: str, fit: FitConfig | None
) -> dict[str, Any]:
    from core.persam.exports import describe_weights

    weights, curve = None, []
    if learned.fit is not None:
        weights, loss = describe_weights(learned.fit.weights), learned.fit.loss
        shown = np.linspace(0, len(loss) - 1, min(CURVE_POINTS, len(loss))).round().astype(int)
        curve = [[int(step), round(float(loss[step]), 6)] for step in shown]
    return {
        "method": variant,
        "model": model_id,
        "model_set": catalogue()[model_id].set,
        "name": learned.profile.name,
        "parameters": {} if fit is None else asdict(fit),
        "weights": weights,
        "loss_curve": curve,
        "warnings": list(learned.warnings),
        "seconds": {stage: round(seconds, 4) for stage, seconds in learned.seconds.items()},
    }
