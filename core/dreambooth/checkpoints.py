"""Checkpoints that a crash cannot spoil and that a training goes on from to the same numbers.

A folder ``checkpoint-<step>`` holds the trained weights in diffusers' format, ``state.safetensors``
with the optimiser's state and the random numbers' states, and ``trainer_state.json`` with
everything else. Nothing is pickled. A folder appears under its name only when it is whole, and old
ones go only after that.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.dreambooth.lora import Denoiser, load_weights_into, save_weights
from core.dreambooth.storage import whole_folder
from core.errors import PromptError

STATE_FILE = "state.safetensors"
FACTS_FILE = "trainer_state.json"


@dataclass(frozen=True)
class Facts:
    """What a checkpoint belongs to, and how far it is.

    Args:
        step: steps done.
        seconds: that they took.
        base: id and checksum of the untouched model.
        config_digest: of the settings that the weights depend on.
        pictures: digests of the pictures with their masks.
        history: a row of figures for each step.
        scaler: state of float16's loss scaling.
    """

    step: int
    seconds: float
    seed: int
    method: str
    base: tuple[str, str]
    config_digest: str
    pictures: tuple[str, ...]
    history: list[dict[str, float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, denoiser: Denoiser, optimizer: torch.optim.Optimizer, facts: Facts, keep: int
) -> Path:
    """Write a checkpoint, then delete all but the newest ``keep``; return its path.

    Raises:
        OSError, safetensors' own error: the disk is full; what was there before is untouched.
    """
    path = folder / f"checkpoint-{facts.step:06d}"
    with whole_folder(path) as partial:
        save_weights(denoiser, partial, facts.method)
        tensors, numbers = _flatten(optimizer)
        save_file({**tensors, **_random_states()}, partial / STATE_FILE)
        values = {**asdict(facts), "optimizer": numbers}
        (partial / FACTS_FILE).write_text(json.dumps(values))
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load_checkpoint(path: Path, denoiser: Denoiser, optimizer: torch.optim.Optimizer) -> Facts:
    """Put weights, optimiser and random numbers back to where they were.

    Raises:
        PromptError: the checkpoint is damaged or of another model.
    """
    facts, numbers = _read_facts(path)
    load_weights_into(denoiser, path, facts.method)
    try:
        tensors = load_file(path / STATE_FILE)
        _unflatten(optimizer, tensors, numbers)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
    except Exception as error:  # the parser raises several kinds on damaged files
        raise PromptError(
            f"{path.name} is damaged: choose an older checkpoint, or begin anew."
        ) from error
    return facts


def read_facts(path: Path) -> Facts:
    """What a checkpoint says of itself. Raises PromptError if it cannot be read."""
    return _read_facts(path)[0]


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, the newest last."""
    found = [
        path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def check_same_run(facts: Facts, now: Facts) -> None:
    """Raise PromptError if a checkpoint belongs to another model, other masks or settings."""
    different = {
        "another base model": facts.base != now.base,
        "other pictures or masks": facts.pictures != now.pictures,
        "other settings": facts.config_digest != now.config_digest,
    }
    if reasons := [name for name, differs in different.items() if differs]:
        raise PromptError(
            f"The checkpoint of step {facts.step} was made with {' and '.join(reasons)}: restore "
            "them, or begin a new training."
        )


def _read_facts(path: Path) -> tuple[Facts, dict[str, Any]]:
    try:
        values = json.loads((path / FACTS_FILE).read_bytes())
        numbers = values.pop("optimizer")
        values["base"], values["pictures"] = tuple(values["base"]), tuple(values["pictures"])
        return Facts(**values), numbers
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"{path.name} is damaged: choose an older checkpoint, or begin anew."
        ) from error


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors, and what is no tensor as JSON values."""
    state = optimizer.state_dict()
    named = {
        f"{index}.{name}": value
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    tensors = {
        f"optimizer.{key}": value.detach().cpu().contiguous()
        for key, value in named.items()
        if isinstance(value, Tensor)
    }
    plain = {key: value for key, value in named.items() if not isinstance(value, Tensor)}
    return tensors, {"state": plain, "groups": state["param_groups"]}


def _unflatten(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    named = {
        key.removeprefix("optimizer."): value
        for key, value in tensors.items()
        if key.startswith("optimizer.")
    }
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**named, **numbers["state"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": numbers["groups"]})


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states
