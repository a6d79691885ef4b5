"""ImageEncoderViT with the same weights and numbers, less time and far less memory.

The package's attention writes a heads x N x N array eight times over. Here it is computed in
tiles that stay in a CPU core's cache, or on other devices by one fused kernel with the relative
position bias folded into extra channels (q' = [q, rel_h, rel_w], k' = [k, one-hot row, one-hot
column]), so that no bias array exists. Padding of the windows never passes the qkv and output
projections: a padded token is zero after the norm, and its qkv therefore the bias.

Letters: B pictures, H x W grid of tokens, D width, h heads, d = D / h, N tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from segment_anything.modeling import ImageEncoderViT, Sam
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F

# Scores of one tile, 2 MiB in float32: in cache on current CPUs, large enough for the GEMM.
TILE_SCORES = 2**19
# Rows of the MLP's hidden layer at a time on a CPU; 512 x 3072 floats are 6 MiB.
MLP_ROWS = 512


def accelerate(sam: Sam) -> Sam:
    """Return a SAM that shares all weights with ``sam`` and encodes faster, to equal output.

    State-dict names stay the same. Call it after the weights are loaded: the relative position
    tables are gathered once, here. For inference: blocks add in place. A SAM with another
    encoder is returned as it is.
    """
    if not isinstance(sam.image_encoder, ImageEncoderViT):
        return sam
    fast = Sam(FastImageEncoder(sam.image_encoder), sam.prompt_encoder, sam.mask_decoder)
    fast.pixel_mean, fast.pixel_std = sam.pixel_mean, sam.pixel_std
    return fast.train(sam.training)


class FastImageEncoder(nn.Module):
    """ImageEncoderViT's parts with faster blocks: (B, 3, S, S) -> (B, C, g, g)."""

    def __init__(self, encoder: ImageEncoderViT) -> None:
        super().__init__()
        self.img_size = encoder.img_size
        self.patch_embed = encoder.patch_embed
        self.pos_embed = encoder.pos_embed
        grid_size = encoder.img_size // encoder.patch_embed.proj.stride[0]
        self.blocks = nn.ModuleList(FastBlock(block, grid_size) for block in encoder.blocks)
        self.neck = encoder.neck

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x)[0]

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Like ``forward``, with the first global block's output (B, D, g, g) beside it."""
        # The convolution leaves D as the slowest axis, which all blocks would inherit.
        x = self.patch_embed(x).contiguous()  # (B, g, g, D)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        early = None
        for block in self.blocks:
            x = block(x)
            if early is None and block.window_size == 0:
                early = x
        embedding = self.neck(x.permute(0, 3, 1, 2))
        return embedding, (x if early is None else early).permute(0, 3, 1, 2)


