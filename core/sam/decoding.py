"""The mask decoder over prompts of several pictures at once.

``MaskDecoder.predict_masks`` repeats one picture's embedding for all prompts; training and
batches of pictures need a row of embedding for each row of prompt. Same modules, same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor

# Stands in for TwoWayTransformer.forward: image_embedding and image_pe (B, C, g, g), tokens
# (B, T, C) -> tokens (B, T, C), image tokens (B, g*g, C).
Transformer = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def decode_masks(
    decoder: MaskDecoder,
    *,
    image_embeddings: Tensor,
    image_pe: Tensor,
    sparse_prompt_embeddings: Tensor,
    dense_prompt_embeddings: Tensor,
    transformer: Transformer | None = None,
) -> tuple[Tensor, Tensor]:
    """Predict all four masks of each prompt.

    Args:
        image_embeddings: (B, C, g, g), row b belongs to prompt b.
        image_pe: (1, C, g, g).
        sparse_prompt_embeddings: (B, N, C).
        dense_prompt_embeddings: (B, C, g, g).
        transformer: in place of the decoder's own, in this call only.

    Returns:
        low_res_logits (B, 4, 4g, 4g) and iou_predictions (B, 4); mask 0 is the single-mask
        output, 1 to 3 the multimask outputs.
    """
    batch, channels, height, width = image_embeddings.shape
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    output_tokens = output_tokens.expand(batch, -1, -1)
    tokens = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)  # (B, 5 + N, C)

    src = image_embeddings + dense_prompt_embeddings
    transformer = transformer or decoder.transformer
    hidden, src = transformer(src, image_pe.expand(batch, -1, -1, -1), tokens)
    iou_token_out = hidden[:, 0]  # (B, C)
    mask_tokens_out = hidden[:, 1 : 1 + decoder.num_mask_tokens]  # (B, 4, C)

    src = src.transpose(1, 2).reshape(batch, channels, height, width)
    upscaled = decoder.output_upscaling(src)  # (B, C/8, 4g, 4g)
    hyper_in = torch.stack(
        [mlp(mask_tokens_out[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)],
        dim=1,
    )  # (B, 4, C/8)
    low_res_logits = torch.einsum("bmc,bchw->bmhw", hyper_in, upscaled)
    return low_res_logits, decoder.iou_prediction_head(iou_token_out)
