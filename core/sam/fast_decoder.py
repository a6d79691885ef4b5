"""SAM's mask decoder for many prompts on one picture: the same numbers with half the arithmetic.

The package projects all g*g image tokens in each cross attention, for each prompt. There are few
prompt tokens T, so here the projections move to their side: (x W) q = x (W q). An image token
then meets heads*T vectors instead of three projections of width C/2, everything that depends on
the picture alone is shared by the prompts, and the transposed convolutions (kernel = stride = 2)
become matrix products that need no rearranging of features. Equal to rounding.

Letters: B prompts, T tokens of a prompt (IoU, four masks, sparse prompts), h heads, N = g*g.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor
from torch.nn import functional as F


def decode_prompts(
    decoder: MaskDecoder,
    *,
    image_embedding: Tensor,
    image_pe: Tensor,
    sparse_prompt_embeddings: Tensor,
    dense_prompt_embeddings: Tensor,
    multimask_output: bool,
) -> tuple[Tensor, Tensor]:
    """Predict masks of B prompts on one picture.

    Args:
        image_embedding: (1, C, g, g).
        image_pe: (1, C, g, g).
        sparse_prompt_embeddings: (B, T - 5, C).
        dense_prompt_embeddings: (B, C, g, g), or (1, C, g, g) for all prompts alike.
        multimask_output: three masks per prompt, else the single-mask output.

    Returns:
        low_res_logits (B, M, 4g, 4g) and iou_predictions (B, M) with M 3 or 1.
    """
    queries, keys = attend_prompts(
        decoder,
        decoder.mask_tokens.weight,
        image_embedding=image_embedding,
        image_pe=image_pe,
        sparse_prompt_embeddings=sparse_prompt_embeddings,
        dense_prompt_embeddings=dense_prompt_embeddings,
    )
    chosen = range(1, decoder.num_mask_tokens) if multimask_output else range(1)
    hyper_in = torch.stack(
        [decoder.output_hypernetworks_mlps[i](queries[:, 1 + i]) for i in chosen], dim=1
    )  # (B, M, C/8)
    low_res_logits = _predict_logits(decoder, keys, hyper_in, image_embedding.shape[-2:])
    iou_predictions = decoder.iou_prediction_head(queries[:, 0])
    return low_res_logits, iou_predictions[:, chosen.start : chosen.stop]


def attend_prompts(
    decoder: MaskDecoder,
    mask_tokens: Tensor,
    *,
    image_embedding: Tensor,
    image_pe: Tensor,
    sparse_prompt_embeddings: Tensor,
    dense_prompt_embeddings: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run the two-way transformer for B prompts on one picture.

    Args:
        mask_tokens: (M, C), the decoder's own or others in their place.
        others: as in ``decode_prompts``.

    Returns:
        Tokens (B, 1 + M + N, C), the IoU token first, and image tokens (B, g*g, C).
    """
    output_tokens = torch.cat([decoder.iou_token.weight, mask_tokens])
    output_tokens = output_tokens.expand(len(sparse_prompt_embeddings), -1, -1)
    tokens = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)  # (B, T, C)
    keys = _to_tokens(image_embedding + dense_prompt_embeddings)  # (1 or B, N, C)
    pe = _to_tokens(image_pe)  # (1, N, C)

    transformer = decoder.transformer
    queries = tokens
    for layer in transformer.layers:
        queries, keys = _two_way_block(layer, queries, keys, tokens, pe)
    attended = _attend_to_image(
        transformer.final_attn_token_to_image, queries + tokens, keys + pe, keys
    )
    return transformer.norm_final_attn(queries + attended), keys


def upscale_tokens(decoder: MaskDecoder, keys: Tensor, grid: torch.Size) -> Tensor:
    """Bring image tokens (B, g*g, C) to the decoder's features (B, C/8, 4g, 4g)."""
    return _to_map(_upscale(decoder, keys).transpose(1, 2), grid)


def _to_tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2).contiguous()  # (B, C, g, g) -> (B, N, C)


