"""Construct a SAM of any configuration from segment_anything's own classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from core.models.loading import load_weights
from core.sam.config import SamConfig
from core.sam.fast_encoder import accelerate

if TYPE_CHECKING:
    from core.models.catalogue import Entry

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def build_image_encoder(config: SamConfig) -> nn.Module:
    """Build the image encoder: (B, 3, S, S) normalised pixels -> (B, C, g, g)."""
    if config.encoder == "hybrid":
        from core.sam.hybrid_encoder import HybridEncoder

        return HybridEncoder(
            img_size=config.image_size,
            stage_widths=config.stage_widths,
            stage_depths=config.stage_depths,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            out_chans=config.out_chans,
        )
    if config.encoder == "tiny_vit":
        from core.sam.mobile_sam import MobileSamEncoder

        return MobileSamEncoder(img_size=config.image_size, out_chans=config.out_chans)
    return ImageEncoderViT(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        out_chans=config.out_chans,
        qkv_bias=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),  # the class's own default is 1e-5
        use_rel_pos=True,
        window_size=config.window_size,
        global_attn_indexes=config.global_attn_indexes,
    )


def build_sam(config: SamConfig, decoder: Callable[..., MaskDecoder] = MaskDecoder) -> Sam:
    """Build a SAM with freshly initialised weights, on the default device.

    Args:
        decoder: MaskDecoder or what takes its arguments.
    """
    return Sam(
        image_encoder=build_image_encoder(config),
        prompt_encoder=PromptEncoder(
            embed_dim=config.out_chans,
            image_embedding_size=(config.grid_size, config.grid_size),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=decoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.out_chans,
                mlp_dim=config.decoder_mlp_dim,
                num_heads=config.decoder_num_heads,
            ),
            transformer_dim=config.out_chans,
            iou_head_depth=3,
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )


def build_from_entry(entry: Entry, state_dict: dict[str, Tensor]) -> Sam:
    """Build the catalogue's ``entry`` and fill in its weights (eval mode, CPU, frozen).

    Raises ModelUnavailable if names or shapes of the checkpoint do not fit.
    """
    config = SamConfig.from_dict(entry.config)
    return fill(lambda: build_sam(config), state_dict, name=entry.id)


def fill(build: Callable[[], Sam], state_dict: dict[str, Tensor], *, name: str) -> Sam:
    """Build a SAM straight from its weights: in eval mode, frozen, with the fast encoder.

    Raises ModelUnavailable if names or shapes of the checkpoint do not fit.
    """
    with torch.device("meta"):
        sam = build()
    sam.to_empty(device="cpu")
    sam.pixel_mean = torch.tensor(PIXEL_MEAN).view(-1, 1, 1)  # not part of the checkpoint
    sam.pixel_std = torch.tensor(PIXEL_STD).view(-1, 1, 1)
    load_weights(sam, state_dict, name=name)
    return accelerate(sam.eval().requires_grad_(False))
