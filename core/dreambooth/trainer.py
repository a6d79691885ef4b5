"""The training loop, as a generator of events.

Each step draws its batch from its own number, so a training that was stopped goes on to the same
weights as one that never was. Nothing here belongs to a page: whoever iterates decides where the
events go.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.dreambooth.card import Figures, write_subject
from core.dreambooth.checkpoints import (
    Facts,
    check_same_run,
    list_checkpoints,
    load_checkpoint,
    read_facts,
    save_checkpoint,
)
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.control import Control
from core.dreambooth.data import Batch, Batches, PictureLatents
from core.dreambooth.events import (
    CheckpointSaved,
    Event,
    Finished,
    Paused,
    Phase,
    Resumed,
    Samples,
    StepDone,
    Stopped,
)
from core.dreambooth.lora import build_denoiser
from core.dreambooth.loss import Losses, step_losses, target_of
from core.dreambooth.model import DiffusionModel
from core.dreambooth.parallel import accelerator, make_optimizer
from core.dreambooth.sampling import draw, save_picture
from core.dreambooth.storage import check_room, clear_partial, is_disk_full
from core.dreambooth.subjects import SubjectPicture
from core.engine.device import MIB, describe, pick_precision, release_cached_memory
from core.engine.engine import is_out_of_memory
from core.errors import Cancelled, OutOfMemory, PromptError, SuiteError

if TYPE_CHECKING:
    from core.dreambooth.lora import Denoiser

SMOOTHING = 0.95  # of the loss as shown
RECENT_STEPS = 20  # that the remaining time is told by
SAMPLE_SEED = 1000  # of the first sample picture, whatever the training's seed

_log = logging.getLogger(__name__)


class Training:
    """One fine-tuning of a model to a subject.

    Use: ``for event in training.run(): …``, once.

    Args:
        model: stays as it is; weights that do not change are shared with it.
        pictures: to train on, as ``training_pictures`` returns them.
        folder: of this training alone; checkpoints, samples and the subject go there.
        class_pictures: RGB uint8 (H, W, 3) each; needed with ``config.prior``.
        control: to stop or hold it from another thread.
        exclusive: nobody else uses the model, so that its idle parts may leave the GPU while
            steps are taken.
        force: go on from a checkpoint though settings, masks or model are others.

    Raises:
        PromptError: there are no class pictures, or the model cannot work at the resolution.
        ModelUnavailable: the precision cannot be had on this device.
    """

    def __init__(
        self,
        model: DiffusionModel,
        subject: Subject,
        pictures: Sequence[SubjectPicture],
        config: DreamBoothConfig,
        folder: Path,
        *,
        class_pictures: Sequence[NDArray[np.uint8]] = (),
        control: Control | None = None,
        exclusive: bool = False,
        force: bool = False,
    ) -> None:
        if config.prior and not class_pictures:
            raise PromptError(
                "There are no pictures of the class: let them be drawn first, or switch prior "
                "preservation off."
            )
        self.model = model
        self.subject = subject
        self.config = config
        self.folder = folder
        self.control = control or Control()
        self.side = model.check_side(config.resolution or model.resolution)
        self.device = model.device
        self.dtype = pick_precision(self.device, config.precision)
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self._pictures = list(pictures)
        self._exclusive = exclusive and self.device.type != "cpu"
        self._force = force
        self._recent: list[float] = []
        self._whole_step = True  # False while weights are half way between two steps
        self._batches = self._make_batches(class_pictures)

    def run(self) -> Iterator[Event]:
        """Train from the newest checkpoint in the folder, or from the beginning, to the end.

        Yields:
            Events; the last one is ``Finished`` or ``Stopped``.

        Raises:
            OutOfMemory, SuiteError: memory or disk is full, or the loss is no number any more;
                what was trained up to then is in the last checkpoint, and the message says so.
            PromptError: the checkpoint in the folder belongs to something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._accelerator = stack.enter_context(accelerator())
            if self._accelerator.is_main_process:
                clear_partial(self.folder)
            with self._said_in_words():
                yield from self._cache()
                self._build()
                self._restore()
                if self._exclusive:
                    stack.callback(self._bring_back)
                    self._put_aside()
            yield from self._loop()

    def _loop(self) -> Iterator[Event]:
        if self.history:
            yield Resumed(self.step, tuple(self._as_event(row) for row in self.history))
        yield Phase("training", self.step / self.config.steps, "Training")
        while self.step < self.config.steps:
            if self.control.paused:
                yield Paused(self.step)
                self.control.wait_while_paused()
            if self.control.cancelled:
                yield from self._stop()
                return
            with self._said_in_words():
                done = self._take_step()
            yield done
            if self._is_due(self.config.checkpoint_steps) and self.step < self.config.steps:
                yield self._checkpoint()
            if self.config.sample_steps and self._is_due(self.config.sample_steps):
                try:
                    yield from self._sample()
                except Cancelled:
                    pass  # the next round stops
        yield self._checkpoint()
        yield self._finish()

    def _make_batches(self, class_pictures: Sequence[NDArray[np.uint8]]) -> Batches:
        own = [(picture.image, picture.training_mask) for picture in self._pictures]
        self._own = PictureLatents(self.model, "own", own, self.config)
        self._other = None
        if self.config.prior:
            other = [(image, np.ones(image.shape[:2], bool)) for image in class_pictures]
            self._other = PictureLatents(self.model, "class", other, self.config)
        timesteps = self.model.scheduler.config.num_train_timesteps
        return Batches(self._own, self._other, self.config, timesteps)

    def _cache(self) -> Iterator[Event]:
        """Encode pictures and prompts, which do not change any more."""
        every = len(self._own) + len(self._other or ())
        done = 0
        for pictures in (self._own, self._other):
            for count, _ in pictures.fill() if pictures is not None else ():
                if self.control.cancelled:
                    return
                yield Phase("caching", (done + count) / every, "Encoding the pictures")
            done += len(pictures or ())
        prompts = [self.subject.instance_prompt]
        prompts += [self.subject.class_prompt] * self.config.prior
        for prompt in prompts:
            if not self.model.fits(prompt):
                raise PromptError(f"The prompt {prompt!r} is longer than the model can read.")
        if self.config.train_text_encoder:
            conditions = self.model.tokenize(prompts).to(self.device)
        else:
            conditions = self.model.encode_prompts(prompts)
        self._conditions = conditions  # (1 or 2, T) or (1 or 2, T, D)

    def _build(self) -> None:
        """Make what is trained, its optimiser, and the rest of a step."""
        self._denoiser: Denoiser = build_denoiser(self.model, self.config, self.dtype)
        self._parameters = [parameter for _, parameter in self._denoiser.trained()]
        self._optimizer = make_optimizer(
            self._parameters,
            self.device,
            rate=self.config.learning_rate,
            decay=self.config.weight_decay,
            in_8bit=self.config.adam_8bit,
        )
        half = self.dtype == torch.float16
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self._network = self._accelerator.prepare_model(self._denoiser, device_placement=False)
        numbers = sum(parameter.numel() for parameter in self._parameters)
        # Weights and two moments a checkpoint, one more than are kept, and the subject's weights.
        check_room(self.folder, (12 * (self.config.checkpoints_kept + 1) + 4) * numbers)

    def _restore(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoints = list_checkpoints(self.folder)
        if not checkpoints:
            return
        if not self._force:
            check_same_run(read_facts(checkpoints[-1]), self._facts())
        facts = load_checkpoint(checkpoints[-1], self._denoiser, self._optimizer)
        self.step, self.seconds, self.history = facts.step, facts.seconds, facts.history
        if facts.scaler:
            self._scaler.load_state_dict(facts.scaler)
        _log.info("going on from %s", checkpoints[-1].name)

    def _take_step(self) -> StepDone:
        start = time.monotonic()
        rate = self._learning_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        self._network.train()
        losses = self._losses(self._batches.make(self.step, rank, world).to(self.device))
        self._scaler.scale(losses.total).backward()
        if not math.isfinite(float(losses.total.detach())):
            raise SuiteError(
                f"The training went astray at step {self.step + 1}: its loss is no number any "
                f"more. Choose a lower learning rate than {self.config.learning_rate:g}, or "
                f"bfloat16. {self._what_is_kept()}"
            )
        self._update()
        self.step += 1
        return self._report(losses, rate, time.monotonic() - start)

    def _losses(self, batch: Batch) -> Losses:
        scheduler = self.model.scheduler
        noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        counts = [len(batch.mask), len(batch.latents) - len(batch.mask)]
        which = torch.tensor([0] * counts[0] + [1] * counts[1], device=self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            prediction: Tensor = self._network(noisy, batch.timesteps, self._conditions[which])
        target = target_of(scheduler, batch.latents, batch.noise, batch.timesteps)
        return step_losses(
            prediction.float(), target, batch.mask, batch.timesteps, scheduler, self.config
        )

    def _update(self) -> None:
        """Move the weights; out of memory in here leaves them between two steps."""
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._parameters, self.config.max_gradient_norm)
        self._whole_step = False
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._whole_step = True

    def _report(self, losses: Losses, rate: float, seconds: float) -> StepDone:
        loss = float(losses.total.detach())
        last = self.history[-1]["smoothed"] if self.history else loss
        row = {
            "step": self.step,
            "loss": loss,
            "instance": float(losses.instance),
            "unmasked": float(losses.unmasked),
            "smoothed": SMOOTHING * last + (1 - SMOOTHING) * loss,
            "learning_rate": rate,
        }
        if losses.prior is not None:
            row["prior"] = float(losses.prior)
        self.history.append(row)
        self.seconds += seconds
        self._recent = [*self._recent[1 - RECENT_STEPS :], seconds]
        left = self.config.steps - self.step
        memory = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        return replace(
            self._as_event(row),
            seconds=self.seconds,
            remaining=left * sum(self._recent) / len(self._recent),
            memory_mib=memory // MIB,
        )

    def _as_event(self, row: dict[str, float]) -> StepDone:
        return StepDone(
            step=int(row["step"]),
            steps=self.config.steps,
            loss=row["loss"],
            instance=row["instance"],
            prior=row.get("prior"),
            unmasked=row["unmasked"],
            smoothed=row["smoothed"],
            learning_rate=row["learning_rate"],
            seconds=0.0,
            remaining=0.0,
        )

    def _learning_rate(self) -> float:
        warmup = min(1.0, (self.step + 1) / (self.config.warmup_steps + 1))
        share = self.step / self.config.steps
        shape = {
            "constant": 1.0,
            "linear": 1 - share,
            "cosine": 0.5 * (1 + math.cos(math.pi * share)),
        }
        return self.config.learning_rate * warmup * shape[self.config.schedule]

    def _is_due(self, interval: int) -> bool:
        return self.step % interval == 0

    def _facts(self) -> Facts:
        return Facts(
            step=self.step,
            seconds=self.seconds,
            seed=self.config.seed,
            method=self.config.method,
            base=(self.model.id, self.model.sha256),
            config_digest=self.config.digest,
            pictures=tuple(picture.digest for picture in self._pictures),
            history=self.history,
            scaler=self._scaler.state_dict(),
        )

    def _checkpoint(self) -> CheckpointSaved:
        with self._said_in_words():
            return CheckpointSaved(self.step, self._write_checkpoint())

    def _write_checkpoint(self) -> Path:
        path = self.folder / f"checkpoint-{self.step:06d}"
        if not self._accelerator.is_main_process:
            return path
        return save_checkpoint(
            self.folder,
            self._denoiser,
            self._optimizer,
            self._facts(),
            self.config.checkpoints_kept,
        )

    def _stop(self) -> Iterator[Event]:
        """Keep what was trained, and say where."""
        checkpoints = list_checkpoints(self.folder)
        newest = checkpoints[-1] if checkpoints else None
        if self.step and (newest is None or read_facts(newest).step < self.step):
            saved = self._checkpoint()
            newest = saved.path
            yield saved
        yield Stopped(self.step, newest)

    def _sample(self) -> Iterator[Event]:
        """Draw the sample prompts with the weights as they are."""
        if not self._accelerator.is_main_process or not self.config.sample_prompts:
            return
        yield Phase("preview", 0.0, "Drawing samples")
        prompts = [self.subject.fill(prompt) for prompt in self.config.sample_prompts]
        seeds = [SAMPLE_SEED + k for k in range(len(prompts))]
        with self._said_in_words():
            images = self._draw(prompts, seeds)
            folder = self.folder / "samples"
            folder.mkdir(exist_ok=True)
            files = [
                save_picture(folder / f"step-{self.step:06d}_{k}.png", image)
                for k, image in enumerate(images)
            ]
        yield Samples(self.step, tuple(prompts), tuple(seeds), tuple(images), tuple(files))

    def _draw(self, prompts: list[str], seeds: list[int]) -> list[NDArray[np.uint8]]:
        if self._exclusive:
            self._bring_back()
        pipeline = self.model.pipeline(
            unet=self._denoiser.unet, text_encoder=self._denoiser.text_encoder
        )
        self._denoiser.eval()
        images = draw(
            pipeline,
            prompts,
            seeds,
            side=self.side,
            steps=self.config.inference_steps,
            guidance=self.config.guidance_scale,
            dtype=self.dtype,
            cancel=self.control,
        )
        if self._exclusive:
            self._put_aside()
        return images

    def _finish(self) -> Finished:
        figures = Figures(
            steps=self.step,
            seconds=round(self.seconds, 1),
            loss=self.history[-1]["smoothed"] if self.history else None,
            device=describe(self.device),
        )
        path = self.folder / "subject"
        if self._accelerator.is_main_process:
            with self._said_in_words():
                write_subject(
                    path,
                    self._denoiser,
                    self.subject,
                    self.config,
                    self.model,
                    self._pictures,
                    figures,
                )
        return Finished(self.step, path)

    def _put_aside(self) -> None:
        """Take what a step does not need off the GPU."""
        self.model.vae.to("cpu")
        self.model.text_encoder.to("cpu")
        release_cached_memory(self.device)

    def _bring_back(self) -> None:
        self.model.vae.to(self.device)
        self.model.text_encoder.to(self.device)

    def _what_is_kept(self) -> str:
        checkpoints = list_checkpoints(self.folder)
        if not checkpoints:
            return "Nothing was trained yet that could be lost."
        step = read_facts(checkpoints[-1]).step
        return f"The training up to step {step} is kept, and can go on from there."

    @contextmanager
    def _said_in_words(self) -> Iterator[None]:
        """Turn a full disk and too little memory into advice; what was trained is kept first."""
        problem: Callable[[], SuiteError] | None = None
        try:
            yield
        except Exception as error:
            if is_disk_full(error):
                problem = self._disk_full
            elif is_out_of_memory(error):
                problem = self._out_of_memory
            if problem is None:
                raise
            _log.warning("training stopped at step %d: %s", self.step, error)
            traceback.clear_frames(error.__traceback__)  # their locals hold the tensors
        if problem is not None:  # outside of the handler, where the error holds nothing any more
            raise problem()

    def _disk_full(self) -> SuiteError:
        return SuiteError(
            f"The disk is full, so the training stopped at step {self.step}: delete old trainings. "
            f"{self._what_is_kept()}"
        )

    def _out_of_memory(self) -> SuiteError:
        self._save_what_is_there()
        release_cached_memory(self.device)
        advice = [] if self.config.method == "lora" else ["a LoRA"]
        advice += [] if self.config.gradient_checkpointing else ["gradient checkpointing"]
        advice += ["pictures one by one"] if self.config.batch_size > 1 else []
        advice += ["a smaller resolution"]
        return OutOfMemory(
            f"The training needs more memory than is free on {describe(self.device)}: try "
            f"{' or '.join(advice)}. {self._what_is_kept()}"
        )

    def _save_what_is_there(self) -> None:
        """A checkpoint of the last whole step, unless there is one or there is no room."""
        checkpoints = list_checkpoints(self.folder)
        saved = read_facts(checkpoints[-1]).step if checkpoints else 0
        if not self._whole_step or self.step <= saved:
            return
        self._optimizer.zero_grad(set_to_none=True)
        try:
            self._write_checkpoint()
        except Exception:
            _log.warning("no checkpoint could be written at step %d", self.step, exc_info=True)