def _two_way_block(
    layer: TwoWayAttentionBlock, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
) -> tuple[Tensor, Tensor]:
    """One layer of the two-way transformer; keys (1, N, C) come out as (B, N, C)."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        q = queries + query_pe
        queries = queries + layer.self_attn(q=q, k=q, v=queries)
    queries = layer.norm1(queries)

    image_keys = keys + key_pe  # needed by both cross attentions
    attended = _attend_to_image(
        layer.cross_attn_token_to_image, queries + query_pe, image_keys, keys
    )
    queries = layer.norm2(queries + attended)
    queries = layer.norm3(queries + layer.mlp(queries))

    attended = _attend_to_tokens(
        layer.cross_attn_image_to_token, image_keys, queries + query_pe, queries
    )
    return queries, layer.norm4(attended.add_(keys))


def _attend_to_image(attention: Attention, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Cross attention of tokens (B, T, C) to image tokens (1 or B, N, C); (B, T, C).

    The key bias adds the same to all scores of a query and drops out of the softmax; the value
    bias passes through, as the weights of a query sum to one.
    """
    B, T, C = q.shape
    heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
    q = attention.q_proj(q).view(B, T, heads, width)
    k_weight = attention.k_proj.weight.view(heads, width, C)
    v_weight = attention.v_proj.weight.view(heads, width, C)

    q = torch.einsum("bthd,hdc->bhtc", q * width**-0.5, k_weight).reshape(B, heads * T, C)
    weights = _matmul(q, keys.transpose(1, 2)).softmax(dim=-1)  # (B, h*T, N)
    context = _matmul(weights, values).view(B, heads, T, C)
    out = torch.einsum("bhtc,hdc->bthd", context, v_weight).reshape(B, T, heads * width)
    return attention.out_proj(out + attention.v_proj.bias)


def _attend_to_tokens(attention: Attention, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Cross attention of image tokens (1 or B, N, C) to tokens (B, T, C); (B, N, C)."""
    B, T, C = keys.shape
    heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
    k = attention.k_proj(keys).view(B, T, heads, width) * width**-0.5
    v = attention.v_proj(values).view(B, T, heads, width)
    q_weight = attention.q_proj.weight.view(heads, width, C)
    q_bias = attention.q_proj.bias.view(heads, width)
    out_weight = attention.out_proj.weight.view(C, heads, width)

    offset = torch.einsum("bthd,hd->bht", k, q_bias).reshape(B, heads * T, 1)
    k = torch.einsum("bthd,hdc->bhtc", k, q_weight).reshape(B, heads * T, C)
    scores = _matmul(k, q.transpose(1, 2)).add_(offset).view(B, heads, T, -1)
    weights = scores.softmax(dim=2).view(B, heads * T, -1)  # over T: N stays the fast axis
    v = torch.einsum("bthd,chd->bhtc", v, out_weight).reshape(B, heads * T, C)
    bias = attention.out_proj.bias.expand(B, 1, C)
    return torch.baddbmm(bias, weights.transpose(1, 2), v)  # (B, N, C)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """(B, R, K) @ (1 or B, K, S), one product for all prompts where b is shared."""
    if len(b) == 1 and len(a) > 1:
        return (a.reshape(-1, a.shape[-1]) @ b[0]).view(*a.shape[:2], -1)
    return torch.bmm(a, b)


def _predict_logits(
    decoder: MaskDecoder, keys: Tensor, hyper_in: Tensor, grid: torch.Size
) -> Tensor:
    """Upscale image tokens (B, N, C) fourfold and weigh them: (B, M, 4g, 4g)."""
    return _to_map(hyper_in @ _upscale(decoder, keys).transpose(1, 2), grid)


def _upscale(decoder: MaskDecoder, keys: Tensor) -> Tensor:
    """``output_upscaling`` on tokens: (B, N, C) -> (B, N*16, C/8), (y, x, dy, dx, ddy, ddx)."""
    up1, norm, act1, up2, act2 = decoder.output_upscaling
    x = _transposed_conv(up1, keys)  # (B, N*4, C/4), position (y, x, dy, dx)
    x = act1(F.layer_norm(x, (x.shape[-1],), norm.weight, norm.bias, norm.eps))
    return act2(_transposed_conv(up2, x))


def _to_map(values: Tensor, grid: torch.Size) -> Tensor:
    """Put (B, M, N*16) in ``_upscale``'s order into rows and columns: (B, M, 4g, 4g)."""
    B, M, _ = values.shape
    height, width = grid
    values = values.view(B, M, height, width, 2, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5, 7)
    return values.reshape(B, M, 4 * height, 4 * width)


def _transposed_conv(conv: torch.nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """ConvTranspose2d with kernel = stride = 2 on tokens: (B, N, C) -> (B, N*4, C')."""
    B, _, C = x.shape
    weight = conv.weight.permute(2, 3, 1, 0).reshape(-1, C)  # (4*C', C), rows (dy, dx, c')
    assert conv.bias is not None
    return F.linear(x, weight, conv.bias.repeat(4)).view(B, -1, conv.out_channels)
