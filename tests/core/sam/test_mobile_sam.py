"""MobileSAM's published layout, and its encoder against timm's TinyViT.

The list of names and shapes below was written from the published modelling code
(ChaoningZhang/MobileSAM, TinyViT as build_sam_vit_t configures it).
"""

import re

import pytest
import torch
from torch import Tensor, nn

from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.sam.mobile_sam import MobileSamEncoder


def conv_norm(name: str, out: int, into: int, kernel: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.c.weight": (out, into, kernel, kernel)}
    shapes |= {f"{name}.bn.{k}": (out,) for k in ("weight", "bias", "running_mean", "running_var")}
    return shapes | {f"{name}.bn.num_batches_tracked": ()}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def published_encoder() -> dict[str, tuple[int, ...]]:
    shapes = conv_norm("patch_embed.seq.0", 32, 3, 3) | conv_norm("patch_embed.seq.2", 64, 32, 3)
    for block in range(2):
        name = f"layers.0.blocks.{block}"
        shapes |= conv_norm(f"{name}.conv1", 256, 64, 1)
        shapes |= conv_norm(f"{name}.conv2", 256, 1, 3)
        shapes |= conv_norm(f"{name}.conv3", 64, 256, 1)
    for stage, (width, wider) in enumerate([(64, 128), (128, 160), (160, 320)]):
        name = f"layers.{stage}.downsample"
        shapes |= conv_norm(f"{name}.conv1", wider, width, 1)
        shapes |= conv_norm(f"{name}.conv2", wider, 1, 3)
        shapes |= conv_norm(f"{name}.conv3", wider, wider, 1)
    stages = [(1, 128, 2, 4, 7), (2, 160, 6, 5, 14), (3, 320, 2, 10, 7)]
    for stage, width, depth, heads, window in stages:
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            shapes |= {f"{name}.attn.attention_biases": (heads, window * window)}
            shapes |= norm(f"{name}.attn.norm", width) | norm(f"{name}.mlp.norm", width)
            shapes |= linear(f"{name}.attn.qkv", 3 * width, width)
            shapes |= linear(f"{name}.attn.proj", width, width)
            shapes |= linear(f"{name}.mlp.fc1", 4 * width, width)
            shapes |= linear(f"{name}.mlp.fc2", width, 4 * width)
            shapes |= conv_norm(f"{name}.local_conv", width, 1, 3)
    shapes |= norm("norm_head", 320) | linear("head", 1000, 320)
    shapes |= {"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return shapes | norm("neck.1", 256) | norm("neck.3", 256)


def test_names_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        sam = build_sam(SamConfig.mobile())
    encoder = {name: tuple(tensor.shape) for name, tensor in sam.image_encoder.state_dict().items()}
    assert encoder == published_encoder()
    assert len(encoder) == 302
    parameters = sum(parameter.numel() for parameter in sam.image_encoder.parameters())
    assert parameters == 6_065_532  # 5.7 M and the unused classifier
    # Prompt encoder and decoder are SAM's own.
    with torch.device("meta"):
        vit = build_sam(SamConfig.vit_b())
    rest = {k: v.shape for k, v in sam.state_dict().items() if not k.startswith("image_encoder.")}
    theirs = {k: v.shape for k, v in vit.state_dict().items() if not k.startswith("image_encoder.")}
    assert rest == theirs


@pytest.fixture(scope="module")
def random_encoder() -> MobileSamEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = MobileSamEncoder(img_size=256)
        for name, tensor in encoder.state_dict().items():
            if "running_var" in name or name.endswith("bn.weight"):
                nn.init.uniform_(tensor, 0.5, 1.5)
            elif tensor.ndim <= 2 and tensor.is_floating_point() and "weight" not in name:
                nn.init.normal_(tensor, std=0.3)
    return encoder.eval().requires_grad_(False)


def test_computes_what_timm_s_tiny_vit_computes(random_encoder):
    """Same weights under timm's names; its last merging step made stride 1, its head left out.

    At 256 px all windows are padded: 32 to 35, and 16 to 28 and 21.
    """
    timm = pytest.importorskip("timm")
    reference = timm.create_model("tiny_vit_5m_224", pretrained=False).eval()
    reference.stages[3].downsample.conv2.conv.stride = (1, 1)
    weights = {
        timm_name(name): tensor
        for name, tensor in random_encoder.state_dict().items()
        if not re.match("neck|head|norm_head", name)
    }
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("head") for name in missing)
    x = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = reference.stages(reference.patch_embed(x))
        expected: Tensor = random_encoder.neck(features)
    got = random_encoder(x)
    assert got.shape == (2, 256, 16, 16)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def timm_name(name: str) -> str:
    name = re.sub(r"^patch_embed\.seq\.0", "patch_embed.conv1", name)
    name = re.sub(r"^patch_embed\.seq\.2", "patch_embed.conv2", name)
    # The published merging step ends a stage, timm's begins the next one.
    name = re.sub(
        r"^layers\.(\d)\.downsample", lambda m: f"stages.{int(m[1]) + 1}.downsample", name
    )
    name = re.sub(r"^layers\.", "stages.", name)
    return re.sub(r"\.c\.", ".conv.", name)
