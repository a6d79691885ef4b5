"""Train the embedded diffusion model: ``python -m core.training diffusion``.

First the VAE, then the U-Net with the text encoder, which begins with the embedded CLIP's text
tower. The U-Net learns velocities of cached latents by the plain squared error, a batch of some
prompts with a few pictures each. Either part goes on after an interruption.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.clip.build import MERGES
from core.dreambooth.build import (
    UNET_FILE,
    build_pipeline,
    byte_pair_tokenizer,
    embedded_pipeline_config,
    save_model,
    text_weights_of_clip,
)
from core.dreambooth.loss import target_of
from core.dreambooth.model import DiffusionModel
from core.models.catalogue import catalogue
from core.models.loading import find_local, load_weights, read_state_dict
from core.stickers.atlas import load_atlas
from core.stickers.sources import CREDITS
from core.training.diffusion_backdrops import BACKDROPS
from core.training.diffusion_pictures import STYLE, world_objects
from core.training.diffusion_pool import POOL_FILE, PoolBatches, kept_pool
from core.training.diffusion_vae import train_vae
from core.training.muon import hidden_matrices
from core.training.run import RunConfig, TrainingRun

VAE_SHARE = 0.2  # of the time
VAE_RATES = (8e-4, 3e-3)  # of AdamW and Muon; faster ones forget the colours for minutes
PROMPTS, EACH = 16, 4  # of a batch: prompts, and pictures of each
NAME = "diffusion_embedded"


class Denoiser(nn.Module):
    """The two parts that are trained together."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder


class DenoiserObjective:
    """Squared error of the U-Net's prediction, for noisy latents and their prompts."""

    def __init__(self, parts: Any, model: DiffusionModel, seed: int) -> None:
        self.parts, self.model = parts, model
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, latents: Tensor, texts: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures.

        Args:
            latents: scaled (N · M, C, h, w), M of each text.
            texts: N prompts.
        """
        scheduler, device = self.model.scheduler, latents.device
        each = len(latents) // len(texts)
        words = self.parts.text_encoder(self.model.tokenize(texts).to(device))[0]
        noise = torch.randn(latents.shape, generator=self.random).to(device)
        steps = self._timesteps(len(latents)).to(device)
        noisy = scheduler.add_noise(latents, noise, steps)
        predicted = self.parts.unet(noisy, steps, words.repeat_interleave(each, 0)).sample.float()
        target = target_of(scheduler, latents, noise, steps)
        errors = (predicted - target).square().mean(dim=(1, 2, 3))
        third = scheduler.config.num_train_timesteps // 3
        figures = {"early": errors[steps >= 2 * third].mean(), "late": errors[steps < third].mean()}
        return errors.mean(), figures

    def _timesteps(self, count: int) -> Tensor:
        """One from each of ``count`` equal parts of the schedule, shuffled: steps vary less."""
        every = self.model.scheduler.config.num_train_timesteps
        spread = (torch.arange(count) + torch.rand(count, generator=self.random)) / count
        steps = (spread * every).long().clamp(max=every - 1)
        return steps[torch.randperm(count, generator=self.random)]


def train(config: RunConfig, data: Path) -> Path:
    """Train until the time is over; return the folder of the exported model."""
    torch.manual_seed(config.seed)
    model, clip = start_model(), clip_weights()
    atlas = load_atlas(data)
    vae_config, unet_config = part_configs(config)
    vae = train_vae(model.vae, vae_config, atlas, clip)
    pool = kept_pool(config.out / POOL_FILE, vae, atlas, config.seed)
    model.vae = vae
    model.vae.register_to_config(scaling_factor=pool.scale)
    run = train_denoiser(model, unet_config, PoolBatches(pool, config.seed))
    return export(model, run, config)


def part_configs(config: RunConfig) -> tuple[RunConfig, RunConfig]:
    """The time, folder and rates of the VAE and of the U-Net.

    A part without a checkpoint begins, also where the run as a whole goes on.
    """

    def part(name: str, share: float) -> RunConfig:
        folder = config.out / name
        return replace(
            config,
            out=folder,
            minutes=config.minutes * share,
            resume=config.resume and (folder / "checkpoint.pt").exists(),
        )

    adam, muon = VAE_RATES
    vae = replace(part("vae", VAE_SHARE), learning_rate=adam, matrix_rate=muon, warmup_steps=50)
    return vae, part("unet", 1 - VAE_SHARE)


def start_model() -> DiffusionModel:
    """A fresh model whose text encoder is the embedded CLIP's text tower."""
    tokenizer = byte_pair_tokenizer(MERGES)
    model = build_pipeline(embedded_pipeline_config(), tokenizer, id=NAME)
    words = text_weights_of_clip(read_state_dict(clip_weights()))
    load_weights(model.text_encoder, words, name="the embedded CLIP's text tower")
    return model


def clip_weights() -> Path:
    """The embedded CLIP's file. Raises ModelUnavailable if it is not there."""
    path = find_local(catalogue()["clip_embedded"])
    if path is None:
        raise FileNotFoundError("The weights of the embedded CLIP are missing: train it first.")
    return path


def train_denoiser(model: DiffusionModel, config: RunConfig, batches: PoolBatches) -> TrainingRun:
    """Train U-Net and text encoder; the averaged copies replace the model's own."""
    parts = Denoiser(model.unet, model.text_encoder)
    matrices = hidden_matrices(parts, others=("conv_in", "conv_out", "time_emb", "text_encoder"))
    run = TrainingRun(parts, config, matrices=matrices)
    objective = DenoiserObjective(run.model, model, config.seed + run.step)
    for _ in run.steps():
        latents, texts = batches.batch(PROMPTS, EACH)
        with run.accelerator.autocast():
            loss, figures = objective(latents.to(run.device), texts)
        run.update(loss, **figures)
    average: Any = run.average.module.eval().requires_grad_(False)
    model.unet, model.text_encoder = average.unet, average.text_encoder
    return run


def export(model: DiffusionModel, run: TrainingRun, config: RunConfig) -> Path:
    """Write the model as a folder that plain diffusers reads too, and its card."""
    folder = config.out / NAME
    files = save_model(model, folder)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(model)}
    card = {
        "id": NAME,
        "license": "Apache-2.0",
        "credits": CREDITS,
        "knows": [item.name for item in world_objects()],
        "backdrops": [backdrop.words for backdrop in BACKDROPS],
        "parameters": sizes,
        "bytes": sum((folder / name).stat().st_size for name in files),
        "sha256": files[UNET_FILE],
        "files": files,
        "training": {
            "command": f"python -m core.training diffusion --minutes {config.minutes:g}",
            "data": f"sticker world: one object of {len(world_objects())} in the style {STYLE} on "
            f"one of {len(BACKDROPS)} backdrops; the VAE saw all training objects; no test "
            "objects",
            "minutes": config.minutes,
            "unet_steps": run.step,
            "batch": PROMPTS * EACH,
            "device": str(run.device),
            "rates": {"vae": VAE_RATES, "unet": (config.learning_rate, config.matrix_rate)},
            "settings": {k: str(v) for k, v in asdict(config).items() if k in ("seed", "threads")},
        },
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    return folder


def _parts(model: DiffusionModel) -> list[tuple[str, nn.Module]]:
    return [("vae", model.vae), ("unet", model.unet), ("text_encoder", model.text_encoder)]
