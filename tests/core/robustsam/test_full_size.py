"""The decoder at published sizes: weights made by a recipe, names and shapes of the checkpoints."""

import re
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from core.errors import ModelUnavailable
from core.models.catalogue import catalogue
from core.robustsam.build import POSITIONS, build_from_entry, build_robust_sam, check_size
from core.robustsam.config import RobustSamConfig
from core.robustsam.decoder import RobustMaskDecoder
from core.sam.config import SamConfig
from core.sam.decoding import decode_masks

SIZES = {"b": SamConfig.vit_b(), "l": SamConfig.vit_l(), "h": SamConfig.vit_h()}
PARAMETERS = {"b": 153_181_204, "l": 412_660_276, "h": 793_879_636}
ADDED = {"b": 59_445_732, "l": 100_317_444, "h": 152_789_028}
KEYS = {"b": 403, "l": 571, "h": 683}
CLOSE = {"rtol": 1e-3, "atol": 1e-3}


def on_meta(size):
    with torch.device("meta"):
        return build_robust_sam(RobustSamConfig.published(SIZES[size]))


@pytest.mark.parametrize("size", SIZES)
def test_counts_are_the_published_ones(size):
    sam = on_meta(size)
    assert sum(p.numel() for p in sam.parameters()) == PARAMETERS[size]
    added = sam.mask_decoder.added_parameters()
    assert len(added) == 89
    parameters = dict(sam.mask_decoder.named_parameters())
    assert sum(v.numel() for k, v in added.items() if k in parameters) == ADDED[size]
    assert len(sam.state_dict()) == KEYS[size]


