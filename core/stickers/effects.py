"""What light and cameras do to a scene, on batches of tensors.

Pictures are float (B, 3, H, W) in [0, 1]. Every function takes its random numbers as tensors
drawn by the caller, so that a seed gives the same scene on a CPU and on a GPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# RGB <-> YIQ: hue is a rotation of (I, Q), saturation their length.
RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
YIQ_TO_RGB = torch.linalg.inv(RGB_TO_YIQ)
LUMINANCE_TABLE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)


def colour_matrix(hue: Tensor, saturation: Tensor, gain: Tensor) -> Tensor:
    """Build (B, 3, 3) RGB matrices from hue turns (radians), saturation and gain factors (B,)."""
    cos, sin = saturation * hue.cos(), saturation * hue.sin()
    zero, one = torch.zeros_like(hue), torch.ones_like(hue)
    rotation = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    to_yiq, to_rgb = RGB_TO_YIQ.to(hue), YIQ_TO_RGB.to(hue)
    return gain.view(-1, 1, 1) * (to_rgb @ rotation @ to_yiq)


def apply_colour(rgb: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every pixel of (B, 3, H, W) by its picture's (3, 3) matrix."""
    return torch.einsum("bij,bjhw->bihw", matrix, rgb)


def light_ramp(height: int, width: int, angle: Tensor, strength: Tensor) -> Tensor:
    """Return a linear falloff (B, 1, H, W) around 1 along ``angle`` (B,), +-strength (B,)."""
    y = torch.linspace(-1, 1, height, device=angle.device).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width, device=angle.device).view(1, 1, 1, -1)
    angle, strength = angle.view(-1, 1, 1, 1), strength.view(-1, 1, 1, 1)
    return 1 + strength * (angle.cos() * x + angle.sin() * y) / math.sqrt(2)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (B, C, H, W) with one separable Gaussian, edges replicated."""
    radius = max(1, math.ceil(2.5 * sigma))
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).repeat(x.shape[1], 1, 1, 1)
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, kernel, groups=x.shape[1])
    return F.conv2d(x, kernel.transpose(2, 3), groups=x.shape[1])


def soft_shadow(alpha: Tensor, margin: int) -> Tensor:
    """Spread an alpha (H, W) over ``margin`` more pixels on each side: a penumbra.

    Worked out at a quarter of the margin's resolution: shadows have no detail.
    """
    padded = F.pad(alpha, (margin,) * 4)[None, None]
    coarse = max(1, padded.shape[-1] * 4 // margin // 3)
    small = F.adaptive_avg_pool2d(padded, coarse)
    small = F.avg_pool2d(small, 3, stride=1, padding=1)
    return F.interpolate(small, padded.shape[-2:], mode="bilinear", align_corners=False)[0, 0]


def jpeg(rgb: Tensor, quality: int) -> Tensor:
    """Quantise 8x8 blocks of (B, 3, H, W), H and W multiples of 8, as JPEG at ``quality`` does.

    Chroma keeps its resolution and uses the luminance table; what remains are the blocks and
    the ringing that a model has to see through.
    """
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = ((LUMINANCE_TABLE * scale + 50) / 100).floor().clamp(1, 255).to(rgb) / 255
    k = torch.arange(8, device=rgb.device, dtype=rgb.dtype)
    dct = torch.cos((2 * k.view(1, -1) + 1) * k.view(-1, 1) * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    yiq = torch.einsum("ij,bjhw->bihw", RGB_TO_YIQ.to(rgb), rgb)
    blocks = yiq.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, H/8, W/8, 8, 8)
    coefficients = dct @ blocks @ dct.T
    blocks = dct.T @ ((coefficients / table).round() * table) @ dct
    yiq = blocks.transpose(3, 4).reshape(rgb.shape)
    return torch.einsum("ij,bjhw->bihw", YIQ_TO_RGB.to(rgb), yiq)
