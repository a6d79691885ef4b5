"""MobileSAM's image encoder: TinyViT-5M at 1024 px with SAM's neck (arXiv 2306.14289).

Module names are those of the published checkpoint, so that it loads without a renaming table.
Two things differ from TinyViT: the last merging step keeps its resolution, so that the embedding
stays at 1/16, and the classifier is never used, though its weights are in the checkpoint.

Letters: B pictures, H x W grid of tokens, D width, h heads, d = D / h, N tokens of a window.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

# TinyViT-5M (arXiv 2207.10666, table 11), one value per stage; the first stage is convolutional.
EMBED_DIMS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
NUM_HEADS = (2, 4, 5, 10)
WINDOW_SIZES = (7, 7, 14, 7)
MERGE_STRIDES = (2, 2, 1)  # TinyViT itself has 2 at the end as well
EXPANSION = 4  # of the MLPs and of the convolutional blocks
NUM_CLASSES = 1000


class MobileSamEncoder(nn.Module):
    """(B, 3, S, S) normalised pixels -> (B, C, S/16, S/16)."""

    def __init__(self, *, img_size: int = 1024, out_chans: int = 256) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = PatchEmbed(EMBED_DIMS[0])
        self.layers = nn.ModuleList(
            Stage(
                width,
                depth=DEPTHS[i],
                num_heads=NUM_HEADS[i] if i else 0,
                window_size=WINDOW_SIZES[i],
                out_dim=EMBED_DIMS[i + 1] if i < len(MERGE_STRIDES) else None,
                stride=MERGE_STRIDES[i] if i < len(MERGE_STRIDES) else 1,
            )
            for i, width in enumerate(EMBED_DIMS)
        )
        self.norm_head = nn.LayerNorm(EMBED_DIMS[-1])  # in the checkpoint, never used
        self.head = nn.Linear(EMBED_DIMS[-1], NUM_CLASSES)  # likewise
        self.neck = nn.Sequential(
            nn.Conv2d(EMBED_DIMS[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)  # (B, 64, S/4, S/4)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)


def conv_norm(
    in_chans: int, out_chans: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution "c" without bias, then batch norm "bn", at the same size for stride 1."""
    conv = nn.Conv2d(
        in_chans, out_chans, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(c=conv, bn=nn.BatchNorm2d(out_chans)))


class PatchEmbed(nn.Module):
    """Two strided convolutions: 1/4 of the input's resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            conv_norm(3, width // 2, 3, stride=2),
            nn.GELU(),
            conv_norm(width // 2, width, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class Stage(nn.Module):
    """Blocks at one resolution on (B, D, H, W), then the step to the next stage, if any."""

    def __init__(
        self,
        width: int,
        *,
        depth: int,
        num_heads: int,
        window_size: int,
        out_dim: int | None,
        stride: int,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, num_heads, window_size) if num_heads else MBConv(width)
            for _ in range(depth)
        )
        self.downsample = None if out_dim is None else PatchMerging(width, out_dim, stride)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class MBConv(nn.Module):
    """Inverted residual block: widen, depthwise 3x3, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * EXPANSION
        self.conv1 = conv_norm(width, hidden)
        self.conv2 = conv_norm(hidden, hidden, 3, groups=hidden)
        self.conv3 = conv_norm(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """To the next stage's width and resolution."""

    def __init__(self, width: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(width, out_dim)
        self.conv2 = conv_norm(out_dim, out_dim, 3, stride=stride, groups=out_dim)
        self.conv3 = conv_norm(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class Block(nn.Module):
    """Window attention, a depthwise convolution across the windows, an MLP."""

    def __init__(self, width: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.attn = Attention(width, num_heads, window_size)
        self.mlp = Mlp(width)
        self.local_conv = conv_norm(width, width, 3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)  # (B, H, W, D)
        x = (tokens + self.attn(tokens)).permute(0, 3, 1, 2)
        tokens = self.local_conv(x).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width * EXPANSION)
        self.fc2 = nn.Linear(width * EXPANSION, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Attention(nn.Module):
    """Attention within windows with a learned bias for each head and distance.

    Windows at the far edges are filled up with zeros, which are normalised and attended to like
    any token. ``attention_biases`` (h, s*s): entry |dy|*s + |dx|.
    """

    def __init__(self, width: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)  # per head: q, k, v
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, D = x.shape
        side = self.window_size
        rows, columns = -(-H // side), -(-W // side)
        x = F.pad(x, (0, 0, 0, columns * side - W, 0, rows * side - H))
        x = x.view(B, rows, side, columns, side, D).transpose(2, 3)
        x = x.reshape(-1, side * side, D)  # (B*n, N, D)

        qkv = self.qkv(self.norm(x)).unflatten(2, (self.num_heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4)  # each (B*n, h, N, d)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias().to(q.dtype))
        x = self.proj(x.transpose(1, 2).flatten(2))

        x = x.view(B, rows, columns, side, side, D).transpose(2, 3)
        return x.reshape(B, rows * side, columns * side, D)[:, :H, :W]

    def _bias(self) -> Tensor:
        """Bias (h, N, N) of each pair of tokens of a window."""
        place = torch.arange(self.window_size, device=self.attention_biases.device)
        distance = (place[:, None] - place).abs()  # (s, s)
        index = distance[:, None, :, None] * self.window_size + distance[None, :, None, :]
        return self.attention_biases[:, index.flatten(2).flatten(0, 1)]
