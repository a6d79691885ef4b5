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
    hidden, src = run_transformer(
        decoder,
        decoder.mask_tokens.weight,
        image_embeddings=image_embeddings,
        image_pe=image_pe,
        sparse_prompt_embeddings=sparse_prompt_embeddings,
        dense_prompt_embeddings=dense_prompt_embeddings,
        transformer=transformer,
    )
    mask_tokens_out = hidden[:, 1 : 1 + decoder.num_mask_tokens]  # (B, 4, C)
    upscaled = decoder.output_upscaling(src)  # (B, C/8, 4g, 4g)
    hyper_in = torch.stack(
        [mlp(mask_tokens_out[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)],
        dim=1,
    )  # (B, 4, C/8)
    low_res_logits = torch.einsum("bmc,bchw->bmhw", hyper_in, upscaled)
    return low_res_logits, decoder.iou_prediction_head(hidden[:, 0])


def run_transformer(
    decoder: MaskDecoder,
    mask_tokens: Tensor,
    *,
    image_embeddings: Tensor,
    image_pe: Tensor,
    sparse_prompt_embeddings: Tensor,
    dense_prompt_embeddings: Tensor,
    transformer: Transformer | None = None,
) -> tuple[Tensor, Tensor]:
    """Let output and prompt tokens attend to the picture and it to them.

    Args:
        mask_tokens: (M, C), the decoder's own or others in their place.
        others: as in ``decode_masks``.

    Returns:
        Tokens (B, 1 + M + N, C), the IoU token first, and the picture's (B, C, g, g).
    """
    batch = len(image_embeddings)
    output_tokens = torch.cat([decoder.iou_token.weight, mask_tokens]).expand(batch, -1, -1)
    tokens = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)  # (B, 1 + M + N, C)
    src = image_embeddings + dense_prompt_embeddings
    transformer = transformer or decoder.transformer
    hidden, src = transformer(src, image_pe.expand(batch, -1, -1, -1), tokens)
    return hidden, src.transpose(1, 2).reshape(image_embeddings.shape)
