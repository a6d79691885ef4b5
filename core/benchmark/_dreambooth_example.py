"""A step of DreamBooth as diffusers' own LoRA example takes it by default.

Each step loads and cuts its pictures, encodes them by the VAE, reads its prompts by the text
encoder and only then comes to the U-Net; nothing is kept from one step to the next. Written anew
from the order of its steps, on the same network, optimiser and loss, so that equal losses mean
something.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.lora import build_denoiser
from core.dreambooth.model import DiffusionModel
from core.dreambooth.randomness import generator_at, position, random_below


class ExampleTraining:
    """Plain DreamBooth with prior preservation, in float32, on square pictures.

    Args:
        own, other: RGB uint8 (S, S, 3), of the subject and of its class.
        config: a LoRA's; its random numbers are drawn in the order of our own trainer.
    """

    def __init__(
        self,
        model: DiffusionModel,
        subject: Subject,
        own: Sequence[NDArray[np.uint8]],
        other: Sequence[NDArray[np.uint8]],
        config: DreamBoothConfig,
    ) -> None:
        self.model, self.subject, self.config = model, subject, config
        self.pictures = {"own": own, "class": other}
        self.denoiser = build_denoiser(model, config, torch.float32)
        self.weights = [weight for _, weight in self.denoiser.trained()]
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.number = 0

    def step(self) -> float:
        """Take one step; return its loss."""
        model, scheduler = self.model, self.model.scheduler
        draw = generator_at(self.config.seed, "batch", self.number, 0)
        pixels, prompts = self._load(draw)
        latents = self._encode(pixels, draw)
        noise = torch.randn(latents.shape, generator=draw).to(model.device)
        steps = torch.randint(
            scheduler.config.num_train_timesteps, (len(latents),), generator=draw
        ).to(model.device)
        noisy = scheduler.add_noise(latents, noise, steps)
        words = model.encode_prompts(prompts)
        self.denoiser.train()
        predicted = self.denoiser(noisy, steps, words)
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, steps)
        else:
            target = noise
        instance, prior = (
            F.mse_loss(one, other)
            for one, other in zip(predicted.chunk(2), target.chunk(2), strict=True)
        )
        loss = instance + self.config.prior_weight * prior
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.config.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.number += 1
        return float(loss.detach())

    def _load(self, draw: torch.Generator) -> tuple[Tensor, list[str]]:
        """Load, resize and cut the step's pictures: (2B, 3, S, S) in [-1, 1], and their prompts."""
        size, seed = self.config.batch_size, self.config.seed
        prompts = {"own": self.subject.instance_prompt, "class": self.subject.class_prompt}
        pixels, texts = [], []
        for name, pictures in self.pictures.items():
            for k in range(size):
                index = position(self.number * size + k, len(pictures), seed, name)
                random_below(1, draw)  # the crop: of a square picture there is one
                pixels.append(self._cut(pictures[index]))
                texts.append(prompts[name])
        return torch.stack(pixels), texts

    def _cut(self, picture: NDArray[np.uint8]) -> Tensor:
        side = self.config.resolution or self.model.resolution
        resized = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(resized, np.float32)).permute(2, 0, 1) / 127.5 - 1

    def _encode(self, pixels: Tensor, draw: torch.Generator) -> Tensor:
        """Draw latents (2B, C, h, w) of pixels (2B, 3, S, S)."""
        mean, deviation = self.model.encode_pixels(pixels)
        noise = torch.stack([torch.randn(one.shape, generator=draw) for one in mean])
        return mean + deviation * noise.to(mean.device)
