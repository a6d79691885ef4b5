"""The walk through the image tower equals open_clip's own forward pass."""

import copy

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from core.clip import attention, towers
from core.clip.model import ClipModel
from core.engine.device import lower_precision
from core.errors import ModelUnavailable


def pixels(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_trunk_and_last_block_make_the_whole_tower(small_clip):
    visual = small_clip.visual
    inputs = pixels(1, 3, 64, 64)
    trunk = towers.run_trunk(small_clip, inputs)
    assert trunk.grid == (4, 4) and trunk.attention_blocks == 7
    x = towers.blocks_of(visual)[-1](trunk.tokens)
    assert_close(visual.ln_post(x)[:, 0] @ visual.proj, visual(inputs), atol=1e-5, rtol=1e-5)
    last = towers.run_last_block(visual, trunk.tokens)
    expected = F.normalize(visual.ln_post(x)[0, 1:].mean(dim=0) @ visual.proj, dim=0)
    assert_close(last.feature.detach(), expected, atol=1e-5, rtol=1e-5)
    assert last.mixed.is_leaf and last.mixed.requires_grad
    assert not last.target.requires_grad


def test_a_gradient_is_there_although_weights_are_frozen_and_grad_is_off(small_clip):
    with torch.no_grad():
        trunk = towers.run_trunk(small_clip, pixels(1, 3, 64, 64))
        last = towers.run_last_block(small_clip.visual, trunk.tokens)
    (gradient,) = torch.autograd.grad(last.feature[0], last.mixed)
    assert gradient.abs().max() > 0


def test_attention_equals_that_of_the_module(small_clip):
    block = towers.blocks_of(small_clip.visual)[0]
    y = pixels(1, 13, 48)
    expected, weights = block.attn(y, y, y, need_weights=True)
    attended, mean = attention.attend(block.attn, y)
    assert_close(attended, expected, atol=1e-6, rtol=1e-5)
    assert_close(mean, weights[0], atol=1e-6, rtol=1e-5)
    assert_close(mean.sum(dim=1), torch.ones(13), atol=1e-6, rtol=0)


def test_the_closed_gradient_equals_autograds(small_clip):
    """Through the whole last block, for directions of the feature."""
    visual = small_clip.visual
    block = towers.blocks_of(visual)[-1]
    trunk = towers.run_trunk(small_clip, pixels(1, 3, 48, 80))
    last = towers.run_last_block(visual, trunk.tokens)
    target = last.target.clone().requires_grad_()
    attended, _ = block.attn(target, target, target)
    x = trunk.tokens + attended
    x = x + block.mlp(block.ln_2(x))
    feature = F.normalize(visual.ln_post(x)[0, 1:].mean(dim=0) @ visual.proj, dim=0)
    directions = torch.eye(len(feature))[:5]
    (whole,) = torch.autograd.grad(feature, target, directions, is_grads_batched=True)
    (mixed,) = torch.autograd.grad(last.feature, last.mixed, directions, is_grads_batched=True)
    assert not mixed[:, 0].any(), "the class token's row"
    expected = whole[:, 0, 1:].sum(dim=1)
    assert expected.abs().max() > 1e-3
    assert_close(last.heads.patch_gradient(mixed), expected, atol=1e-6, rtol=1e-4)


def test_the_attention_of_the_last_eight_blocks_is_summed(small_clip):
    visual, inputs = small_clip.visual, pixels(1, 3, 32, 96)
    x, grid = towers.embed_patches(visual, inputs)
    assert grid == (2, 6)
    total = torch.zeros(13, 13)
    for index, block in enumerate(towers.blocks_of(visual)[:-1]):
        y = block.ln_1(x)
        if index >= 2:
            total += block.attn(y, y, y, need_weights=True)[1][0]
        x = block(x)
    trunk = towers.run_trunk(small_clip, inputs)
    assert_close(trunk.attention, total, atol=1e-5, rtol=1e-5)
    assert_close(trunk.tokens, x, atol=1e-5, rtol=1e-5)


def test_encoding_pictures(small_clip):
    inputs = pixels(3, 3, 64, 64)
    visual = small_clip.visual
    features = towers.encode_images(small_clip, inputs)
    assert_close(features, F.normalize(visual(inputs), dim=-1))
    rounded = towers.encode_images(small_clip, inputs, half_positions=True)
    assert 0 < (rounded - features).abs().max() < 1e-2
    x, _ = towers.embed_patches(visual, inputs)
    for block in towers.blocks_of(visual)[:-1]:
        x = block(x)
    expected = F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)
    larger = towers.encode_images(small_clip, F.interpolate(inputs, size=(96, 96)))
    assert larger.shape == features.shape and 0 < (larger - features).abs().max() < 1
    skipped = towers.encode_images(small_clip, inputs, skip_last_block=True)
    assert_close(skipped, expected)
    assert (skipped - features).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(4, 4), (1, 1), (4, 19), (7, 2)])
