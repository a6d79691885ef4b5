"""The lightweight pixel decoder (paper, section 3): one mask for each target, scale by scale.

Each scale has its own two-way transformer over SAM's tokens and that scale's features. The mask
of one scale modulates the next one's features by (sigmoid(mask) + 1), and all scales' masks are
added up with weights. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn
from torch.nn import functional as F

from core.pixellm.config import DecoderConfig


def image_feature_neck(language_dim: int, width: int) -> nn.Sequential:
    """From projected features (B, D, g, g) to the decoder's (B, C, g, g); one for all scales."""
    return nn.Sequential(
        nn.Conv2d(language_dim, width, kernel_size=1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(width),
    )


class MultiScaleMaskDecoder(nn.Module):
    """Masks of targets from fused codebook vectors and features of several scales.

    The IoU head and all mask tokens but the first are in the published checkpoints and never
    read, as in the published code.

    Args:
        scales: L.
    """

    def __init__(self, config: DecoderConfig, scales: int) -> None:
        super().__init__()
        width = config.hidden_size
        mask_tokens = 1 + config.extra_mask_tokens
        self.transformer = nn.ModuleList(
            TwoWayTransformer(
                depth=config.depth,
                embedding_dim=width,
                num_heads=config.num_heads,
                mlp_dim=config.mlp_dim,
            )
            for _ in range(scales)
        )
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(mask_tokens, width)
        self.output_upscaling = upscaling(width, width // 8)
        if scales > 1:
            self.upsample_2x = upscaling(width, width)
        for level in range(1, scales):
            self.add_module(f"pe{level}", PositionEmbeddingRandom(width // 2))
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(width, width, width // 8, 3) for _ in range(mask_tokens)
        )
        self.iou_prediction_head = MLP(width, width, mask_tokens, 3)
        self.level_embed = nn.Embedding(scales, width)

    def upsample(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Bring the features of scale l from (B, C, g, g) to (B, C, 2^l·g, 2^l·g).

        They depend on the picture alone: once for all its targets.
        """
        upsampled = []
        for level, feature in enumerate(features):
            for _ in range(level):
                feature = self.upsample_2x(feature)
            upsampled.append(feature)
        return upsampled

    def forward(
        self,
        features: Sequence[Tensor],
        prompts: Tensor,
        dense_pe: Tensor,
        dense_prompt: Tensor,
    ) -> list[Tensor]:
        """Predict masks scale by scale.

        Args:
            features: what ``upsample`` gives, of one picture (1, …) or of each target (K, …).
            prompts: fused codebook vectors (K, L, C).
            dense_pe: the prompt encoder's positional encoding (1, C, g, g), for scale 0.
            dense_prompt: (1, C), added to every pixel: "no mask prompt".

        Returns:
            Mask logits of each scale, (K, 1, 2^(l+1)·g, 2^(l+1)·g).
        """
        masks: list[Tensor] = []
        for level, src in enumerate(features):
            pos = dense_pe
            if level > 0:
                src = src * (masks[-1].sigmoid() + 1)  # (K, C, h, w)
                pos = self.get_submodule(f"pe{level}")(tuple(src.shape[-2:]))[None]
            src = src.expand(len(prompts), -1, -1, -1) + dense_prompt[..., None, None]
            masks.append(self._decode_scale(level, src, pos, prompts[:, level]))
        return masks

    def _decode_scale(self, level: int, src: Tensor, pos: Tensor, prompts: Tensor) -> Tensor:
        """Masks (K, 1, 2h, 2w) of one scale from src (K, C, h, w) and prompts (K, C)."""
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat(
            [output_tokens.expand(len(prompts), -1, -1), prompts[:, None]], dim=1
        )  # (K, T, C)
        tokens = tokens + self.level_embed.weight[level]
        hidden, keys = self.transformer[level](src, pos.expand_as(src), tokens)
        keys = keys.transpose(1, 2).view_as(src)
        upscaled = self.output_upscaling(keys)  # (K, C/8, 2h, 2w)
        weights = self.output_hypernetworks_mlps[0](hidden[:, 1])  # (K, C/8)
        return torch.einsum("kc,kchw->khw", weights, upscaled)[:, None]


def upscaling(width: int, out: int) -> nn.Sequential:
    """Twice the height and width, (B, C, h, w) -> (B, out, 2h, 2w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, out, kernel_size=2, stride=2), LayerNorm2d(out), nn.GELU()
    )


def fuse_masks(masks: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Add up the scales' logits (K, 1, h_l, w_l) at the last one's size, (K, h, w).

    Args:
        weights: γ, (L,).
    """
    size = masks[-1].shape[-2:]
    return sum(
        weight * F.interpolate(mask, size, mode="bilinear", align_corners=False)[:, 0]
        for weight, mask in zip(weights, masks, strict=True)
    )  # type: ignore[return-value]
