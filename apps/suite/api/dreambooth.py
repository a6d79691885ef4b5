"""The endpoints of DreamBooth: teach a model one thing, and draw it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from apps.suite import models
from apps.suite.api.common import expose, load_picture, new_folder, open_switch
from apps.suite.dreambooth import work
from apps.suite.dreambooth.inputs import MOST_SEEDS
from apps.suite.layout import Upload
from apps.suite.limits import Doorkeeper
from apps.suite.masks import read_mask
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.subjects import SubjectPicture, check_count
from core.errors import ImageError, PromptError, SuiteError
from core.exports import picture_png
from core.models.catalogue import catalogue, for_method
from core.settings import settings

if TYPE_CHECKING:
    from core.dreambooth.card import LearnedSubject
    from core.dreambooth.serving import Standing, Trainings

LOOK_SECONDS = 0.5  # between two looks at a training
# A training waits in its own queue: it must not keep the models' line busy.
LINE: dict[str, Any] = {"concurrency_id": "dreambooth", "concurrency_limit": 4}


class Seeds(gr.JSON):
    """A JSON parameter that says it is a list of whole numbers."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "integer"}, "description": "list of seeds"}


def add_dreambooth(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add the endpoints, with their parameters, to the row that is being built."""
    words = [
        gr.Textbox("", label="class_noun"),
        gr.Textbox("sks", label="identifier"),
        gr.Textbox("quick", label="preset"),
        gr.Checkbox(True, label="masked"),
        gr.Textbox(None, label="method"),
        gr.Number(None, precision=0, label="steps"),
        gr.Number(None, label="learning_rate"),
        gr.Number(None, precision=0, label="rank"),
        open_switch("prior"),
        gr.Number(0, precision=0, label="seed"),
    ]
    train_inputs = [
        Upload(file_count="multiple", label="images"),
        Upload(file_count="multiple", label="masks"),
        *words,
        gr.Textbox("embedded", label="model"),
        gr.Textbox("embedded", label="sam"),
        gr.Textbox("", label="training"),
    ]
    trained = [gr.JSON(label="record"), gr.File(label="weights")]
    expose(button, dreambooth_train, train_inputs, trained, doorkeeper, LINE)
    sample_inputs = [
        gr.Textbox("", label="training"),
        Upload(label="weights"),
        gr.Textbox("a photo of {}", label="prompt"),
        Seeds([1, 2, 3, 4], label="seeds"),
        gr.Number(None, label="guidance"),
        gr.Number(None, precision=0, label="steps"),
        gr.Checkbox(True, label="before"),
    ]
    drawn = [
        gr.Gallery(format="png", label="after", interactive=False),
        gr.Gallery(format="png", label="before", interactive=False),
        gr.JSON(label="record"),
        gr.File(label="archive"),
    ]
    expose(button, dreambooth_sample, sample_inputs, drawn, doorkeeper)


def dreambooth_train(
    images: list[str] | None = None,
    masks: list[str] | None = None,
    class_noun: str = "",
    identifier: str = "sks",
    preset: str = "quick",
    masked: bool = True,
    method: str | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    rank: int | None = None,
    prior: bool | None = None,
    seed: int = 0,
    model: str = "embedded",
    sam: str = "embedded",
    training: str = "",
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Teach a text-to-image model one thing from a few pictures, without their backgrounds.

    How far it is streams. Cancelling the call stops the training and keeps its last checkpoint.

    Args:
        images: 3 to 20 pictures of the thing: JPEG, PNG, WebP, BMP or TIFF.
        masks: where it is in them, bright on black or opaque: one, of the first picture (PerSAM
            finds the thing in the others), or one for each picture in their order.
        class_noun: the noun of its kind, such as "toy".
        identifier: a rare word that becomes its name.
        preset: "quick", "good" or "paper".
        masked: let only the thing count; false is plain DreamBooth, which needs no masks.
        method: "lora" or "full". This and what follows is the preset's, if not given.
        steps: of the training.
        learning_rate: of AdamW.
        rank: of the LoRA.
        prior: also train on pictures of the class, which the untouched model draws first.
        seed: of everything random.
        model: "embedded", "full", or the id of a text-to-image model from list_models.
        sam: the same of the SAM that finds the masks.
        training: id of an earlier call's record that was stopped, to go on with; nothing else is
            read then.

    Returns:
        A record with the training's id, state, step, loss, remaining seconds and place in the
        queue; and at the end a ZIP with weights and card.
    """
    trainings = work.trainings()
    if training:
        if not trainings.look(training).has_ended:
            raise PromptError("This training is still going on.")
        if trainings.queue.status(training).state != "finished":
            trainings.go_on(training)
    else:
        subject = Subject(identifier or "", class_noun or "")
        model_id = _text_to_image(model)
        config = _config(
            preset,
            catalogue()[model_id].set,
            masked,
            method=method,
            steps=steps,
            learning_rate=learning_rate,
            rank=rank,
            prior=prior,
            seed=seed,
        )
        pictures = _pictures(images, masks, sam, needs_masks=masked)
        training = trainings.begin(model_id, subject, pictures, config)
    yield from _follow(trainings, training)


def dreambooth_sample(
    training: str = "",
    weights: str | None = None,
    prompt: str = "a photo of {}",
    seeds: list[int] | None = None,
    guidance: float | None = None,
    steps: int | None = None,
    before: bool = True,
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], dict[str, Any], str]:
    """Draw a learned subject, beside what the model draws without it from the same seeds.

    Args:
        training: the id in the record of dreambooth_train.
        weights: or the ZIP that it returned.
        prompt: what to draw, with "{}" or the subject's own words, such as "a photo of {} on
            grass"; at most 400 letters.
        seeds: a picture for each, at most 8; 1 to 4 if not given.
        guidance: how strictly the prompt is followed, 0 to 50.
        steps: of the sampler, 1 to 200. Both are as in the training if not given.
        before: also draw with the untouched model.

    Returns:
        The pictures after training, those before it, a record, and a ZIP of all with prompts and
        seeds.
    """
    from core.dreambooth.exports import drawn_record, write_drawn
    from core.dreambooth.serving import draw_pairs
    from core.engine import get_engine

    checked = _seeds([1, 2, 3, 4] if seeds is None else seeds)
    if steps is not None and not 1 <= steps <= 200:
        raise PromptError(f"steps is {steps}; it must be 1 to 200.")
    folder = new_folder()
    learned = _learned(training, weights, folder)
    pairs, warnings = draw_pairs(
        get_engine(),
        learned.base[0],
        prompt or "",
        checked,
        learned,
        guidance=guidance,
        steps=steps,
        before=bool(before),
    )
    shown: dict[str, list[tuple[str, str]]] = {"after": [], "before": []}
    for number, pair in enumerate(pairs):
        for name, image in (("after", pair.after), ("before", pair.before)):
            if image is not None:
                path = folder / f"{name}-{number:02d}.png"
                path.write_bytes(picture_png(image))
                shown[name].append((str(path), f"seed {pair.seed}"))
    record = {
        **drawn_record(learned),
        "prompt": pairs[0].prompt,
        "seeds": checked,
        "warnings": list(warnings),
    }
    return shown["after"], shown["before"], record, str(write_drawn(pairs, learned, folder))


