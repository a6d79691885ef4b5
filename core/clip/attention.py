"""Self-attention of one picture, with what torch's module does not give.

Letters: H heads of d channels, D = H·d; L tokens, the class token first; K gradients at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Heads:
    """What the heads of one attention did, without a graph.

    Args:
        q, k, v: (H, L, d), the queries scaled.
        weights: (H, L, L), each row a softmax over the keys.
        mixed: (H, L, d), the values mixed by the weights.
        in_proj: (3·D, D), the projection that made q, k and v.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor
    mixed: Tensor
    in_proj: Tensor

    @torch.no_grad()
    def patch_gradient(self, gradient: Tensor) -> Tensor:
        """Sum over the patches of d p / d input, from d p / d mixed.

        With S the weights A before their softmax, dS_ij = A_ij (g_i·v_j − g_i·mixed_i): each row
        adds up to 0. So the sums over queries, keys and values need no matrix (L, L) per p, and
        one product for all.

        Args:
            gradient: (K, L, D); 0 for the class token, which no pooled patch depends on.

        Returns:
            (K, D).
        """
        count, heads, width = len(gradient), len(self.q), self.q.shape[2]
        scale = width**-0.5
        g = gradient.unflatten(2, (heads, width)).permute(2, 1, 0, 3)  # (H, L, K, d)
        to_class = self.weights[:, :, 0]  # (H, L)
        own = torch.einsum("hlkd,hld->hlk", g, self.mixed)
        class_value = torch.einsum("hlkd,hd->hlk", g, self.v[:, 0])
        values = torch.einsum("hl,hlkd->hkd", 1 - to_class, g)
        keys = torch.einsum("hlk,hl,hld->hkd", own - class_value, to_class, self.q)
        spread = (self.weights.mT @ g.flatten(2)).unflatten(2, (count, width))  # (H, L, K, d)
        queries = torch.einsum("hlkd,hld,hle->hke", spread, self.v, self.k)
        queries -= torch.einsum("hlk,hld->hkd", own, self.weights @ self.k)
        parts = [part.transpose(0, 1).flatten(1) for part in (scale * queries, keys, values)]
        return torch.cat(parts, dim=1) @ self.in_proj


@torch.no_grad()
def run_heads(attn: nn.MultiheadAttention, y: Tensor) -> Heads:
    """Run the heads of self-attention on one picture's tokens (1, L, D), before ``out_proj``."""
    q, k, v = _project(attn, y)
    weights = torch.stack([_weigh(*pair) for pair in zip(q, k, strict=True)])
    return Heads(q, k, v, weights, weights @ v, attn.in_proj_weight)


def attend(attn: nn.MultiheadAttention, y: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention of one picture, head by head: L² numbers of scratch instead of H · L².

    Args:
        y: (1, L, D).

    Returns:
        (1, L, D), and the weights' mean over the heads (L, L).
    """
    mixed = []
    mean = y.new_zeros(y.shape[1], y.shape[1], dtype=torch.float32)
    for q, k, v in zip(*_project(attn, y), strict=True):
        weights = _weigh(q, k)
        mean.add_(weights, alpha=1 / attn.num_heads)
        mixed.append(weights @ v)
    return attn.out_proj(torch.cat(mixed, dim=-1))[None], mean


def _project(attn: nn.MultiheadAttention, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, scaled, keys and values of (1, L, D): (H, L, d) each."""
    projected = F.linear(y[0], attn.in_proj_weight, attn.in_proj_bias)  # (L, 3·D)
    heads = projected.unflatten(1, (3, attn.num_heads, attn.head_dim)).permute(1, 2, 0, 3)
    return heads[0] * attn.head_dim**-0.5, heads[1], heads[2]


def _weigh(q: Tensor, k: Tensor) -> Tensor:
    """Weights (L, L) of one head's scaled queries and keys (L, d)."""
    return torch.softmax(q @ k.T, dim=-1)
