"""Personalized text-to-image on an engine's models: prepare, train, sample.

As in the paper: PerSAM finds the subject in all pictures, the model learns it without their
backgrounds, and draws it where the prompt says. Each function takes everything it needs and keeps
nothing but files in the folder that it is given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.dreambooth.card import LearnedSubject
from core.dreambooth.checkpoints import list_checkpoints
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.control import Control
from core.dreambooth.events import Event, Phase, Stopped
from core.dreambooth.masks import (
    MaskMethod,
    MaskOrigin,
    load_pictures,
    propose_masks,
    save_pictures,
)
from core.dreambooth.sampling import (
    Progress,
    class_folder,
    class_pictures,
    draw,
    drawing_guard,
    load_class_pictures,
)
from core.dreambooth.storage import write_atomically
from core.dreambooth.subjects import SubjectPicture, training_pictures
from core.dreambooth.trainer import Training
from core.engine.device import pick_precision, synchronize
from core.errors import Cancelled, PromptError

if TYPE_CHECKING:
    from core.dreambooth.model import DiffusionModel
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine
    from core.persam.config import FitConfig


TRAINING_FILE = "training.json"  # what ``resume`` needs besides pictures and masks


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures that were drawn, aligned with their prompts and seeds.

    Args:
        images: RGB uint8 (S, S, 3).
        subject: that the model knew; None for the untouched model.
        seconds: that drawing took.
    """

    images: tuple[NDArray[np.uint8], ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    subject: LearnedSubject | None
    seconds: float
    warnings: tuple[str, ...] = ()


def prepare(
    engine: Engine,
    sam_id: str,
    pictures: Sequence[SubjectPicture],
    marked: int,
    *,
    method: MaskMethod = "persam_f",
    fit: FitConfig | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> tuple[list[SubjectPicture], MaskOrigin]:
    """Find the marked subject in all pictures; arguments and errors as of ``propose_masks``.

    What comes back waits for the visitor's decision on each picture.
    """
    return propose_masks(
        engine,
        sam_id,
        pictures,
        marked,
        method=method,
        fit=fit,
        cancel=cancel,
        progress=progress,
    )


def train(
    engine: Engine,
    model_id: str,
    subject: Subject,
    pictures: Sequence[SubjectPicture],
    config: DreamBoothConfig,
    folder: Path,
    *,
    class_root: Path,
    control: Control | None = None,
    allow_unmasked: bool = False,
    exclusive: bool = False,
    force: bool = False,
) -> Iterator[Event]:
    """Teach a model the subject; with checkpoints in the folder, go on from the newest.

    Pictures, masks, words and settings are kept in the folder as well, for ``resume``.

    Args:
        model_id: a diffusion model of the catalogue.
        pictures: with a decision each.
        folder: of this training alone, made if it is not there.
        class_root: where the class's pictures are kept, for all trainings.
        allow_unmasked: use pictures without mask and decision as a whole.
        exclusive, force: as of ``Training``.

    Yields:
        Events; the last one is ``Finished`` or ``Stopped``.

    Raises:
        PromptError: pictures, masks or settings are not fit for training.
        ModelUnavailable: the model is not here.
        OutOfMemory, SuiteError: as of ``Training.run``.
    """
    control = control or Control()
    used = training_pictures(pictures, allow_unmasked=allow_unmasked)
    _keep_request(folder, model_id, subject, used, config)
    with engine.model(model_id, control) as model:
        try:
            images: list[NDArray[np.uint8]] = []
            if config.prior:
                side = model.check_side(config.resolution or model.resolution)
                place = class_folder(class_root, model, subject.class_prompt, side, config.seed)
                yield from _draw_class(engine, model, subject, config, place, side, control)
                images = load_class_pictures(place, config.prior_pictures)
        except Cancelled:
            checkpoints = list_checkpoints(folder)
            yield Stopped(0, checkpoints[-1] if checkpoints else None)
            return
        training = Training(
            model,
            subject,
            used,
            config,
            folder,
            class_pictures=images,
            control=control,
            exclusive=exclusive,
            force=force,
        )
        yield from training.run()


def resume(
    engine: Engine,
    folder: Path,
    *,
    class_root: Path,
    control: Control | None = None,
    exclusive: bool = False,
) -> Iterator[Event]:
    """Go on with the training in a folder, for instance after a restart.

    Arguments, events and errors as of ``train``.

    Raises:
        PromptError: the folder is that of no training, or damaged.
    """
    try:
        request = json.loads((folder / TRAINING_FILE).read_bytes())
        model_id = str(request["model"])
        subject = Subject(**request["subject"])
        config = DreamBoothConfig.from_dict(request["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"There is no training in {folder.name} that could go on: begin a new one."
        ) from error
    yield from train(
        engine,
        model_id,
        subject,
        load_pictures(folder),
        config,
        folder,
        class_root=class_root,
        control=control,
        exclusive=exclusive,
    )


def sample(
    engine: Engine,
    model_id: str,
    prompts: str | Sequence[str],
    seeds: Sequence[int],
    *,
    learned: LearnedSubject | None = None,
    config: DreamBoothConfig | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Drawn:
    """Draw with the untouched model, or with one that has learned a subject.

    Args:
        prompts: one for all seeds, or one for each; "{}" stands for the learned subject.
        seeds: one for each picture.
        config: what is drawn with (steps, guidance, size); None: that of the subject's training.

    Raises:
        PromptError: a prompt is empty or too long, or the subject belongs to another model.
        OutOfMemory: too little memory; what was in use is free again.
        Cancelled: on request.
    """
    with engine.model(model_id, cancel) as model:
        settings = config or (learned.config if learned else DreamBoothConfig())
        texts = [prompts] * len(seeds) if isinstance(prompts, str) else list(prompts)
        texts = [_filled(text, learned.subject if learned else None) for text in texts]
        dtype = pick_precision(model.device, settings.precision)
        start = time.perf_counter()
        with drawing_guard(engine):
            pipeline = learned.pipeline(model, dtype) if learned else model.pipeline()
            side = settings.resolution or (learned.side if learned else model.resolution)
            images = draw(
                pipeline,
                texts,
                seeds,
                side=model.check_side(side),
                steps=settings.inference_steps,
                guidance=settings.guidance_scale,
                dtype=dtype,
                cancel=cancel,
                progress=progress,
            )
        long = [text for text in dict.fromkeys(texts) if not model.fits(text)]
    return Drawn(
        tuple(images),
        tuple(texts),
        tuple(seeds),
        learned,
        time.perf_counter() - start,
        tuple(
            f"The end of the prompt “{text[:60]}…” was not read: it is too long." for text in long
        ),
    )


def compare(
    engine: Engine,
    model_id: str,
    prompts: str | Sequence[str],
    seeds: Sequence[int],
    learned: Sequence[LearnedSubject],
    *,
    config: DreamBoothConfig | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> tuple[Drawn, ...]:
    """Draw the same prompts from the same seeds before training and with each learned subject.

    The words are the same for all, also for the untouched model, which knows the class only.
    Arguments and errors as of ``sample``; the size and settings are those of the first subject.
    """
    if not learned:
        raise PromptError("There is no learned subject to compare with: train one first.")
    words = learned[0].subject
    texts = [prompts] * len(seeds) if isinstance(prompts, str) else list(prompts)
    texts = [_filled(text, words) for text in texts]
    settings = config or learned[0].config
    settings = replace(settings, resolution=settings.resolution or learned[0].side)
    rounds: list[LearnedSubject | None] = [None, *learned]
    done = []
    for number, one in enumerate(rounds):

        def tell(fraction: float, message: str, first: int = number) -> None:
            if progress is not None:
                progress((first + fraction) / len(rounds), message)

        done.append(
            sample(
                engine,
                model_id,
                texts,
                seeds,
                learned=one,
                config=settings,
                cancel=cancel,
                progress=tell,
            )
        )
    return tuple(done)


def estimate_seconds(engine: Engine, model_id: str, config: DreamBoothConfig) -> float:
    """Expected time of a training on this device, from one small piece of it.

    One forward pass of the U-Net is timed, after one to warm up. A step costs about three of them
    for each picture (four with recomputed activations), a drawn picture two for each step of the
    sampler.
    """
    with engine.model(model_id) as model, drawing_guard(engine):
        one = _forward_seconds(model, config)
    pictures = config.batch_size * (2 if config.prior else 1)
    training = config.steps * pictures * one * (4 if config.gradient_checkpointing else 3)
    previews = config.steps // config.sample_steps if config.sample_steps else 0
    drawn = previews * len(config.sample_prompts) + config.prior * config.prior_pictures
    return training + drawn * 2 * one * config.inference_steps


@torch.no_grad()
def _forward_seconds(model: DiffusionModel, config: DreamBoothConfig) -> float:
    cells = model.check_side(config.resolution or model.resolution) // model.factor
    dtype = pick_precision(model.device, config.precision)
    width = model.unet.config.cross_attention_dim
    noisy = torch.zeros(1, model.channels, cells, cells, device=model.device)
    condition = torch.zeros(1, model.tokenizer.model_max_length, width, device=model.device)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            model.unet(noisy, torch.zeros(1, device=model.device), condition)
        synchronize(model.device)
        seconds = time.perf_counter() - start
    return seconds


def _keep_request(
    folder: Path,
    model_id: str,
    subject: Subject,
    pictures: Sequence[SubjectPicture],
    config: DreamBoothConfig,
) -> None:
    """Write what a training was asked for, once: a later run in the folder is the same one."""
    if (folder / TRAINING_FILE).is_file():
        return
    save_pictures(folder, pictures)
    request = {"model": model_id, "subject": asdict(subject), "settings": config.to_dict()}
    write_atomically(folder / TRAINING_FILE, json.dumps(request, indent=1).encode())


def _draw_class(
    engine: Engine,
    model: Any,
    subject: Subject,
    config: DreamBoothConfig,
    place: Path,
    side: int,
    control: Control,
) -> Iterator[Event]:
    """Draw the class's pictures that are not there yet."""
    with drawing_guard(engine):
        for there, every in class_pictures(
            model,
            subject.class_prompt,
            config,
            place,
            side=side,
            dtype=pick_precision(model.device, config.precision),
            cancel=control,
        ):
            control.wait_while_paused()
            message = f"Drawing pictures of the class: {there} of {every}"
            yield Phase("class_pictures", there / every, message)


def _filled(prompt: str, subject: Subject | None) -> str:
    if subject is None:
        if "{}" in prompt:
            raise PromptError("The prompt names a learned subject by {}: choose a subject.")
        return prompt
    return subject.fill(prompt)
