"""SAM's mask decoder with a robust path beside its own (paper, section 3.1 and figure 2).

The robust path swaps SAM's output tokens for robust ones and adds anti-degradation features of
the early and the final image embedding to the decoder's mask features. SAM's own path is left as
it is: ``decode_prompts`` and ``decode_masks`` run it on this class as on any MaskDecoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from core.robustsam.modules import (
    AntiDegradationFeatures,
    AntiDegradationTokens,
    NormStats,
    mask_layers,
    upsample_layers,
)
from core.sam.decoding import run_transformer
from core.sam.fast_decoder import attend_prompts, upscale_tokens


@dataclass(frozen=True, eq=False)
class RobustOutput:
    """Everything the losses look at.

    Args:
        low_res_logits: (B, 4, 4g, 4g), one mask for each robust token.
        iou_predictions: (B, 4), by SAM's own head.
        mask_features: (B, D/8, 4g, 4g), the fused features that the masks are read from.
        tokens: (B, 4, D), after the transformer.
        refined_tokens: (B, 4, D), their part of AOTG's output that reaches the masks.
    """

    low_res_logits: Tensor
    iou_predictions: Tensor
    mask_features: Tensor
    tokens: Tensor
    refined_tokens: Tensor


class RobustMaskDecoder(MaskDecoder):
    """MaskDecoder with RobustSAM's parameters, under their published names.

    Args:
        early_dim, last_dim: channels of the early feature and of the image embedding that the
            anti-degradation features see; ``last_dim`` None: all D.
        norm_stats: statistics of the batch-normalised branches at inference.
        multimask: the tokens of three masks were trained, too.
        others: MaskDecoder's own.
    """

    def __init__(
        self,
        *,
        early_dim: int,
        last_dim: int | None = None,
        norm_stats: NormStats = "image",
        multimask: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.early_dim = early_dim
        self.last_dim = last_dim or self.transformer_dim
        self.norm_stats = norm_stats
        self.multimask = multimask
        width = self.transformer_dim
        features = width // 8
        self.custom_robust_token = nn.Embedding(self.num_mask_tokens, width)
        self.robust_mlp = MLP(width, width, features, 3)
        self.fourier_mask_features = AntiDegradationFeatures(
            features, ("downsample_layer", mask_layers(features))
        )
        self.fourier_last_layer_features = AntiDegradationFeatures(
            self.last_dim, ("upsample_layer", upsample_layers(self.last_dim, width))
        )
        self.fourier_first_layer_features = AntiDegradationFeatures(
            early_dim, ("upsample_layer", upsample_layers(early_dim, width))
        )
        self.custom_token_block = AntiDegradationTokens(width, self.num_mask_tokens)

    def added_parameters(self) -> dict[str, Tensor]:
        """All parameters and buffers that a MaskDecoder does not have, by name."""
        prefixes = ("custom_", "robust_mlp.", "fourier_")
        return {k: v for k, v in self.state_dict().items() if k.startswith(prefixes)}

    def image_features(self, early: Tensor, embedding: Tensor, *, clear: bool = False) -> Tensor:
        """What early (B, C, g, g) and final (B, D, g, g) embedding add: (B, D/8, 4g, 4g).

        It depends on the picture alone: once for all its prompts.
        """
        early = early[:, : self.early_dim].contiguous()
        embedding = embedding[:, : self.last_dim].contiguous()
        first, last = self.fourier_first_layer_features, self.fourier_last_layer_features
        stats = self.norm_stats
        return first(early, clear=clear, norm_stats=stats) + last(
            embedding, clear=clear, norm_stats=stats
        )

    def mask_features(self, upscaled: Tensor, image_features: Tensor, *, clear: bool) -> Tensor:
        """Fuse the decoder's features (B, D/8, 4g, 4g) with those of the picture."""
        own = self.fourier_mask_features(upscaled, clear=clear, norm_stats=self.norm_stats)
        return own + image_features

    def hyper_weights(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Turn robust tokens (B, T, D) into mask weights (B, T, D/8) and refined tokens (B, T, D).

        Of AOTG's four rows the first makes the mask; the other three never reach one.
        """
        refined = self.custom_token_block(tokens)[:, :, 0]
        return self.robust_mlp(refined), refined

    def decode_robust(
        self,
        *,
        image_embeddings: Tensor,
        image_features: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> RobustOutput:
        """The robust path for rows of prompts and pictures, all four masks: for training.

        Args:
            image_embeddings: (B, D, g, g), row b belongs to prompt b.
            image_features: (B, D/8, 4g, 4g).
            image_pe: (1, D, g, g).
            sparse_prompt_embeddings: (B, N, D).
            dense_prompt_embeddings: (B, D, g, g).
        """
        hidden, src = run_transformer(
            self,
            self.custom_robust_token.weight,
            image_embeddings=image_embeddings,
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse_prompt_embeddings,
            dense_prompt_embeddings=dense_prompt_embeddings,
        )
        tokens = hidden[:, 1 : 1 + self.num_mask_tokens]
        features = self.mask_features(self.output_upscaling(src), image_features, clear=False)
        weights, refined = self.hyper_weights(tokens)
        logits = torch.einsum("btc,bchw->bthw", weights, features)
        return RobustOutput(
            logits, self.iou_prediction_head(hidden[:, 0]), features, tokens, refined
        )

    def decode_robust_prompts(
        self,
        *,
        image_embedding: Tensor,
        image_features: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """The robust path for B prompts on one picture, as ``decode_prompts`` is for SAM's.

        Args:
            image_embedding: (1, D, g, g).
            image_features: (1, D/8, 4g, 4g).
            image_pe: (1, D, g, g).
            sparse_prompt_embeddings: (B, N, D).
            dense_prompt_embeddings: (B, D, g, g), or (1, D, g, g) for all prompts alike.
            multimask_output: the masks of tokens 1 to 3, else that of token 0.

        Returns:
            low_res_logits (B, M, 4g, 4g) and iou_predictions (B, M) with M 3 or 1.
        """
        queries, keys = attend_prompts(
            self,
            self.custom_robust_token.weight,
            image_embedding=image_embedding,
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse_prompt_embeddings,
            dense_prompt_embeddings=dense_prompt_embeddings,
        )
        chosen = slice(1, self.num_mask_tokens) if multimask_output else slice(1)
        weights, _ = self.hyper_weights(queries[:, 1 : 1 + self.num_mask_tokens][:, chosen])
        upscaled = upscale_tokens(self, keys, image_embedding.shape[-2:])
        features = self.mask_features(upscaled, image_features, clear=False)
        logits = torch.einsum("btc,bchw->bthw", weights, features)
        return logits, self.iou_prediction_head(queries[:, 0])[:, chosen]
