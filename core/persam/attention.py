"""Target-guided attention and target-semantic prompting (paper, sections 3.3 and 3.4).

A transformer that stands in for SAM's own in one call of the decoder. It is made of the model's
own modules, so it holds no weights; the model itself stays as it is, whoever else is using it.
"""

from __future__ import annotations

import copy

from segment_anything.modeling import TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn


class TargetGuidedTransformer:
    """SAM's two-way transformer, drawn towards a target.

    Where the paper and the published code differ this follows the code: the guidance enters the
    token-to-image attention of the layers but not the final one, and the target embedding is
    part of the positional term as well.

    Args:
        transformer: the decoder's own; only read.
        guidance: (1, 1, 1, N) in [0, 1] over the image tokens, N = g*g; None for none.
        target_embedding: (1, 1, C); None for none.
    """

    def __init__(
        self,
        transformer: TwoWayTransformer,
        *,
        guidance: Tensor | None = None,
        target_embedding: Tensor | None = None,
    ) -> None:
        self.layers = [_guided(layer, guidance) for layer in transformer.layers]
        self.final_attention = transformer.final_attn_token_to_image
        self.final_norm = transformer.norm_final_attn
        self.target_embedding = target_embedding

    def __call__(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend as TwoWayTransformer does.

        Args:
            image_embedding, image_pe: (B, C, g, g).
            point_embedding: (B, T, C), all tokens of the prompts.

        Returns:
            Tokens (B, T, C) and image tokens (B, N, C).
        """
        keys = image_embedding.flatten(2).transpose(1, 2)  # (B, N, C)
        key_pe = image_pe.flatten(2).transpose(1, 2)  # (B, N, C)
        target = 0 if self.target_embedding is None else self.target_embedding  # T_R
        query_pe = point_embedding + target

        queries = point_embedding
        for layer in self.layers:
            queries, keys = layer(
                queries=queries + target, keys=keys, query_pe=query_pe, key_pe=key_pe
            )
        attended = self.final_attention(
            q=queries + query_pe + target, k=keys + key_pe, v=keys
        )  # (B, T, C)
        return self.final_norm(queries + attended), keys


class GuidedAttention(nn.Module):
    """An attention whose weights are pulled towards a guidance map: softmax(A + alpha * S).

    A are the weights themselves, after their own softmax, so the result is close to even: any two
    weights of a query differ by a factor of at most e^(1 + alpha).
    """

    def __init__(self, attention: Attention, guidance: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.guidance = guidance  # alpha * S, (1, 1, 1, N)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attention = self.attention
        heads = attention.num_heads
        q = attention._separate_heads(attention.q_proj(q), heads)  # (B, h, T, d)
        k = attention._separate_heads(attention.k_proj(k), heads)  # (B, h, N, d)
        v = attention._separate_heads(attention.v_proj(v), heads)
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, h, T, N)
        weights = (weights + self.guidance).softmax(dim=-1)
        return attention.out_proj(attention._recombine_heads(weights @ v))


def _guided(layer: TwoWayAttentionBlock, guidance: Tensor | None) -> TwoWayAttentionBlock:
    """A layer of the same modules but for its token-to-image attention."""
    if guidance is None:
        return layer
    twin = copy.copy(layer)
    attention = GuidedAttention(layer.cross_attn_token_to_image, guidance)
    twin._modules = {**layer._modules, "cross_attn_token_to_image": attention}
    return twin
