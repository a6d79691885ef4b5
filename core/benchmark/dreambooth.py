"""DreamBooth's steps: ours with cached latents and texts, and the way of diffusers' own example.

Both train the same LoRA on the embedded architecture from the same pictures, random numbers and
settings in float32, with prior preservation and without masks (a mask adds nothing measurable). The
example loads its pictures, encodes them and reads its prompts at every step. The losses of the
first steps have to agree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.benchmark._dreambooth_example import ExampleTraining
from core.benchmark.car import hold_allocator
from core.benchmark.harness import OutputsDiffer, environment, peak_memory_mib
from core.benchmark.sam import Bench
from core.clip.build import MERGES
from core.dreambooth.build import (
    build_from_entry,
    build_pipeline,
    byte_pair_tokenizer,
    embedded_pipeline_config,
)
from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.events import StepDone
from core.dreambooth.model import DiffusionModel
from core.dreambooth.subjects import SubjectPicture
from core.dreambooth.trainer import Training
from core.engine.device import describe, pick_device
from core.models.catalogue import catalogue
from core.models.loading import find_local, read_state_dict
from core.reports import Report
from core.settings import settings

MODEL = "diffusion_embedded"
SUBJECT = Subject("sks", "clock")
CONFIG = DreamBoothConfig.preset(
    "good",
    "embedded",
    mask_loss="none",
    precision="float32",
    sample_steps=None,
    steps=100_000,  # more than are taken: the run ends when nobody asks for another one
    checkpoint_steps=100_000,
)
OWN, OTHER = 5, 24  # pictures of the subject, and of its class
STEPS = 10  # of a timed run
CHECKED_STEPS = 8
LOSS_TOLERANCE = 1e-4
BARS = {"step_speedup": 1.3, "memory_ratio": 1.0, "loss_difference": LOSS_TOLERANCE}


def run(limit: int | None) -> Report:
    """Measure steps and memory; figures are ratios example over ours.

    Args:
        limit: at most so many pairs.

    Raises:
        OutputsDiffer: the losses are not the example's.
    """
    bench = Bench(pick_device(settings.device), limit, [])
    model, weights = embedded_model(bench.device)
    with tempfile.TemporaryDirectory() as folder:
        difference = loss_difference(model, Path(folder) / "check")
        ours = steps_of(model, Path(folder) / "timed")
        example = example_of(model)
        pairs = bench.compare(
            f"{STEPS} steps of {CONFIG.batch_size} + {CONFIG.batch_size} pictures",
            f"losses differ by {difference:.1e}",
            lambda: [example.step() for _ in range(STEPS)],
            lambda: [next(ours) for _ in range(STEPS)],
        )
    memory = measure_memory()
    figures = {
        "step_speedup": pairs.ratio,
        "steps_per_second": STEPS / float(np.median(pairs.ours)),
        "example_steps_per_second": STEPS / float(np.median(pairs.reference)),
        "loss_difference": difference,
        **memory_figures(memory),
    }
    details: dict[str, Any] = {
        "rows": bench.rows,
        "memory_mib": memory,
        "settings": CONFIG.to_dict(),
        "bars": BARS,
        "weights": weights,
        "pairs_limited_to": limit,
        "environment": environment(bench.device),
    }
    data = f"{OWN} drawn pictures" + (f", {limit} pairs" if limit else "")
    models = [f"{MODEL} ({weights})"]
    return Report("benchmark dreambooth", models, data, describe(bench.device), figures, details)


def embedded_model(device: torch.device) -> tuple[DiffusionModel, str]:
    """The embedded diffusion model, and whether its weights are the shipped ones."""
    entry = catalogue().get(MODEL)
    if entry is not None and (path := find_local(entry)):
        return build_from_entry(entry, read_state_dict(path)).to(device), "shipped weights"
    model = build_pipeline(embedded_pipeline_config(), byte_pair_tokenizer(MERGES), id=MODEL)
    return model.requires_grad_(False).to(device), "random: its weights are not here"


def pictures(count: int, seed: int, side: int) -> list[NDArray[np.uint8]]:
    """Some squares on gradients, RGB uint8 (side, side, 3)."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ramp = np.linspace(random.uniform(0, 255, 3), random.uniform(0, 255, 3), side)
        image = np.broadcast_to(ramp[:, None], (side, side, 3)).astype(np.uint8).copy()
        top, left = random.integers(0, side // 2, 2)
        image[top : top + side // 2, left : left + side // 2] = random.integers(0, 256, 3)
        made.append(image)
    return made


def steps_of(
    model: DiffusionModel, folder: Path, config: DreamBoothConfig = CONFIG
) -> Iterator[float]:
    """Losses of our own trainer's steps, one at a time."""
    own = [
        SubjectPicture(f"picture-{k}", image).use_whole()
        for k, image in enumerate(pictures(OWN, 0, model.resolution))
    ]
    other = pictures(OTHER, 1, model.resolution)
    training = Training(model, SUBJECT, own, config, folder, class_pictures=other)
    return (event.loss for event in training.run() if isinstance(event, StepDone))


def example_of(model: DiffusionModel, config: DreamBoothConfig = CONFIG) -> ExampleTraining:
    """The example's training of the same subject."""
    own, other = (pictures(n, seed, model.resolution) for n, seed in ((OWN, 0), (OTHER, 1)))
    return ExampleTraining(model, SUBJECT, own, other, config)


def loss_difference(model: DiffusionModel, folder: Path) -> float:
    """Largest difference of the first steps' losses.

    The trainings' own weights move in between, so their updates are compared as well.

    Raises:
        OutputsDiffer: the difference is more than rounding.
    """
    config = replace(CONFIG, steps=CHECKED_STEPS)
    example = example_of(model, config)
    pairs = [(loss, example.step()) for loss in steps_of(model, folder, config)]
    difference = max(abs(ours - theirs) for ours, theirs in pairs)
    if not difference <= LOSS_TOLERANCE:
        raise OutputsDiffer(f"losses differ by {difference:.2g}; {LOSS_TOLERANCE:g} is allowed")
    return difference


def measure_memory() -> dict[str, float]:
    """Peak memory of a process that trains in either way, and of one that only loads, MiB."""
    target = "core.benchmark.dreambooth:train_once"
    return {side: peak_memory_mib(target, side) for side in ("loaded", "ours", "example")}


def memory_figures(memory: dict[str, float]) -> dict[str, float]:
    """Ratio of the whole processes, and of what training adds to a loaded one, example over ours.

    The model is small beside the libraries, so the first ratio is close to 1 on a CPU.
    """
    added = {side: max(memory[side] - memory["loaded"], 1.0) for side in ("ours", "example")}
    return {
        "memory_ratio": memory["example"] / memory["ours"],
        "added_memory_ratio": added["example"] / added["ours"],
        "saved_mib": memory["example"] - memory["ours"],
    }


def train_once(side: str) -> None:
    """Load the model and take some steps in one way; for a fresh process."""
    hold_allocator()
    model, _ = embedded_model(pick_device(settings.device))
    with tempfile.TemporaryDirectory() as folder:
        if side == "example":
            example = example_of(model)
            for _ in range(STEPS):
                example.step()
        elif side == "ours":
            ours = steps_of(model, Path(folder) / "run")
            for _ in range(STEPS):
                next(ours)
