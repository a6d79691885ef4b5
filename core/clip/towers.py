"""Walks through open_clip's vision transformer: what its own forward pass does not give.

Other picture sizes than the trained one, the attention weights of each block, and the last block
by itself in float32 with a gradient. The parts are called one by one; nothing is patched.
Letters: B pictures, h×w patches, L = 1 + h·w tokens, D width, E embedding.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from core.clip.attention import Heads, attend, run_heads
from core.clip.model import ClipModel

_Module = TypeVar("_Module", bound=nn.Module)

AVERAGED_BLOCKS = 8  # last ones, whose attention CLIP-ES averages


@dataclass(frozen=True, eq=False)
class Trunk:
    """One picture after all blocks but the last.

    Args:
        tokens: float32 (1, L, D), the class token first.
        attention: float32 (L, L), head means summed over ``attention_blocks`` blocks.
        grid: (h, w) in patches.
    """

    tokens: Tensor
    attention: Tensor
    attention_blocks: int
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LastBlock:
    """The last block of one picture, float32, with the graph from ``mixed`` to ``feature``.

    Args:
        target: (1, L, D), output of the block's first norm.
        heads: what the attention made of it.
        mixed: (L, D), the heads' values side by side; the graph's only leaf.
        feature: (E,), unit length, from the mean of the patch tokens (not the class token).
        attention: (L, L), mean over the heads.
    """

    target: Tensor
    heads: Heads
    mixed: Tensor
    feature: Tensor
    attention: Tensor


def resize_positions(
    visual: VisionTransformer, grid: tuple[int, int], *, half_positions: bool = False
) -> Tensor:
    """Resize the position table to a grid (h, w), square or not.

    Bilinear without antialiasing, as CaR's code does it; open_clip's own loader is bicubic with it.

    Args:
        half_positions: round the table to float16 and back, as CaR's code does on any device.

    Returns:
        float32 (1 + h·w, D).
    """
    table = visual.positional_embedding.float()
    if tuple(grid) != tuple(visual.grid_size):
        trained = table[1:].reshape(1, *visual.grid_size, -1).permute(0, 3, 1, 2)  # (1, D, H, W)
        resized = F.interpolate(trained, size=grid, mode="bilinear", align_corners=False)
        table = torch.cat([table[:1], resized.flatten(2)[0].T])
    return table.half().float() if half_positions else table


def embed_patches(
    visual: VisionTransformer, pixels: Tensor, *, half_positions: bool = False
) -> tuple[Tensor, tuple[int, int]]:
    """Make tokens of normalised pixels (B, 3, h·patch, w·patch).

    Returns:
        float32 (B, L, D), and the grid (h, w).
    """
    x = visual.conv1(pixels).float()  # (B, D, h, w)
    grid = (x.shape[2], x.shape[3])
    class_token = visual.class_embedding.float().expand(len(x), 1, -1)
    x = torch.cat([class_token, x.flatten(2).transpose(1, 2)], dim=1)  # (B, L, D)
    return visual.ln_pre(x + resize_positions(visual, grid, half_positions=half_positions)), grid


@torch.no_grad()
def run_trunk(model: ClipModel, pixels: Tensor, *, half_positions: bool = False) -> Trunk:
    """Run all blocks but the last on one picture, in the precision of the weights.

    Args:
        pixels: normalised (1, 3, h·patch, w·patch).
    """
    blocks = blocks_of(model.visual)
    first_averaged = max(len(blocks) - AVERAGED_BLOCKS, 0)
    with model.image_precision():
        x, grid = embed_patches(model.visual, pixels, half_positions=half_positions)
        attention = x.new_zeros(x.shape[1], x.shape[1])
        for index, block in enumerate(blocks[:-1]):
            if index < first_averaged:
                x = block(x)
                continue
            attended, weights = attend(block.attn, block.ln_1(x))
            attention += weights
            x = x + block.ls_1(attended)
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return Trunk(x.float(), attention, len(blocks) - 1 - first_averaged, grid)


def run_last_block(visual: VisionTransformer, tokens: Tensor) -> LastBlock:
    """Run the last block and pool the patch tokens, in float32 whatever the weights are.

    In half precision the gradient of unlikely texts would be lost among subnormal numbers.

    Args:
        tokens: float32 (1, L, D), output of the block before.
    """
    block = in_float32(blocks_of(visual)[-1])
    ln_post = in_float32(visual.ln_post)
    with torch.no_grad():
        target = block.ln_1(tokens)
        heads = run_heads(block.attn, target)
    with torch.enable_grad():
        mixed = heads.mixed.transpose(0, 1).flatten(1).requires_grad_()  # (L, D)
        x = tokens + block.ls_1(block.attn.out_proj(mixed))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
        pooled = ln_post(x)[0, 1:].mean(dim=0) @ visual.proj.detach().float()  # (E,)
        feature = F.normalize(pooled, dim=0)
    return LastBlock(target, heads, mixed, feature, heads.weights.mean(dim=0))


@torch.no_grad()
def encode_images(
    model: ClipModel, pixels: Tensor, *, skip_last_block: bool = False, half_positions: bool = False
) -> Tensor:
    """Encode square pictures, of the trained size or of any other in whole patches.

    Args:
        pixels: normalised (B, 3, S, S).
        skip_last_block: take the class token one block early, as CaR's published code does.

    Returns:
        float32 (B, E), unit length.
    """
    visual = model.visual
    with model.image_precision():
        resized = pixels.shape[-1] != model.image_size
        if skip_last_block or half_positions or resized:
            x, _ = embed_patches(visual, pixels, half_positions=half_positions)
            blocks = blocks_of(visual)
            for block in blocks[:-1] if skip_last_block else blocks:
                x = block(x)
            features = visual.ln_post(x[:, 0]) @ visual.proj
        else:
            features = visual(pixels)
    return F.normalize(features.float(), dim=-1)


def blocks_of(visual: VisionTransformer) -> list[ResidualAttentionBlock]:
    """The transformer's blocks, as a ClipModel has checked them to be."""
    return [cast(ResidualAttentionBlock, block) for block in visual.transformer.resblocks]


def in_float32(module: _Module) -> _Module:
    """The module itself if all of it is float32, else a copy that is."""
    if all(parameter.dtype == torch.float32 for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).float()