def _text_to_image(model: str) -> str:
    """The id that `model` means. Raises SuiteError if there is none, or it is not here."""
    if model in ("embedded", "full") and not for_method("dreambooth", model):
        raise SuiteError(f"There is no {model} text-to-image model in this version.")
    return models.resolve(model, "dreambooth")


def _config(preset: str, model_set: str, masked: bool, **wanted: Any) -> DreamBoothConfig:
    given = {key: value for key, value in wanted.items() if value not in (None, "")}
    loss = "area" if masked else "none"
    return DreamBoothConfig.preset(str(preset)[:20], model_set, mask_loss=loss, **given)


def _pictures(
    images: list[str] | None, masks: list[str] | None, sam: str, *, needs_masks: bool
) -> list[SubjectPicture]:
    """The pictures with a decision each, found by PerSAM where there is no mask.

    Raises:
        SuiteError: too few pictures, masks that fit none, or the thing is not found in a picture.
    """
    from core.dreambooth.masks import name_pictures

    paths, given = list(images or ()), list(masks or ())
    check_count(len(paths))
    loaded = [load_picture(path, "images") for path in paths]
    if (pixels := sum(one.size[0] * one.size[1] for one in loaded)) > settings.max_test_pixels:
        raise ImageError(
            f"The pictures have {pixels / 1e6:.0f} megapixels together; the limit is "
            f"{settings.max_test_pixels / 1e6:.0f}, so make them smaller."
        )
    stems = name_pictures([one.stem for one in loaded])
    pictures = [SubjectPicture(stem, one.image) for stem, one in zip(stems, loaded, strict=True)]
    if not given and not needs_masks:
        return [picture.use_whole() for picture in pictures]
    if len(given) not in (1, len(pictures)):
        raise PromptError(
            f"There are {len(given)} masks and {len(pictures)} pictures: give one mask, of the "
            "first picture, or one for each."
        )
    for index, path in enumerate(given):
        pictures[index] = pictures[index].redraw(read_mask(path, loaded[index].size).mask)
    return pictures if len(given) == len(pictures) else _found(pictures, sam)


