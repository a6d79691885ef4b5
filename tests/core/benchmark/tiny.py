"""Models small enough for a benchmark's test."""

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from segment_anything.modeling import Sam

from core.clip.build import embedded_tokenizer
from core.clip.model import ClipModel
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


def tiny_clip(seed: int = 0) -> ClipModel:
    """A CLIP of 32 px in patches of 8 that reads any word, with seeded random weights."""
    vision = CLIPVisionCfg(image_size=32, patch_size=8, width=32, layers=3, head_width=16)
    text = CLIPTextCfg(context_length=32, vocab_size=2626, width=16, heads=2, layers=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = CLIP(24, vision, text).eval().requires_grad_(False)
    return ClipModel(clip, embedded_tokenizer(), id="tiny")
