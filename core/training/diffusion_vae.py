"""The embedded diffusion model's first part: a VAE that makes 64 px pictures small, and back.

It is taught on the model's own world and on all other training sprites in all hues, so that
pictures of objects that the model never heard of survive as well. Early it sees corners of the
pictures: they show all there is to know of 8 px cells, and cost a fourth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.clip.build import build_clip
from core.models.loading import load_weights, read_state_dict
from core.stickers.atlas import Atlas
from core.training.clip import encode_pictures
from core.training.diffusion_pictures import SIZE, WorldGenerator, sprites_of, world_objects
from core.training.muon import hidden_matrices
from core.training.run import RunConfig, TrainingRun

CORNERS_END = 0.45  # share of the time in which it sees corners
CORNER, CORNER_BATCH, BATCH = 32, 8, 6
TURNED_SHARE = 0.3
KL_WEIGHT = 1e-4  # tiny: latents have to be smooth, not to be noise
START_LOG_VARIANCE = -5.0  # latents as noisy as the prior would hide what there is to learn
EDGE_WEIGHT = 0.25
FEATURE_WEIGHT = 0.1
FEATURE_PICTURES = 2  # of a batch that CLIP looks at; it costs half of what the VAE does


def start_as_average(vae: Any) -> None:
    """Let a fresh AutoencoderKL begin as an average over its cells, with some chance in it.

    Every convolution passes on its first channels, and the second one of each residual block is
    silent: in half a minute this gets as far as the usual start does in ten.
    """
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if not isinstance(layer, nn.Conv2d) or name.endswith("conv1"):
                continue
            if name.endswith("conv2"):
                layer.weight.zero_()
                continue
            straight = torch.zeros_like(layer.weight)
            nn.init.dirac_(straight)
            layer.weight.mul_(0.5).add_(straight)
        channels = vae.config.latent_channels
        vae.quant_conv.weight[channels:].mul_(0.1)
        vae.quant_conv.bias[channels:].fill_(START_LOG_VARIANCE)


class VaePictures:
    """Batches for the VAE: half of the world, half of any training sprite."""

    def __init__(self, atlas: Atlas, seed: int) -> None:
        self.world = WorldGenerator(atlas, seed=seed, turned_share=TURNED_SHARE)
        self.known, self.all = sprites_of(atlas, world_objects()), atlas.training_sprites()

    def batch(self, count: int = BATCH, side: int = SIZE) -> Tensor:
        """Draw pictures or corners of pictures, float (count, 3, side, side) in [-1, 1]."""
        half, world = count // 2, self.world
        sprites = [world.choose(self.known, half), world.choose(self.all, count - half)]
        images = world.batch(torch.cat(sprites), world.choose_backdrops(count)).images
        top, left = torch.randint(SIZE - side + 1, (2,), generator=world.random).tolist()
        return to_pixels(images[:, :, top : top + side, left : left + side])


class VaeObjective:
    """What the VAE is taught by: pixels, edges, what CLIP sees in them, and a little KL.

    Args:
        clip: weights of the embedded CLIP, to whose patches they have to look alike.
    """

    def __init__(self, vae: Any, clip: Path, device: torch.device) -> None:
        self.vae = vae
        model = build_clip()
        load_weights(model, read_state_dict(clip), name=clip.name)
        self.visual: Any = model.visual.to(device).eval().requires_grad_(False)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and figures of a batch (B, 3, S, S) in [-1, 1]; CLIP looks at whole pictures."""
        posterior = self.vae.encode(pixels).latent_dist
        again = self.vae.decode(posterior.sample()).sample.float()
        square = (again - pixels).square().mean()
        error = (again - pixels).abs().mean() + square
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = error + EDGE_WEIGHT * edge_distance(again, pixels) + KL_WEIGHT * divergence
        figures = {"psnr": psnr(square), "kl": divergence}
        if pixels.shape[-1] == SIZE:
            features = self._feature_distance(again[:FEATURE_PICTURES], pixels[:FEATURE_PICTURES])
            loss, figures["features"] = loss + FEATURE_WEIGHT * features, features
        return loss, figures

    def _feature_distance(self, first: Tensor, second: Tensor) -> Tensor:
        """1 - cosine of CLIP's patches of two batches in [-1, 1]."""
        one = encode_pictures(self.visual, (first + 1) * 127.5).patches
        with torch.no_grad():
            other = encode_pictures(self.visual, (second + 1) * 127.5).patches
        return 1 - F.cosine_similarity(one, other, dim=-1).mean()


def train_vae(vae: Any, config: RunConfig, atlas: Atlas, clip: Path) -> nn.Module:
    """Train a fresh AutoencoderKL, or go on with it; return its averaged copy in eval mode."""
    start_as_average(vae)
    matrices = hidden_matrices(vae, others=("conv_in", "conv_out", "quant_conv"))
    run = TrainingRun(vae, config, matrices=matrices)
    pictures = VaePictures(atlas.to(run.device), config.seed + run.step)
    objective = VaeObjective(run.model, clip, run.device)
    for _ in run.steps():
        early = run.progress < CORNERS_END
        pixels = pictures.batch(CORNER_BATCH, CORNER) if early else pictures.batch()
        with run.accelerator.autocast():
            loss, figures = objective(pixels.to(run.device))
        run.update(loss, **figures)
    average: nn.Module = run.average.module.eval().requires_grad_(False)
    return average


def edge_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of the steps between neighbouring pixels."""
    off = first - second
    return off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()


def psnr(squared_error: Tensor) -> Tensor:
    """Peak signal to noise ratio in dB of pixels in [-1, 1] with this mean squared error."""
    return -10 * (squared_error / 4).log10()


def to_pixels(images: Tensor) -> Tensor:
    """uint8 to float in [-1, 1]."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def encode(vae: Any, images: Tensor, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and deviation (N, C, h, w), float16 on the CPU, of the latents of uint8 (N, 3, S, S).

    They are not scaled.
    """
    device = next(vae.parameters()).device
    means, deviations = [], []
    for some in images.split(batch):
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(to_pixels(some.to(device))).latent_dist
        means.append(posterior.mean.half().cpu())
        deviations.append(posterior.std.half().cpu())
    return torch.cat(means), torch.cat(deviations)
