"""What RobustSAM adds to SAM's decoder: anti-degradation features and tokens (section 3.2).

Attribute names follow the published checkpoints, odd as they are; classes and comments say what
each part is. Letters: B rows, c channels of a feature map, h x w its size, D the decoder's width.
"""

from __future__ import annotations

from typing import Literal

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

# Statistics of the batch-normalised branch: of each map itself, or the averages of training.
NormStats = Literal["image", "running"]

SLOPE = 0.01  # of the leaky rectifier after both normalisations
CELLS = 4  # the branches are weighed per channel and per cell of a 4 x 4 grid
REDUCTION = 16


class BranchSelector(nn.Module):
    """Attention over two branches, per channel and cell of a 4 x 4 grid; they sum to one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * CELLS**2
        self.fc = nn.Sequential(
            nn.Linear(wide, wide // REDUCTION, bias=False), nn.ReLU(inplace=True)
        )
        self.att_conv1 = nn.Linear(wide // REDUCTION, wide)
        self.att_conv2 = nn.Linear(wide // REDUCTION, wide)

    def forward(self, x: Tensor) -> Tensor:
        """Weight of the first branch (B, c, h, w) from the sum of both."""
        B, c, h, w = x.shape
        hidden = self.fc(F.adaptive_avg_pool2d(x, CELLS).flatten(1))
        # A softmax over two is the sigmoid of their difference.
        weight = (self.att_conv1(hidden) - self.att_conv2(hidden)).sigmoid()
        return F.interpolate(weight.view(B, c, CELLS, CELLS), (h, w), mode="nearest")


class SelectiveNorm(nn.Module):
    """Batch- and instance-normalised branches, merged by attention: (B, c, h, w) -> the same.

    The instance statistics take a picture's style away, degradation with it; the other branch
    keeps what that loses (paper, section 3.2, equations 1 to 3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.selector = BranchSelector(channels)
        self.BN = nn.BatchNorm2d(channels)
        self.IN = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor, norm_stats: NormStats) -> Tensor:
        by_batch = self.conv1(F.leaky_relu(self._batch_norm(x, norm_stats), SLOPE))
        by_instance = self.conv2(F.leaky_relu(instance_norm(x), SLOPE))
        weight = self.selector(by_batch + by_instance)
        return weight * by_batch + (1 - weight) * by_instance

    def _batch_norm(self, x: Tensor, norm_stats: NormStats) -> Tensor:
        """Each row by its own statistics, as the published demo does, or by the running ones.

        In training mode the module's own way: statistics of the batch, which it remembers.
        """
        if norm_stats == "image" and not self.training:
            return instance_norm(x, self.BN.weight, self.BN.bias)
        return self.BN(x)


class ChannelAttention(nn.Module):
    """Squeeze and excitation without a spatial part: (B, c, h, w) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.excitation = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excitation(x.mean(dim=(2, 3)))[:, :, None, None]


class NormCombination(nn.Module):
    """The map beside its selectively normalised self, channels weighed: c -> 2c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.SEMBlock = nn.ModuleDict({"maxpool_conv": nn.ModuleList([SelectiveNorm(channels)])})
        self.channel_attention = ChannelAttention(2 * channels)

    def forward(self, x: Tensor, norm_stats: NormStats) -> Tensor:
        merged = self.selective_norm(x, norm_stats)
        return self.channel_attention(torch.cat([x, merged], dim=1))

    @property
    def selective_norm(self) -> nn.Module:
        return self.get_submodule("SEMBlock.maxpool_conv.0")


class FourierSuppression(nn.Module):
    """Fourier degradation suppression: a 1 x 1 convolution of amplitudes, phases kept.

    Degradation changes amplitudes, structure is in the phases (paper, section 3.2). Half of the
    spectrum is enough for a real map. Always in float32: half-precision transforms are limited
    to powers of two, and phases of small bins would be noise.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft2(x.float())  # (B, c, h, w // 2 + 1)
            amplitude = spectrum.abs()
            # exp(i * phase) without an angle, whose gradient is not a number at zero.
            tiny = torch.finfo(amplitude.dtype).tiny
            direction = torch.where(amplitude > tiny, spectrum / amplitude.clamp(min=tiny), 1)
            amplitude = self.conv_layer(amplitude)
            return torch.fft.irfft2(amplitude * direction, s=x.shape[-2:]).to(x.dtype)


class AntiDegradationFeatures(nn.Module):
    """Anti-degradation mask feature generation (AMFG) with its output layers.

    Args:
        channels: c of the input.
        output_layers: name in the checkpoints and module that brings (B, c, h, w) to the mask
            features' size; run for clear pictures, too.
    """

    def __init__(self, channels: int, output_layers: tuple[str, nn.Sequential]) -> None:
        super().__init__()
        self.dnc_block_combined = NormCombination(channels)
        self.fgm_block = FourierSuppression(2 * channels)
        self.conv_layer = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self._output_name, layers = output_layers
        self.add_module(self._output_name, layers)

    def forward(
        self, x: Tensor, *, clear: bool = False, norm_stats: NormStats = "running"
    ) -> Tensor:
        """Bring (B, c, h, w) to mask features, with the degradation taken out unless ``clear``."""
        if not clear:
            x = self.conv_layer(self.fgm_block(self.dnc_block_combined(x, norm_stats)))
        return self.output_layers(x)

    @property
    def output_layers(self) -> nn.Sequential:
        layers = self.get_submodule(self._output_name)
        assert isinstance(layers, nn.Sequential)
        return layers


class AntiDegradationTokens(nn.Module):
    """Anti-degradation output token generation (AOTG): (B, T, D) -> (B, T, D // d, D).

    Two normalisations without parameters, then one small MLP for each of the d equal chunks of a
    token. The published module cuts a token into as many chunks as there are tokens.
    """

    def __init__(self, width: int, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.mlp = nn.Sequential(
            nn.Linear(width // chunks, width // chunks),
            nn.ReLU(inplace=True),
            nn.Linear(width // chunks, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        width = tokens.shape[-1:]
        tokens = F.layer_norm(F.layer_norm(tokens, width), width)
        return self.mlp(tokens.unflatten(-1, (self.chunks, -1)))


def upsample_layers(channels: int, width: int) -> nn.Sequential:
    """Output layers of an image feature: (B, c, g, g) -> (B, D/8, 4g, 4g)."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, width, 2, stride=2),
        LayerNorm2d(width),
        nn.GELU(),
        nn.ConvTranspose2d(width, width // 8, 2, stride=2),
    )


def mask_layers(channels: int) -> nn.Sequential:
    """Output layers of the decoder's mask feature: (B, D/8, 4g, 4g) -> the same."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        LayerNorm2d(2 * channels),
        nn.GELU(),
        nn.Conv2d(2 * channels, channels, 3, padding=1),
    )


def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Normalise each map of (B, c, h, w) by itself; a map of a single pixel becomes zero.

    As ``F.instance_norm``, which refuses maps of one pixel.
    """
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    x = (x - mean) * torch.rsqrt(variance + 1e-5)
    if weight is not None and bias is not None:
        x = x * weight[:, None, None] + bias[:, None, None]
    return x
