"""GradCAM of all words from one forward pass (CLIP-ES, as CaR's mask proposal generator uses it).

A map of a word is the activation after the last block's first norm, weighted by the mean gradient
of the word's probability with respect to it. Letters: N words, K of them at once, n = h·w patches,
D width, E embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.car.refinement import make_affinity
from core.clip.model import ClipModel
from core.clip.towers import LastBlock, run_last_block, run_trunk

EPSILON = 1e-15  # of the published normalisation; it flattens the maps of hopeless words
# For what one batched backward pass holds besides the graph; on a CPU a larger batch is no faster.
GRADIENT_BYTES, GRADIENT_BYTES_GPU = 256 * 2**20, 2**31


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture as the proposal generator sees it, made once for all words and steps.

    Args:
        last: the last block, with the graph to its feature.
        affinity: (n, n), see ``make_affinity``.
        grid: (h, w) in patches.
        scale: factor of the cosines.
    """

    last: LastBlock
    affinity: Tensor
    grid: tuple[int, int]
    scale: float


def encode_image(
    generator: ClipModel,
    image: NDArray[np.uint8],
    *,
    max_tokens: int | None = None,
    half_positions: bool = False,
) -> EncodedImage:
    """Encode a picture at its own size, each side rounded up to whole patches.

    Args:
        image: RGB uint8 (H, W, 3).
        max_tokens, half_positions: as in ``CarConfig``.
    """
    grid = grid_of(image.shape[:2], generator.patch_size, max_tokens)
    pixels = preprocess(generator, image, grid)
    trunk = run_trunk(generator, pixels, half_positions=half_positions)
    last = run_last_block(generator.visual, trunk.tokens)
    attention = (trunk.attention + last.attention) / (trunk.attention_blocks + 1)
    return EncodedImage(
        last=last,
        affinity=make_affinity(attention[1:, 1:]),
        grid=trunk.grid,
        scale=generator.scale,
    )


def grid_of(size: tuple[int, ...], patch: int, max_tokens: int | None) -> tuple[int, int]:
    """Patches (h, w) that cover a picture of (H, W) px, at most ``max_tokens`` - 1 of them."""
    height, width = (math.ceil(side / patch) for side in size[:2])
    if max_tokens is None or height * width < max_tokens:
        return height, width
    scale = math.sqrt((max_tokens - 1) / (height * width))
    short = max(1, math.floor(min(height, width) * scale))
    long = min((max_tokens - 1) // short, math.ceil(max(height, width) * scale))
    return (short, long) if height < width else (long, short)


def preprocess(generator: ClipModel, image: NDArray[np.uint8], grid: tuple[int, int]) -> Tensor:
    """Resize (bicubic, antialiased) to whole patches and normalise: (1, 3, h·patch, w·patch)."""
    height, width = (side * generator.patch_size for side in grid)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return normalise_pixels(generator, np.asarray(resized)[None])


def normalise_pixels(model: ClipModel, images: NDArray[np.uint8]) -> Tensor:
    """Bring pictures (B, H, W, 3) to (B, 3, H, W) as the image tower takes them."""
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(model.device)
    mean, std = (
        torch.tensor(values, device=model.device).view(1, 3, 1, 1)
        for values in (model.mean, model.std)
    )
    return (pixels.float() / 255 - mean) / std


def gradcam(
    encoded: EncodedImage,
    text: Tensor,
    background: Tensor,
    *,
    alone: bool = False,
    query_batch: int = 16,
) -> Tensor:
    """Make the maps of all words.

    A map without any positive value is made once more without the background words.

    Args:
        text: (N, E) and ``background`` (B, E), unit length, N at least 1.
        alone: each word competes with the background only, not with the other words (referring
            mode).
        query_batch: words per backward pass; fewer where a picture has very many tokens.

    Returns:
        float32 (N, h, w) in [0, 1], without gradient.
    """
    last = encoded.last
    batch = min(query_batch, affordable_batch(last.target))
    probabilities = word_probabilities(encoded, text, background, alone=alone)
    maps = _weighted_maps(encoded, channel_weights(probabilities, last, batch))
    dark = (maps == 0).all(dim=1)
    if dark.any() and len(background):
        probabilities = word_probabilities(encoded, text, background[:0], alone=alone)
        weights = channel_weights(probabilities[dark], last, batch)
        maps[dark] = _weighted_maps(encoded, weights)
    return maps.unflatten(1, encoded.grid)


def word_probabilities(
    encoded: EncodedImage, text: Tensor, background: Tensor, *, alone: bool = False
) -> Tensor:
    """Probability of each word, (N,), by a softmax over words and background, or over one word
    and the background."""
    with torch.enable_grad():
        logits = encoded.scale * (torch.cat([text, background]) @ encoded.last.feature)  # (N + B,)
        own, other = logits[: len(text)], logits[len(text) :]
        if alone:
            rows = torch.cat([own[:, None], other.expand(len(text), -1)], dim=1)  # (N, 1 + B)
            return torch.softmax(rows, dim=1)[:, 0]
        return torch.softmax(logits, dim=0)[: len(text)]


def channel_weights(probabilities: Tensor, last: LastBlock, batch: int) -> Tensor:
    """Mean over the patches of d p / d target, for each p of (N,): (N, D).

    One backward pass with a batch of one-hot rows as far as the heads, whose gradient is summed
    in closed form; the graph stays for the next call.
    """
    weights = []
    rows = torch.eye(len(probabilities), device=probabilities.device)
    for chunk in rows.split(batch):
        (gradient,) = torch.autograd.grad(
            probabilities, last.mixed, chunk, retain_graph=True, is_grads_batched=True
        )  # (K, L, D)
        weights.append(last.heads.patch_gradient(gradient))
    return torch.cat(weights) / (len(last.mixed) - 1)


def min_max(maps: Tensor) -> Tensor:
    """Stretch each map of (N, n) to [0, 1]; a constant one becomes 0."""
    maps = maps - maps.amin(dim=1, keepdim=True)
    return maps / (EPSILON + maps.amax(dim=1, keepdim=True))


def _weighted_maps(encoded: EncodedImage, weights: Tensor) -> Tensor:
    patches = encoded.last.target[0, 1:]  # (n, D)
    return min_max((weights @ patches.T).relu())


def affordable_batch(target: Tensor) -> int:
    """How many words' gradients fit into the memory meant for them; at least 1."""
    _, tokens, width = target.shape
    budget = GRADIENT_BYTES if target.device.type == "cpu" else GRADIENT_BYTES_GPU
    # The MLP's hidden layer, four times as wide, four times; the heads' gradient three times.
    return max(1, budget // (4 * (4 * 4 + 3) * width * tokens))
