"""Draw pictures: prompts and seeds in, RGB out, cancelled between two steps of the sampler.

A picture depends on its prompt, its seed and the model, never on what is drawn beside it: each has
a generator of its own on the CPU, so that a seed means the same on every device.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from core.dreambooth.config import check_prompt
from core.dreambooth.storage import PARTIAL
from core.engine.device import describe
from core.errors import OutOfMemory, PromptError

if TYPE_CHECKING:
    from core.dreambooth.config import DreamBoothConfig
    from core.dreambooth.model import DiffusionModel
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine

MAX_PICTURES = 64  # of one request
BATCH = 4  # class pictures drawn at once

# Called with the finished fraction in [0, 1] and a sentence.
Progress = Callable[[float, str], None]


def draw(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    side: int,
    steps: int = 25,
    guidance: float = 7.5,
    dtype: torch.dtype = torch.float32,
    batch: int = BATCH,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> list[NDArray[np.uint8]]:
    """Draw one picture for each prompt and seed that stand beside each other.

    Args:
        pipeline: a StableDiffusionPipeline.
        side: px.
        dtype: to compute in.
        batch: pictures at once; it changes nothing but memory and speed.

    Returns:
        RGB uint8 (S, S, 3).

    Raises:
        PromptError: no prompt, too many, or an empty one.
        Cancelled: on request.
    """
    prompts = [check_prompt(prompt) for prompt in prompts]
    if not 1 <= len(prompts) <= MAX_PICTURES:
        raise PromptError(
            f"There are {len(prompts)} pictures to draw: ask for 1 to {MAX_PICTURES}."
        )
    if len(prompts) != len(seeds):
        raise PromptError(f"There are {len(prompts)} prompts and {len(seeds)} seeds.")
    images: list[NDArray[np.uint8]] = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)

        def look(
            pipe: Any, step: int, timestep: Any, values: dict[str, Any], first: int = start
        ) -> dict[str, Any]:
            if cancel is not None:
                cancel.raise_if_cancelled(f"after {first} of {len(prompts)} pictures")
            if progress is not None:
                done = first + (step + 1) / steps * len(prompts[first : first + batch])
                progress(min(done / len(prompts), 1.0), f"Drawing picture {first + 1}")
            return values

        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[part]]
        with (
            torch.no_grad(),
            torch.autocast(pipeline.device.type, dtype, enabled=dtype != torch.float32),
        ):
            output = pipeline(
                prompts[part],
                height=side,
                width=side,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                output_type="np",
                callback_on_step_end=look,
            )
        images += list(np.rint(output.images * 255).astype(np.uint8))
    return images


@contextmanager
def drawing_guard(engine: Engine) -> Iterator[None]:
    """Turn an out-of-memory error of a block that draws into advice, after freeing what can be."""
    try:
        with engine.out_of_memory_guard():
            yield
    except OutOfMemory as error:
        raise OutOfMemory(
            f"Drawing needs more memory than is free on {describe(engine.device)}: ask for fewer "
            "pictures at once, or a smaller resolution; what was in use is free again."
        ) from error


def class_pictures(
    model: DiffusionModel,
    prompt: str,
    config: DreamBoothConfig,
    folder: Path,
    *,
    side: int,
    dtype: torch.dtype = torch.float32,
    cancel: CancelToken | None = None,
) -> Iterator[tuple[int, int]]:
    """Draw the class's pictures with the untouched model, those that the folder lacks.

    The folder is one of its kind for model, prompt and size, so that later trainings find the
    pictures there; each has its number's seed, and a stop in between costs nothing.

    Yields:
        (there, all) pictures, after each batch.

    Raises:
        Cancelled: on request; what was drawn stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = _numbers(folder)
    missing = [number for number in range(config.prior_pictures) if number not in there]
    if not missing:
        return
    pipeline = model.pipeline()
    for start in range(0, len(missing), BATCH):
        numbers = missing[start : start + BATCH]
        images = draw(
            pipeline,
            [prompt] * len(numbers),
            [config.seed + number for number in numbers],
            side=side,
            steps=config.inference_steps,
            guidance=config.guidance_scale,
            dtype=dtype,
            cancel=cancel,
        )
        for number, image in zip(numbers, images, strict=True):
            _save(folder, number, image)
        yield config.prior_pictures - len(missing) + start + len(numbers), config.prior_pictures


def class_folder(root: Path, model: DiffusionModel, prompt: str, side: int, seed: int) -> Path:
    """Where the class's pictures of a model, prompt, size and seed are kept."""
    what = repr((model.id, model.sha256, prompt, side, seed)).encode()
    return root / hashlib.sha256(what).hexdigest()[:24]


def load_class_pictures(folder: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read the first ``count`` of a folder's pictures, in the order of their numbers."""
    numbered = _numbers(folder)
    images = []
    for number in sorted(numbered)[:count]:
        with Image.open(numbered[number]) as file:
            images.append(np.asarray(file.convert("RGB")))
    return images


def save_picture(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an RGB picture as PNG, whole or not at all."""
    partial = path.with_name(path.name + PARTIAL)
    Image.fromarray(image).save(partial, format="PNG")
    return partial.replace(path)


def _save(folder: Path, number: int, image: NDArray[np.uint8]) -> None:
    digest = hashlib.sha1(image.tobytes()).hexdigest()
    save_picture(folder / f"{number}-{digest}.png", image)


def _numbers(folder: Path) -> dict[int, Path]:
    """Class pictures of a folder by number."""
    found = (
        (re.fullmatch(r"(\d+)-[0-9a-f]{40}\.png", path.name), path) for path in folder.iterdir()
    )
    return {int(match[1]): path for match, path in found if match}
