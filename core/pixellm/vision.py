"""The image tower, its features at several depths, and the projectors (paper, section 3).

The tower is transformers' CLIPVisionModel at a larger input than it was trained on, with padded
patches masked. Two blocks' outputs serve as scales: the deep one for words and masks, the shallow
one for masks only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.pixellm.config import PositionTable, VisionConfig


class VisionTower(nn.Module):
    """CLIP's image tower up to the last block that is read.

    ``clip`` is the whole CLIPVisionModel, so that its published weights load by their names.
    """

    def __init__(self, config: VisionConfig) -> None:
        # Here: transformers takes seconds to import, and the page starts without it.
        from transformers import CLIPVisionConfig, CLIPVisionModel

        super().__init__()
        self.config = config
        self.clip = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                image_size=config.image_size,
                patch_size=config.patch_size,
                hidden_act=config.activation,
            )
        )

    def forward(self, pixels: Tensor, patch_mask: Tensor) -> list[Tensor]:
        """Encode pictures.

        Args:
            pixels: (B, 3, S, S).
            patch_mask: bool (B, g, g), False on padding.

        Returns:
            A tensor (B, g·g, width) for each feature layer, without the class token and without
            the final norm.
        """
        hidden = self.clip.pre_layrnorm(self.clip.embeddings(pixels))  # (B, 1 + g·g, width)
        attention_mask = patch_attention_mask(patch_mask, hidden.dtype)
        wanted: dict[int, Tensor] = {}
        for number, block in enumerate(self.clip.encoder.layers[: max(self.config.blocks)], 1):
            hidden = block(hidden, attention_mask)
            if number in self.config.blocks:
                wanted[number] = hidden[:, 1:]
        return [wanted[number] for number in self.config.blocks]


def patch_attention_mask(patch_mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Write a mask of patches (B, g, g) as what is added to attention logits.

    Returns:
        (B, 1, 1 + g·g, 1 + g·g): 0 for keys on the picture and the class token, the lowest number
        of ``dtype`` on padding; None where nothing is padded.
    """
    if bool(patch_mask.all()):
        return None
    keys = F.pad(patch_mask.flatten(1), (1, 0), value=True)  # (B, 1 + g·g)
    added = torch.zeros(keys.shape, dtype=dtype, device=keys.device)
    added = added.masked_fill(~keys, torch.finfo(dtype).min)
    return added[:, None, None, :].expand(-1, 1, keys.shape[1], -1)


def resize_position_table(table: Tensor, grid_size: int, mode: PositionTable) -> Tensor:
    """Resize a position table (1 + n·n, width) to (1 + g·g, width), bilinearly.

    Row 0 belongs to the class token. "reference" takes the last row for it all the same and puts
    it last again, so that every patch gets a position shifted by one; the published weights were
    trained with that.
    """
    if len(table) == 1 + grid_size**2:
        return table
    patches, own = (table[:-1], table[-1:]) if mode == "reference" else (table[1:], table[:1])
    side = round(len(patches) ** 0.5)
    grid = patches.float().T.reshape(1, -1, side, side)  # (1, width, n, n)
    grid = F.interpolate(grid, (grid_size, grid_size), mode="bilinear", align_corners=False)
    resized = grid[0].flatten(1).T.to(table.dtype)  # (g·g, width)
    return torch.cat([resized, own] if mode == "reference" else [own, resized])


def projector(vision_dim: int, language_dim: int) -> nn.Sequential:
    """From the tower's width to the language model's: (..., C_v) -> (..., D)."""
    return nn.Sequential(
        nn.Linear(vision_dim, 2 * language_dim),
        nn.GELU(),
        nn.Linear(2 * language_dim, language_dim),
    )


def halve_grid(features: Tensor) -> Tensor:
    """Resize patch features (B, g·g, C) to the image tokens' grid, (B, g/2·g/2, C), bilinearly."""
    side = round(features.shape[1] ** 0.5)
    grid = features.float().transpose(1, 2).unflatten(2, (side, side))  # (B, C, g, g)
    grid = F.interpolate(grid, (side // 2, side // 2), mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(features.dtype)