def test_position_tables_of_any_grid(small_clip, grid):
    visual = small_clip.visual
    table = towers.resize_positions(visual, grid)
    assert table.shape == (1 + grid[0] * grid[1], 48)
    assert_close(table[0], visual.positional_embedding[0])
    if grid == (4, 4):
        assert_close(table, visual.positional_embedding.data)
    rounded = towers.resize_positions(visual, grid, half_positions=True)
    assert_close(rounded, table.half().float())


def test_low_precision_weights_keep_the_last_block_in_float32(small_clip):
    inputs = pixels(1, 3, 48, 64)
    clip = copy.deepcopy(small_clip.clip)
    lower_precision(clip.visual, torch.bfloat16, torch.device("cpu"))
    low = ClipModel(clip, small_clip.tokenize)
    trunk, expected = (towers.run_trunk(model, inputs) for model in (low, small_clip))
    assert trunk.tokens.dtype == trunk.attention.dtype == torch.float32
    assert (trunk.tokens - expected.tokens).abs().max() < 0.1
    last = towers.run_last_block(clip.visual, trunk.tokens)
    assert last.feature.dtype == last.target.dtype == torch.float32
    assert towers.blocks_of(clip.visual)[-1].mlp.c_fc.weight.dtype == torch.bfloat16
    squares = pixels(2, 3, 64, 64)
    for skip in (False, True):
        features = towers.encode_images(low, squares, skip_last_block=skip)
        exact = towers.encode_images(small_clip, squares, skip_last_block=skip)
        assert features.dtype == torch.float32
        assert (features - exact).abs().max() < 0.05


@pytest.mark.parametrize(
    ("name", "patch", "embed", "blocks"),
    [("ViT-B-16", 16, 512, 12), ("ViT-L-14", 14, 768, 24)],
)
def test_published_sizes_fit(name, patch, embed, blocks):
    """On the meta device: shapes only, no memory; quick-gelu as OpenAI's weights need it."""
    config = open_clip.get_model_config(f"{name}-quickgelu")
    assert config["quick_gelu"]
    with torch.device("meta"):
        clip = CLIP(
            config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=True
        ).eval()
    model = ClipModel(clip, open_clip.get_tokenizer(f"{name}-quickgelu"), model_set="full")
    assert (model.patch_size, model.image_size) == (patch, 224)
    assert len(towers.blocks_of(model.visual)) == blocks
    assert type(towers.blocks_of(model.visual)[0].mlp.gelu).__name__ == "QuickGELU"
    inputs = torch.zeros(1, 3, 3 * patch, 5 * patch, device="meta")
    trunk = towers.run_trunk(model, inputs, half_positions=True)
    assert trunk.tokens.shape[1] == trunk.attention.shape[0] == 16
    last = towers.run_last_block(model.visual, trunk.tokens)
    assert last.feature.shape == (embed,)
    (gradient,) = torch.autograd.grad(
        last.feature, last.mixed, torch.eye(embed, device="meta")[:4], is_grads_batched=True
    )
    assert last.heads.patch_gradient(gradient).shape == (4, last.target.shape[2])
    squares = torch.zeros(2, 3, 224, 224, device="meta")
    assert towers.encode_images(model, squares, skip_last_block=True).shape == (2, embed)
    tokens = model.tokenize(["a cat"])
    assert tokens.shape == (1, 77)
    assert clip.encode_text(tokens.to("meta")).shape == (1, embed)


def test_other_image_towers_are_refused(small_clip):
    clip = copy.copy(small_clip.clip)
    clip._modules = dict(small_clip.clip._modules)
    clip._modules["visual"] = ModifiedResNet([1, 1, 1, 1], 8, 1, image_size=64, width=4)
    with pytest.raises(ModelUnavailable, match="The image tower of a is ModifiedResNet"):
        ClipModel(clip, small_clip.tokenize, id="a")
    clip._modules["visual"] = copy.deepcopy(small_clip.visual)
    clip._modules["visual"].transformer.resblocks = nn.ModuleList()
    with pytest.raises(ModelUnavailable, match="at least two blocks"):
        ClipModel(clip, small_clip.tokenize)
