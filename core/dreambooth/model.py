"""A Stable Diffusion as one module that an engine can hold, and private copies of its parts.

Sizes come from the parts' own configurations: the side of a latent cell, the latents' scale, the
kind of prediction and the length of a prompt are nowhere written down.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import PromptError


class DiffusionModel(nn.Module):
    """VAE, text encoder and U-Net, with the tokenizer and the noise schedule.

    Args:
        scheduler: of training (DDPM); samplers are made of its configuration.
        id: of the catalogue.
        sha256: of the U-Net's file; "" if unknown. Fine-tuned weights belong to it.
        model_set: "embedded" or "full".
    """

    def __init__(
        self,
        *,
        vae: Any,
        text_encoder: Any,
        unet: Any,
        tokenizer: Any,
        scheduler: Any,
        id: str = "",
        sha256: str = "",
        model_set: str = "embedded",
    ) -> None:
        super().__init__()
        self.vae = vae
        self.text_encoder = text_encoder
        self.unet = unet
        self.tokenizer = tokenizer
        self.scheduler = scheduler
        self.id = id
        self.sha256 = sha256
        self.model_set = model_set

    @property
    def factor(self) -> int:
        """Pixels of a latent cell's side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.vae.config.latent_channels

    @property
    def resolution(self) -> int:
        """Side that the model was made for, px."""
        return self.unet.config.sample_size * self.factor

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.unet.parameters()).device

    @property
    def side_multiple(self) -> int:
        """What the side of a picture has to be a multiple of, px; 8 is the pipeline's own rule."""
        levels = 2 ** (len(self.unet.config.block_out_channels) - 1)
        return max(8, self.factor * levels)

    def check_side(self, side: int) -> int:
        """Return a side that the model can work at. Raises PromptError if it is not one."""
        if side % self.side_multiple:
            raise PromptError(
                f"The resolution is {side} px: this model needs a multiple of "
                f"{self.side_multiple}, such as {self.resolution}."
            )
        return side

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, 3, S, S) in [-1, 1] to mean and deviation (B, C, h, w) of scaled latents."""
        parameter = next(self.vae.parameters())
        latents = self.vae.encode(pixels.to(parameter.device, parameter.dtype)).latent_dist
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        scale = self.vae.config.scaling_factor
        return (latents.mean.float() - shift) * scale, latents.std.float() * scale

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Tokens (N, T) of prompts, padded; what is too long is cut off."""
        return self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids

    def fits(self, prompt: str) -> bool:
        """Whether the text encoder reads all of a prompt."""
        return (
            len(self.tokenizer(prompt, verbose=False).input_ids) <= self.tokenizer.model_max_length
        )

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Hidden states (N, T, D) that the U-Net attends to."""
        tokens = self.tokenize(prompts).to(next(self.text_encoder.parameters()).device)
        return self.text_encoder(tokens)[0].float()

    def pipeline(self, *, unet: Any = None, text_encoder: Any = None) -> Any:
        """A StableDiffusionPipeline of these parts, or of others in their place.

        It draws with DPM-Solver++ and has no safety checker: see ``build_from_entry``.
        """
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

        pipeline: Any = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=text_encoder or self.text_encoder,
            tokenizer=self.tokenizer,
            unet=unet or self.unet,
            scheduler=DPMSolverMultistepScheduler.from_config(
                self.scheduler.config, variance_type=None
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def private_copy(
    module: nn.Module, *, dtype: torch.dtype = torch.float32, share: bool = True
) -> Any:
    """Copy a module whose layers can then be changed without the original noticing.

    Args:
        dtype: of the copy's weights.
        share: weights that have that type already are not copied but used by both; they must
            then stay frozen.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        data = parameter.detach().to(dtype)
        if not share:
            data = data.clone()
        memo[id(parameter)] = nn.Parameter(data, requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to(dtype) if buffer.is_floating_point() else buffer
    return copy.deepcopy(module, memo)
