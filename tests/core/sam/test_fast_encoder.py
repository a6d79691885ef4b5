import pytest
import torch
from segment_anything.modeling import Sam

from core.engine.device import lower_precision
from core.sam import fast_encoder
from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.sam.fast_encoder import FastImageEncoder, accelerate, attend_fused, attend_in_tiles


def random_sam(seed: int = 0, **changes) -> Sam:
    """A small ViT SAM with relative position tables that are not zero."""
    config = SamConfig(
        **{
            "image_size": 128,
            "embed_dim": 48,
            "depth": 3,
            "num_heads": 3,
            "window_size": 3,
            "global_attn_indexes": (1,),
            "out_chans": 32,
            "decoder_mlp_dim": 32,
            "iou_head_hidden_dim": 32,
            **changes,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sam = build_sam(config)
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
    return sam.eval().requires_grad_(False)


def pictures(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window_size", [2, 3, 8, 14])
@pytest.mark.parametrize("attend", ["attend_in_tiles", "attend_fused"])
def test_the_embedding_is_the_package_s(window_size, attend, monkeypatch):
    """Windows that divide the 8 x 8 grid, that are padded, and that are larger than it."""
    monkeypatch.setattr(fast_encoder, "attend_in_tiles", getattr(fast_encoder, attend))
    sam = random_sam(window_size=window_size)
    x = pictures(2)
    expected = sam.image_encoder(x)
    torch.testing.assert_close(accelerate(sam).image_encoder(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tile_scores", [1, 100, 64 * 64, 2**19])
def test_any_tile_size_gives_the_same(tile_scores, monkeypatch):
    monkeypatch.setattr(fast_encoder, "TILE_SCORES", tile_scores)
    monkeypatch.setattr(fast_encoder, "MLP_ROWS", 10)
    sam = random_sam()
    x = pictures(1)
    expected = sam.image_encoder(x)
    torch.testing.assert_close(accelerate(sam).image_encoder(x), expected, rtol=0, atol=1e-5)


def test_both_kinds_of_attention_agree_in_low_precision():
    generator = torch.Generator().manual_seed(0)
    qkv, pad = (torch.randn(*s, generator=generator) for s in ((1, 8, 8, 3 * 32), (3 * 32,)))
    rel_h, rel_w = (torch.randn(3, 3, 16, generator=generator) for _ in range(2))
    arguments = [t.bfloat16() for t in (qkv, pad, rel_h, rel_w)]
    expected = attend_in_tiles(qkv, pad, rel_h, rel_w, num_heads=2, window_size=3)
    for attend in (attend_in_tiles, attend_fused):
        got = attend(*arguments, num_heads=2, window_size=3)
        assert got.dtype == torch.bfloat16
        assert (got.float() - expected).abs().mean() < 0.05


def test_names_and_weights_are_shared():
    sam = random_sam()
    fast = accelerate(sam)
    assert fast.state_dict().keys() == sam.state_dict().keys()
    ours, theirs = dict(fast.named_parameters()), dict(sam.named_parameters())
    assert all(ours[name] is theirs[name] for name in theirs)
    assert not fast.training


def test_the_package_s_model_is_left_as_it_is():
    sam = random_sam()
    x = pictures(1)
    before = sam.image_encoder(x)
    accelerate(sam).image_encoder(x)
    assert torch.equal(sam.image_encoder(x), before)


def test_another_encoder_is_returned_unchanged():
    with torch.device("meta"):
        sam = build_sam(SamConfig.embedded())
    assert accelerate(sam) is sam


def test_early_features_are_those_of_the_first_global_block():
    sam = random_sam()
    encoder = accelerate(sam).image_encoder
    assert isinstance(encoder, FastImageEncoder)
    x = pictures(1)
    embedding, early = encoder.forward_features(x)
    tokens = sam.image_encoder.patch_embed(x) + sam.image_encoder.pos_embed
    for block in sam.image_encoder.blocks[:2]:
        tokens = block(tokens)
    torch.testing.assert_close(early, tokens.permute(0, 3, 1, 2), rtol=0, atol=1e-5)
    assert torch.equal(embedding, encoder(x))


@pytest.mark.parametrize("attend", ["attend_in_tiles", "attend_fused"])
def test_the_engine_can_lower_its_precision(attend, monkeypatch):
    """bfloat16 within, float32 outside, and as near as bfloat16 takes the package's encoder."""
    monkeypatch.setattr(fast_encoder, "attend_in_tiles", getattr(fast_encoder, attend))
    x = pictures(1)
    expected = random_sam().image_encoder(x)
    ours, theirs = accelerate(random_sam()).image_encoder, random_sam().image_encoder
    errors = []
    for encoder in (ours, theirs):
        lower_precision(encoder, torch.bfloat16, torch.device("cpu"))
        got = encoder(x)
        assert got.dtype == torch.float32
        errors.append((got - expected).norm() / expected.norm())
    assert errors[0] < max(2 * errors[1], 0.02)