class FastBlock(nn.Module):
    """A transformer block on (B, H, W, D) tokens, with window attention where the block has it."""

    rel_h: Tensor
    rel_w: Tensor

    def __init__(self, block: Block, grid_size: int) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = block.attn
        self.norm2 = block.norm2
        self.mlp = block.mlp
        self.window_size = block.window_size
        size = block.window_size or grid_size
        tables = [_gather_rel_pos(block.attn, axis, size) for axis in ("h", "w")]
        for name, table in zip(("rel_h", "rel_w"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)  # (size, size, d)

    def forward(self, x: Tensor) -> Tensor:
        attend = attend_in_tiles if x.device.type == "cpu" else attend_fused
        qkv = self.attn.qkv(self.norm1(x))  # (B, H, W, 3*D)
        pad = self.attn.qkv.bias
        pad = torch.zeros(qkv.shape[-1], device=x.device) if pad is None else pad
        attended = attend(
            qkv,
            pad.to(qkv.dtype),
            self.rel_h.to(qkv.dtype),
            self.rel_w.to(qkv.dtype),
            num_heads=self.attn.num_heads,
            window_size=self.window_size,
        )
        x = x + self.attn.proj(attended)  # (B, H, W, D)
        if x.device.type != "cpu":
            return x + self.mlp(self.norm2(x))
        for rows in x.view(-1, x.shape[-1]).split(MLP_ROWS):
            rows += self.mlp(self.norm2(rows))
        return x


def attend_in_tiles(
    qkv: Tensor, pad: Tensor, rel_h: Tensor, rel_w: Tensor, *, num_heads: int, window_size: int
) -> Tensor:
    """Attend with decomposed relative positions, a cache-sized tile of scores at a time.

    Args:
        qkv: (B, H, W, 3*D).
        pad: (3*D,), qkv of the zero tokens that fill up the windows at the far edges.
        rel_h, rel_w: (s, s, d) tables of a window of side s; row i, column j is what the query
            at i adds for the key at j, by the unscaled query.
        window_size: s, or 0 for attention over the whole grid (then s = H = W).

    Returns:
        (B, H, W, D), before the output projection.
    """
    B, H, W, _ = qkv.shape
    head_dim = rel_h.shape[-1]
    qkv = qkv.view(B, H, W, 3, num_heads, head_dim)
    out = qkv.new_empty(B, H, W, num_heads, head_dim)
    side = window_size or H
    for b, rows, columns in _windows(qkv.shape, window_size):
        window = qkv[b, rows, columns]  # (s, s, 3, h, d), smaller at the far edges
        height, width = window.shape[:2]
        if (height, width) != (side, side):
            full = pad.view(3, num_heads, head_dim).repeat(side, side, 1, 1, 1)
            full[:height, :width] = window
            window = full
        attended = _attend_window(window, rel_h, rel_w)  # (s, s, h, d)
        out[b, rows, columns] = attended[:height, :width]
    return out.flatten(-2)


def _windows(shape: torch.Size, window_size: int) -> Iterator[tuple[int, slice, slice]]:
    B, H, W = shape[:3]
    step_h, step_w = window_size or H, window_size or W
    for b in range(B):
        for y in range(0, H, step_h):
            for x in range(0, W, step_w):
                yield b, slice(y, min(y + step_h, H)), slice(x, min(x + step_w, W))


def _attend_window(qkv: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attend within one window: qkv (s, s, 3, h, d) -> (s, s, h, d)."""
    side, _, _, heads, head_dim = qkv.shape
    N = side * side
    q, k, v = qkv.permute(2, 3, 0, 1, 4)  # each (h, s, s, d)
    bias_h = torch.einsum("hyxd,ykd->hyxk", q, rel_h).reshape(heads, N, side, 1)
    bias_w = torch.einsum("hyxd,xkd->hyxk", q, rel_w).reshape(heads, N, 1, side)
    q, k, v = (t.reshape(heads, N, head_dim) for t in (q, k, v))

    out = qkv.new_empty(heads, N, head_dim)
    tile_heads = max(1, min(heads, TILE_SCORES // N**2))
    tile_rows = max(1, min(N, TILE_SCORES // N))
    scale = head_dim**-0.5
    for i in range(0, heads, tile_heads):
        for j in range(0, N, tile_rows):
            tile = slice(i, i + tile_heads), slice(j, j + tile_rows)
            scores = (bias_h[tile] + bias_w[tile]).flatten(2)  # (tile heads, tile rows, N)
            scores.baddbmm_(q[tile], k[tile[0]].transpose(1, 2), alpha=scale)
            out[tile] = torch.bmm(scores.softmax(dim=-1), v[tile[0]])
    return out.view(heads, side, side, head_dim).permute(1, 2, 0, 3)


def attend_fused(
    qkv: Tensor, pad: Tensor, rel_h: Tensor, rel_w: Tensor, *, num_heads: int, window_size: int
) -> Tensor:
    """Like ``attend_in_tiles``, by scaled_dot_product_attention: for GPUs."""
    B, H, W, _ = qkv.shape
    head_dim = rel_h.shape[-1]
    side = window_size or H
    qkv, restore = _partition(qkv, pad, side)  # (B*n, s, s, 3*D)
    qkv = qkv.view(-1, side * side, 3, num_heads, head_dim).permute(2, 0, 3, 1, 4)
    q, k, v = qkv  # each (B*n, h, N, d)
    grid = q.unflatten(2, (side, side))
    bias_h = torch.einsum("nhyxd,ykd->nhyxk", grid, rel_h).flatten(2, 3)
    bias_w = torch.einsum("nhyxd,xkd->nhyxk", grid, rel_w).flatten(2, 3)  # (B*n, h, N, s)

    # Fused kernels want a multiple of eight channels, the same for q, k and v.
    fill = -(head_dim + 2 * side) % 8
    eye = torch.eye(side, dtype=q.dtype, device=q.device)
    rows, columns = eye.repeat_interleave(side, dim=0), eye.repeat(side, 1)  # (N, s)
    one_hot = F.pad(torch.cat([rows, columns], dim=1), (0, fill)).expand(*k.shape[:3], -1)
    q = F.pad(torch.cat([q * head_dim**-0.5, bias_h, bias_w], dim=-1), (0, fill))
    k = torch.cat([k, one_hot], dim=-1)
    v = F.pad(v, (0, 2 * side + fill))
    out = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :head_dim]
    out = out.transpose(1, 2).reshape(-1, side, side, num_heads * head_dim)
    return restore(out)


def _partition(x: Tensor, pad: Tensor, side: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Cut (B, H, W, E) into windows (B*n, side, side, E); also return the inverse."""
    B, H, W, E = x.shape
    rows, columns = -(-H // side), -(-W // side)
    if (H, W) != (rows * side, columns * side):
        full = pad.repeat(B, rows * side, columns * side, 1)
        full[:, :H, :W] = x
        x = full

    def restore(windows: Tensor) -> Tensor:
        grid = windows.view(B, rows, columns, side, side, -1).transpose(2, 3)
        return grid.reshape(B, rows * side, columns * side, -1)[:, :H, :W]

    grid = x.view(B, rows, side, columns, side, E).transpose(2, 3)
    return grid.reshape(-1, side, side, E), restore


def _gather_rel_pos(attention: Attention, axis: str, size: int) -> Tensor:
    """Relative position vectors (size, size, d) of each pair of query and key coordinates."""
    if not attention.use_rel_pos:
        head_dim = attention.qkv.in_features // attention.num_heads
        return torch.zeros(size, size, head_dim, device=attention.qkv.weight.device)
    table = getattr(attention, f"rel_pos_{axis}")
    return get_rel_pos(size, size, table).detach()
