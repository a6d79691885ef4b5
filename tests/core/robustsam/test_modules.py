"""The modules where pictures are awkward: nothing varies, nothing is there, one pixel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.robustsam.modules import (
    AntiDegradationFeatures,
    AntiDegradationTokens,
    FourierSuppression,
    instance_norm,
    mask_layers,
)


def features(channels=8):
    torch.manual_seed(0)
    return AntiDegradationFeatures(channels, ("downsample_layer", mask_layers(channels))).eval()


@pytest.mark.parametrize("norm_stats", ["image", "running"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-30])
def test_constant_maps_give_numbers(norm_stats, value):
    out = features()(torch.full((2, 8, 12, 10), value), norm_stats=norm_stats)
    assert out.shape == (2, 8, 12, 10) and torch.isfinite(out).all()


def test_gradients_of_a_constant_map_are_numbers():
    block = features().train()
    x = torch.zeros(1, 8, 8, 8, requires_grad=True)
    block(x).square().sum().backward()
    gradients = [p.grad for p in block.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in [*gradients, x.grad])


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 13), width=st.integers(1, 13), seed=st.integers(0, 99))
def test_half_of_the_spectrum_is_enough(height, width, seed):
    torch.manual_seed(seed)
    block = FourierSuppression(4)
    x = torch.randn(2, 4, height, width)
    spectrum = torch.fft.fft2(x)
    phase = torch.exp(1j * spectrum.angle())
    expected = torch.fft.ifft2(block.conv_layer(spectrum.abs()) * phase).real
    torch.testing.assert_close(block(x), expected, rtol=1e-3, atol=1e-4)


def test_clear_maps_pass_the_output_layers_only():
    block, x = features(), torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block(x, clear=True), block.output_layers(x))
    assert not torch.allclose(block(x), block(x, clear=True))


def test_image_statistics_never_touch_the_buffers():
    block = features()
    before = {k: v.clone() for k, v in block.named_buffers()}
    first = block(torch.randn(3, 8, 9, 9), norm_stats="image")
    assert all(torch.equal(before[k], v) for k, v in block.named_buffers())
    assert first.shape == (3, 8, 9, 9)


def test_instance_norm_equals_torchs():
    x = torch.randn(2, 5, 7, 4)
    weight, bias = torch.randn(5), torch.randn(5)
    expected = torch.nn.functional.instance_norm(x, weight=weight, bias=bias)
    torch.testing.assert_close(instance_norm(x, weight, bias), expected)
    assert (instance_norm(torch.randn(1, 3, 1, 1)) == 0).all()


def test_token_rows_do_not_see_each_other():
    block = AntiDegradationTokens(32, 4)
    tokens = torch.randn(2, 3, 32)
    together = block(tokens)
    assert together.shape == (2, 3, 4, 32)
    torch.testing.assert_close(block(tokens[:1, 1:2])[0, 0], together[0, 1])
    assert torch.isfinite(block(torch.zeros(1, 4, 32))).all()