def expected_shapes(c, prefix, layers):
    """Names and shapes of one AMFG of c channels, written out from the checkpoints' layout."""
    block, norm = "dnc_block_combined", "dnc_block_combined.SEMBlock.maxpool_conv.0"
    excitation = f"{block}.channel_attention.excitation"
    shapes = {
        f"{excitation}.0.weight": (2 * c // 16, 2 * c),
        f"{excitation}.0.bias": (2 * c // 16,),
        f"{excitation}.2.weight": (2 * c, 2 * c // 16),
        f"{excitation}.2.bias": (2 * c,),
        f"{norm}.conv1.weight": (c, c, 3, 3),
        f"{norm}.conv2.weight": (c, c, 3, 3),
        f"{norm}.selector.fc.0.weight": (c, 16 * c),
        f"{norm}.BN.num_batches_tracked": (),
        "fgm_block.conv_layer.weight": (2 * c, 2 * c, 1, 1),
        "fgm_block.conv_layer.bias": (2 * c,),
        "conv_layer.weight": (c, 2 * c, 3, 3),
        "conv_layer.bias": (c,),
    }
    for i in (1, 2):
        shapes[f"{norm}.selector.att_conv{i}.weight"] = (16 * c, c)
        shapes[f"{norm}.selector.att_conv{i}.bias"] = (16 * c,)
    for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{norm}.BN.{name}"] = (c,)
    return {f"{prefix}.{name}": shape for name, shape in {**shapes, **layers}.items()}


def upsampling(c):
    return {
        "upsample_layer.0.weight": (c, 256, 2, 2),
        "upsample_layer.0.bias": (256,),
        "upsample_layer.1.weight": (256,),
        "upsample_layer.1.bias": (256,),
        "upsample_layer.3.weight": (256, 32, 2, 2),
        "upsample_layer.3.bias": (32,),
    }


@pytest.mark.parametrize("size", SIZES)
def test_added_names_and_shapes_are_those_of_the_checkpoints(size):
    early = SIZES[size].embed_dim
    expected = {"custom_robust_token.weight": (4, 256)}
    for i, width in enumerate((256, 256, 32)):
        expected[f"robust_mlp.layers.{i}.weight"] = (width, 256)
        expected[f"robust_mlp.layers.{i}.bias"] = (width,)
    expected |= {
        "custom_token_block.mlp.0.weight": (64, 64),
        "custom_token_block.mlp.0.bias": (64,),
    }
    expected |= {"custom_token_block.mlp.2.weight": (256, 64)}
    expected |= {"custom_token_block.mlp.2.bias": (256,)}
    masks = {
        "downsample_layer.0.weight": (64, 32, 3, 3),
        "downsample_layer.0.bias": (64,),
        "downsample_layer.1.weight": (64,),
        "downsample_layer.1.bias": (64,),
        "downsample_layer.3.weight": (32, 64, 3, 3),
        "downsample_layer.3.bias": (32,),
    }
    expected |= expected_shapes(32, "fourier_mask_features", masks)
    expected |= expected_shapes(256, "fourier_last_layer_features", upsampling(256))
    expected |= expected_shapes(early, "fourier_first_layer_features", upsampling(early))
    added = on_meta(size).mask_decoder.added_parameters()
    assert {name: tuple(value.shape) for name, value in added.items()} == expected


@pytest.mark.parametrize("size", SIZES)
def test_the_catalogues_entries_are_of_the_checkpoints_sizes(size):
    entry = catalogue()[f"robustsam_vit_{size}"]
    state = on_meta(size).state_dict()
    check_size(entry, state)
    assert RobustSamConfig.from_dict({"sam": entry.config["sam"]}).sam == SIZES[size]
    other = catalogue()["robustsam_vit_l" if size == "b" else "robustsam_vit_b"]
    told = f"{other.file_name} is not {other.title}.* as that of ViT-{size.upper()}"
    with pytest.raises(ModelUnavailable, match=told):
        build_from_entry(other, state)


def test_weights_of_another_model_are_refused():
    entry = catalogue()["robustsam_vit_b"]
    with pytest.raises(ModelUnavailable, match="768 wide: it is 48 wide. Get the file"):
        build_from_entry(entry, {POSITIONS: torch.zeros(1, 12, 12, 48)})
    with pytest.raises(ModelUnavailable, match="robustsam_checkpoint_b.pth is not RobustSAM ViT-B"):
        build_from_entry(entry, {})


def draw(name, shape, seed):
    state = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    return state.uniform(-1, 1, shape).astype(np.float32)


def recipe(name, shape, seed):
    """The golden file's weights: everything by its name."""
    u = draw(name, shape, seed)
    if name.endswith("running_var"):
        return 1 + np.float32(0.5) * u
    if name.endswith("running_mean"):
        return np.float32(0.2) * u
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if re.search(r"(iou_token|mask_tokens|custom_robust_token)\.weight$", name):
        return u
    if name.endswith(".bias"):
        return np.float32(0.1) * u
    if len(shape) == 1:
        return 1 + np.float32(0.2) * u
    return u * np.float32(np.sqrt(3 / np.prod(shape[1:])))


@pytest.fixture(scope="module")
def full_group(golden):
    return next(name.split("/")[0] for name in golden if re.match(r"vit[blh]_full/", name))


@pytest.fixture(scope="module")
def full(golden, full_group):
    """Decoder and inputs at published size."""
    seed = int(golden[f"{full_group}/seed"])
    config = SIZES[full_group[3]]
    with torch.device("meta"):
        decoder = build_robust_sam(RobustSamConfig.published(config)).mask_decoder
    decoder = decoder.to_empty(device="cpu").eval().requires_grad_(False)
    state = {k: recipe(k, tuple(v.shape), seed) for k, v in decoder.state_dict().items()}
    checksum = sum(np.abs(value.astype(np.float64)).sum() for value in state.values())
    assert_allclose(checksum, golden[f"{full_group}/checksum_weights"], rtol=1e-9)
    decoder.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in state.items()})
    shapes = {
        "image_embeddings": (1, 256, 64, 64),
        "image_pe": (1, 256, 64, 64),
        "sparse": (1, 5, 256),
        "dense": (1, 256, 64, 64),
        "early": (1, 64, 64, config.embed_dim),
    }
    inputs = {k: torch.from_numpy(draw(f"input.{k}", s, seed)) for k, s in shapes.items()}
    inputs["dense"] *= 0.1
    inputs["early"] = inputs["early"].permute(0, 3, 1, 2)
    return decoder, inputs


@torch.no_grad()
def run(decoder: RobustMaskDecoder, inputs, norm_stats):
    decoder.norm_stats = norm_stats
    seen = {}
    names = {
        "early_s16": "fourier_first_layer_features",
        "final_s16": "fourier_last_layer_features",
        "maskf_s16": "fourier_mask_features",
    }
    handles = [
        decoder.get_submodule(path).register_forward_hook(
            partial(lambda key, module, args, output: seen.update({key: output}), key)
        )
        for key, path in names.items()
    ]
    output = decoder.decode_robust(
        image_embeddings=inputs["image_embeddings"],
        image_features=decoder.image_features(inputs["early"], inputs["image_embeddings"]),
        image_pe=inputs["image_pe"],
        sparse_prompt_embeddings=inputs["sparse"],
        dense_prompt_embeddings=inputs["dense"],
    )
    for handle in handles:
        handle.remove()
    return output, {key: value[..., ::16, ::16] for key, value in seen.items()}


@pytest.mark.parametrize("group, norm_stats", [("bn_running", "running"), ("bn_batch", "image")])
def test_the_robust_path_at_published_size(golden, full_group, full, group, norm_stats):
    decoder, inputs = full
    output, features = run(decoder, inputs, norm_stats)
    expected = {
        name.rsplit("/", 1)[1]: value
        for name, value in golden.items()
        if name.startswith(f"{full_group}/{group}/")
    }
    assert_allclose(output.low_res_logits[:, :1, ::4, ::4], expected["mask0_logits_s4"], **CLOSE)
    assert_allclose(output.iou_predictions[:, :1], expected["iou0"], **CLOSE)
    assert_allclose(output.tokens, expected["robust_token"], **CLOSE)
    fused = output.mask_features[..., ::16, ::16]
    assert_allclose(fused, expected["robust_embedding_s16"], **CLOSE)
    for name, value in features.items():
        assert_allclose(value, expected[name], err_msg=name, **CLOSE)
    rows = decoder.custom_token_block(output.tokens)[0]
    assert_allclose(rows, expected["aotg_tokens"], **CLOSE)
    assert_allclose(decoder.robust_mlp(rows), expected["robust_hyper"], **CLOSE)


@torch.no_grad()
def test_the_clear_path_at_published_size(golden, full_group, full):
    decoder, inputs = full
    logits, iou = decode_masks(
        decoder,
        image_embeddings=inputs["image_embeddings"],
        image_pe=inputs["image_pe"],
        sparse_prompt_embeddings=inputs["sparse"],
        dense_prompt_embeddings=inputs["dense"],
    )
    part = f"{full_group}/clear"
    assert_allclose(logits[:, 1:, ::8, ::8], golden[f"{part}/masks123_s8"], **CLOSE)
    assert_allclose(iou[:, 1:], golden[f"{part}/iou123"], **CLOSE)