def _found(pictures: list[SubjectPicture], sam: str) -> list[SubjectPicture]:
    """Find the thing of the first picture in the others, and accept what is sound."""
    from core.dreambooth.pipeline import prepare
    from core.engine import get_engine

    found, _ = prepare(get_engine(), models.resolve(sam), pictures, 0)
    if doubtful := [one for one in found if one.decision is None and one.warnings]:
        raise PromptError(
            f"{doubtful[0].stem}: {' '.join(doubtful[0].warnings)} Leave the picture out, or give "
            "a mask for each picture."
        )
    return [one if one.decision else one.accept() for one in found]


def _follow(trainings: Trainings, training_id: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Tell how a training stands until it ends; whoever stops listening stops it."""
    from core.dreambooth.exports import write_weights

    try:
        while not (standing := trainings.look(training_id)).has_ended:
            yield _record(standing), None
            time.sleep(LOOK_SECONDS)
    except GeneratorExit:
        trainings.queue.cancel(training_id)
        raise
    if standing.status.state == "failed":
        raise SuiteError(standing.status.error or "The training failed.")
    weights = None
    if standing.status.subject is not None:
        weights = str(write_weights(trainings.learned(training_id), new_folder()))
    yield _record(standing), weights


def _record(standing: Standing) -> dict[str, Any]:
    status, step = standing.status, standing.status.step
    last = standing.curve[-1] if standing.curve else None
    return {
        "training": status.id,
        "state": status.state,
        "place": status.place,
        "phase": None if status.phase is None else status.phase.message,
        "step": standing.step,
        "steps": standing.config.steps,
        "loss": None if last is None else round(last.loss, 6),
        "smoothed": None if last is None else round(last.smoothed, 6),
        "seconds": None if step is None else round(step.seconds, 2),
        "remaining": None if step is None else round(step.remaining, 2),
        "checkpoint": status.checkpoint,
        "subject": standing.subject.name,
        "model": standing.model,
        "settings": standing.config.to_dict(),
    }


def _learned(training: str, weights: str | None, folder: Path) -> LearnedSubject:
    """The subject of a training, or that of a ZIP."""
    from core.dreambooth.exports import read_weights

    if weights is not None:
        return read_weights(Path(weights), folder / "weights")
    if not training:
        raise PromptError("There is no subject: give the id of a `training`, or its `weights`.")
    return work.trainings().learned(training)


def _seeds(seeds: Any) -> list[int]:
    good = isinstance(seeds, list) and all(
        isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**63 for one in seeds
    )
    if not good or not 1 <= len(seeds) <= MOST_SEEDS:
        raise PromptError(f"The seeds have to be a list of 1 to {MOST_SEEDS} whole numbers.")
    return seeds
