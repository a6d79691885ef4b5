"""Published ViT-B/L/H: every name and shape, on the meta device."""

from dataclasses import asdict, replace

import pytest
import torch

from core.errors import ModelUnavailable
from core.models.catalogue import Entry, catalogue
from core.sam.build import build_from_entry, build_sam
from core.sam.config import SamConfig

MODELS = {
    "sam_vit_b": (SamConfig.vit_b(), 768, 12, 64, (2, 5, 8, 11), 314, 89_670_912),
    "sam_vit_l": (SamConfig.vit_l(), 1024, 24, 64, (5, 11, 17, 23), 482, 308_278_272),
    "sam_vit_h": (SamConfig.vit_h(), 1280, 32, 80, (7, 15, 23, 31), 594, 637_026_048),
}
PROMPTS_AND_DECODER = 4_064_816  # parameters and the Gaussian matrix; the same in all three


def encoder_shapes(width: int, depth: int, head_dim: int, global_blocks: tuple[int, ...]):
    """Names and shapes of the published checkpoints' encoders (sam.md, section 4)."""
    yield "pos_embed", (1, 64, 64, width)
    yield "patch_embed.proj.weight", (width, 3, 16, 16)
    yield "patch_embed.proj.bias", (width,)
    for i in range(depth):
        rows = 2 * (64 if i in global_blocks else 14) - 1
        for axis in "hw":
            yield f"blocks.{i}.attn.rel_pos_{axis}", (rows, head_dim)
        for norm in ("norm1", "norm2"):
            yield f"blocks.{i}.{norm}.weight", (width,)
            yield f"blocks.{i}.{norm}.bias", (width,)
        for layer, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.lin1", 4 * width, width),
            ("mlp.lin2", width, 4 * width),
        ):
            yield f"blocks.{i}.{layer}.weight", (out, into)
            yield f"blocks.{i}.{layer}.bias", (out,)
    yield "neck.0.weight", (256, width, 1, 1)
    yield "neck.2.weight", (256, 256, 3, 3)
    for i in (1, 3):
        yield f"neck.{i}.weight", (256,)
        yield f"neck.{i}.bias", (256,)


@pytest.mark.parametrize("model", MODELS)
def test_published_names_and_shapes(model):
    config, width, depth, head_dim, global_blocks, entries, parameters = MODELS[model]
    with torch.device("meta"):
        sam = build_sam(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}
    encoder = {
        name.removeprefix("image_encoder."): shape
        for name, shape in shapes.items()
        if name.startswith("image_encoder.")
    }
    assert encoder == dict(encoder_shapes(width, depth, head_dim, global_blocks))
    assert len(shapes) == entries
    assert sum(p.numel() for p in sam.image_encoder.parameters()) == parameters
    rest = sum(t.numel() for n, t in sam.state_dict().items() if not n.startswith("image_encoder."))
    assert rest == PROMPTS_AND_DECODER
    assert not any(name.startswith("pixel") for name in shapes)


@pytest.mark.parametrize("model", MODELS)
def test_the_catalogue_builds_these_sizes(model):
    assert SamConfig.from_dict(catalogue()[model].config) == MODELS[model][0]


@pytest.mark.parametrize("model", MODELS)
def test_sizes_agree_with_the_package_s_registry(model):
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        theirs = sam_model_registry[model.removeprefix("sam_")]()
        ours = build_sam(MODELS[model][0])
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


@pytest.fixture
def tiny() -> tuple[Entry, dict[str, torch.Tensor]]:
    """A checkpoint in the published layout, small enough for a test."""
    config = SamConfig(
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
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state_dict = build_sam(config).state_dict()
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    return replace(catalogue()["sam_vit_b"], id="tiny", config=values), state_dict


def test_weights_are_filled_in(tiny):
    entry, state_dict = tiny
    sam = build_from_entry(entry, state_dict)
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in sam.state_dict().items())
    assert not sam.training
    assert not any(parameter.requires_grad for parameter in sam.parameters())
    assert sam.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert torch.isfinite(sam.image_encoder(torch.zeros(1, 3, 64, 64))).all()


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_a_checkpoint_that_does_not_fit_is_named(tiny, change):
    entry, state_dict = tiny
    key = "mask_decoder.iou_token.weight"
    if change == "missing":
        del state_dict[key]
    elif change == "unexpected":
        state_dict["mask_decoder.other"] = torch.zeros(1)
    else:
        state_dict[key] = torch.zeros(2, 32)
    with pytest.raises(ModelUnavailable, match="tiny"):
        build_from_entry(entry, state_dict)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="no_such"):
        SamConfig.from_dict({"no_such": 1})
