"""Models small enough for a benchmark's test."""

import torch
from segment_anything.modeling import Sam

from core.sam.build import build_sam
from core.sam.config import SamConfig

TINY = SamConfig(
    image_size=64,
    embed_dim=32,
    depth=2,
    num_heads=2,
    window_size=3,
    global_attn_indexes=(1,),
    out_chans=32,
    decoder_mlp_dim=16,
    iou_head_hidden_dim=16,
)


def tiny_sam(config: SamConfig = TINY) -> Sam:
    """A SAM with the same random weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_sam(config).eval().requires_grad_(False)
