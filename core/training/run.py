"""What every training run shares: time budget, schedule, averaged weights, resuming, the card.

The learning rate follows the share of the time budget that has passed, so that a run of any
length ends with its schedule and stops cleanly on a machine of any speed.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core.training.muon import ConvolutionMuon

LONGEST_STEP = 60.0  # seconds; a process that was suspended has not spent its budget


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Budget and optimisation of one run.

    Args:
        resume: continue from the checkpoint in ``out``, at its place in the schedule.
        start_from: exported weights to begin with, under a schedule of their own.
        seed: of scenes and prompts; take another one to go on from weights of the same seed.
        learning_rate: highest one of AdamW; Muon's stands in the same proportion to its own.
        matrix_rate: highest learning rate of the matrices that Muon steps.
    """

    out: Path
    minutes: float
    device: str = "auto"
    resume: bool = False
    start_from: Path | None = None
    seed: int = 0
    learning_rate: float = 1.2e-3
    matrix_rate: float = 4e-3
    warmup_steps: int = 250
    weight_decay: float = 0.05
    average_decay: float = 0.998
    checkpoint_minutes: float = 5.0
    log_steps: int = 50
    threads: int | None = None


class TrainingRun:
    """Steps a model through its time budget.

    Use: ``for step in run.steps(): run.update(loss_of(step))``.

    Args:
        matrices: names of the hidden matrices and convolutions to step with Muon (orthogonalised
            momentum) instead of AdamW; for models that start from nothing.
    """

    def __init__(
        self, model: nn.Module, config: RunConfig, *, matrices: Collection[str] = ()
    ) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        on_cpu = config.device == "cpu" or not torch.cuda.is_available()
        self.config = config
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision="bf16")
        self.device = self.accelerator.device
        self.optimizers = _make_optimizers(model, config, matrices)
        self.model, *self.optimizers = self.accelerator.prepare(model, *self.optimizers)
        average = get_ema_multi_avg_fn(config.average_decay)
        self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.step = 0
        self.seconds = 0.0
        self.figures: dict[str, float] = {}
        config.out.mkdir(parents=True, exist_ok=True)
        if config.resume:
            self._restore()

    @property
    def progress(self) -> float:
        """Share of the time budget that has passed, 0 to 1."""
        return min(1.0, self.seconds / (60 * self.config.minutes))

    def steps(self) -> Iterator[int]:
        """Yield step numbers until the time is over; keep checkpoints and the curve."""
        last = saved = time.monotonic()
        while self.progress < 1:
            for group in (group for one in self.optimizers for group in one.param_groups):
                group["lr"] = group["highest_rate"] * self._rate_share()
            yield self.step
            self.step += 1
            now = time.monotonic()
            self.seconds += min(now - last, LONGEST_STEP)
            last = now
            if self.step % self.config.log_steps == 0:
                self._log()
            if now - saved > 60 * self.config.checkpoint_minutes:
                self._checkpoint()
                saved = now
        self._checkpoint()

    def update(self, loss: Tensor, **figures: Tensor) -> None:
        """Take one optimiser step, and smooth ``figures`` for the curve."""
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update_parameters(self.model)
        for name, value in {"loss": loss, **figures}.items():
            number = float(value.detach())
            if math.isfinite(number):
                self.figures[name] = 0.98 * self.figures.get(name, number) + 0.02 * number

    def export(
        self,
        name: str,
        card: dict[str, Any],
        *,
        prefix: str = "",
        names: Collection[str] | None = None,
        half: bool = False,
    ) -> Path:
        """Write the averaged weights and their JSON card; return their path.

        Args:
            prefix: of the names to write, and taken off them.
            names: write these only.
            half: in float16, for weights that stand it.
        """
        path = self.config.out / f"{name}.safetensors"
        state = {
            key.removeprefix(prefix): value.detach().cpu().contiguous()
            for key, value in self.average.module.state_dict().items()
            if key.startswith(prefix)
        }
        state = {k: v for k, v in state.items() if names is None or k in names}
        if half:
            state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(state, path)
        data = path.read_bytes()
        training = {"steps": self.step, "minutes": round(self.seconds / 60, 1)}
        card = {
            **card,
            "parameters": sum(v.numel() for v in state.values()),
            "bytes": len(data),
            "sha256": sha256(data).hexdigest(),
            "training": {**card.get("training", {}), **training, "device": str(self.device)},
        }
        path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
        return path

    def _rate_share(self) -> float:
        warmup = min(1.0, (self.step + 1) / self.config.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress))
        return warmup * max(cosine, 0.005)

    def _log(self) -> None:
        path = self.config.out / "curve.csv"
        row = {"step": self.step, "minutes": round(self.seconds / 60, 2)}
        row |= {k: round(v, 4) for k, v in self.figures.items()}
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        rows.append(row)
        columns = dict.fromkeys(name for one in rows for name in one)  # some figures start later
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(rows)
        print(" ".join(f"{k} {v}" for k, v in row.items()), flush=True)

    @property
    def _checkpoint_path(self) -> Path:
        return self.config.out / "checkpoint.pt"

    def _checkpoint(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [one.state_dict() for one in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self._checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint_path)

    def _restore(self) -> None:
        state = torch.load(self._checkpoint_path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def _make_optimizers(
    model: nn.Module, config: RunConfig, matrices: Collection[str]
) -> list[torch.optim.Optimizer]:
    """AdamW without weight decay on biases, norms and embeddings; Muon for ``matrices``.

    Muon's updates are scaled to AdamW's, so that decay and rates keep their usual sizes.
    """
    named = {k: p for k, p in model.named_parameters() if p.requires_grad}
    others = [p for k, p in named.items() if k not in matrices]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = config.learning_rate
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
    ]
    if matrices:
        optimizers.append(
            ConvolutionMuon(
                [named[name] for name in matrices],
                lr=config.matrix_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    for group in (group for one in optimizers for group in one.param_groups):
        group["highest_rate"] = group["lr"]
    return optimizers
