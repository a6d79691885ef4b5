"""Image encoder of the embedded SAM: convolutional stages, then global attention at 1/16.

On a CPU a small residual network learns edges far faster than patches do, and a few attention
blocks over the 16x16 grid tell whole objects from parts. The contract is ImageEncoderViT's:
(B, 3, S, S) normalised pixels in, (B, C, S/16, S/16) embedding out.
"""

from __future__ import annotations

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNormAct(nn.Sequential):
    """3x3 convolution, GroupNorm, ReLU.

    GroupNorm because running statistics of synthetic batches do not fit photographs.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chans, out_chans, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(out_chans // 16, out_chans),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, at constant size and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(width, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(width // 16, width)
        nn.init.zeros_(self.norm2.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(self.conv1(x))))


class HybridEncoder(nn.Module):
    """Residual stages at 1/4, 1/8 and 1/16, all brought to 1/16, then attention blocks.

    The fine stages reach the grid by pixel-unshuffle, so that a cell of the embedding still
    knows where inside its 16x16 pixels an edge runs: SAM's decoder sees nothing else.
    """

    def __init__(
        self,
        *,
        img_size: int,
        stage_widths: tuple[int, ...],
        stage_depths: tuple[int, ...],
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        out_chans: int,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        grid_size = img_size // 16
        # The first stage reads 2x2 pixels as one: half the price of a stem at full resolution.
        widths = (3 * 2**2, *stage_widths)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(widths[i], widths[i + 1], stride=2),
                *(ResidualBlock(widths[i + 1]) for _ in range(stage_depths[i])),
            )
            for i in range(len(stage_widths))
        )
        # A stage at 1/4 has 4x4 of its pixels in a grid cell, one at 1/8 has 2x2.
        self.folds = tuple(2 ** (len(stage_widths) - 1 - i) for i in range(len(stage_widths)))
        self.projections = nn.ModuleList(
            nn.Conv2d(width * fold**2, embed_dim, 1)
            for width, fold in zip(stage_widths, self.folds, strict=True)
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, grid_size**2, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        blocks = [Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True) for _ in range(depth)]
        for block in blocks:
            # 256 tokens: plain softmax trains 1.3 times as fast on a CPU as the fused kernel.
            setattr(block.attn, "fused_attn", False)  # noqa: B010
        self.blocks = nn.Sequential(*blocks)
        self.neck = nn.Sequential(
            nn.Conv2d(2 * embed_dim, out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, S, S) normalised pixels to the embedding (B, C, S/16, S/16)."""
        return self.forward_features(x)[0]

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Like ``forward``, with the early feature map (B, D, S/16, S/16) beside it.

        The early map is the sum of the folded stages before any attention: local detail, the
        counterpart of the first global block's output in the published encoders.
        """
        x = F.pixel_unshuffle(x, 2)  # (B, 12, S/2, S/2)
        early = 0
        for stage, fold, projection in zip(self.stages, self.folds, self.projections, strict=True):
            x = stage(x)
            early = early + projection(F.pixel_unshuffle(x, fold))  # (B, D, g, g)
        assert isinstance(early, Tensor)
        tokens = early.flatten(2).transpose(1, 2)  # (B, g*g, D)
        tokens = self.blocks(tokens + self.pos_embed)
        late = tokens.transpose(1, 2).unflatten(2, early.shape[-2:])  # (B, D, g, g)
        return self.neck(torch.cat([late, early], dim=1)), early
