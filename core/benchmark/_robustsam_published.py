"""RobustSAM in the published code's steps: what the benchmark of it compares with.

Written from the paper and a description of the released code, apart from ``core.robustsam``, whose
modules it only reads the weights of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor
from torch.nn import functional as F

from core.robustsam.decoder import RobustMaskDecoder
from core.robustsam.modules import SLOPE, AntiDegradationFeatures, NormStats
from core.sam.geometry import Geometry

Image = NDArray[np.uint8]


class PublishedPath:
    """RobustSAM as the published code computes it, on the modules of a RobustSAM of ours."""

    def __init__(self, sam: Sam) -> None:
        self.sam = sam
        self.decoder: RobustMaskDecoder = sam.mask_decoder

    def encode(self, image: Image) -> tuple[Tensor, Tensor, Geometry]:
        """The embedding (1, D, g, g) and the early feature (1, C, g, g) of a picture."""
        encoder = self.sam.image_encoder
        geometry = Geometry.of((image.shape[0], image.shape[1]), encoder.img_size)
        pixels = torch.from_numpy(geometry.resize(image)).to(self.sam.pixel_mean.device)
        pixels = self.sam.preprocess(pixels.permute(2, 0, 1).float())[None]
        if not isinstance(encoder, ImageEncoderViT):
            return *encoder.forward_features(pixels), geometry
        seen: list[Tensor] = []
        first = next(block for block in encoder.blocks if block.window_size == 0)
        handle = first.register_forward_hook(lambda module, args, output: seen.append(output))
        embedding = encoder(pixels)
        handle.remove()
        return embedding, seen[0].permute(0, 3, 1, 2), geometry

    def predict(
        self, embedding: Tensor, early: Tensor, geometry: Geometry, point: NDArray[np.float32]
    ) -> Tensor:
        """Low-res logits (1, 1, 4g, 4g) of one click (2,) as x, y, brought to the full size too."""
        coords = torch.from_numpy(geometry.to_input(point[None, None])).to(embedding.device)
        labels = torch.ones(1, 1, device=embedding.device)
        sparse, dense = self.sam.prompt_encoder((coords, labels), None, None)
        logits = self.decode(embedding, early, sparse, dense)[:, :1]
        full = self.sam.postprocess_masks(logits, geometry.input_size, geometry.original_size)
        full.gt(0).cpu()
        return logits

    def decode(self, embedding: Tensor, early: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        """All sixteen masks (1, 16, 4g, 4g) of one prompt; channel = 4 * chunk + token."""
        decoder, stats = self.decoder, self.decoder.norm_stats
        early = early[:, : decoder.early_dim].contiguous()
        image_features = published_features(
            decoder.fourier_first_layer_features, early, stats
        ) + published_features(
            decoder.fourier_last_layer_features, embedding[:, : decoder.last_dim], stats
        )
        tokens = torch.cat([decoder.iou_token.weight, decoder.custom_robust_token.weight])
        tokens = torch.cat([tokens[None], sparse], dim=1)
        hidden, src = decoder.transformer(
            embedding + dense, self.sam.prompt_encoder.get_dense_pe(), tokens
        )
        src = src.transpose(1, 2).reshape(embedding.shape)
        features = published_features(
            decoder.fourier_mask_features, decoder.output_upscaling(src), stats
        )
        features = features + image_features
        weights = torch.stack(
            [published_weights(decoder, hidden[:, 1 + token]) for token in range(4)], dim=1
        )  # (4 chunks, 4 tokens, D/8)
        return (weights.flatten(0, 1) @ features.flatten(2)).view(1, 16, *features.shape[-2:])


def published_features(block: AntiDegradationFeatures, x: Tensor, norm_stats: NormStats) -> Tensor:
    """AMFG and its output layers of one map (1, c, h, w), step by step."""
    combination = block.dnc_block_combined
    merged = published_selection(
        combination.get_submodule("SEMBlock.maxpool_conv.0"), x, norm_stats
    )
    x = torch.cat([x, merged], dim=1)
    excitation = combination.get_submodule("channel_attention.excitation")
    x = x * excitation(F.adaptive_avg_pool2d(x, 1).flatten(1)).view(1, -1, 1, 1)
    spectrum = torch.fft.fft2(x)
    amplitude, phase = torch.abs(spectrum), torch.angle(spectrum)
    amplitude = block.get_submodule("fgm_block.conv_layer")(amplitude)
    x = torch.fft.ifft2(amplitude * torch.exp(1j * phase)).real
    return block.output_layers(block.conv_layer(x))


def published_selection(norm: Any, x: Tensor, norm_stats: NormStats) -> Tensor:
    """Both normalised branches and their softmax in 4 x 4 cells: (1, c, h, w) -> the same."""
    bn, selector = norm.BN, norm.selector
    mean, variance = (None, None) if norm_stats == "image" else (bn.running_mean, bn.running_var)
    by_batch = F.batch_norm(
        x, mean, variance, bn.weight, bn.bias, training=norm_stats == "image", eps=bn.eps
    )
    branches = torch.stack(
        [
            norm.conv1(F.leaky_relu(by_batch, SLOPE)),
            norm.conv2(F.leaky_relu(F.instance_norm(x), SLOPE)),
        ]
    )
    hidden = selector.fc(F.adaptive_avg_pool2d(branches.sum(0), 4).flatten(1))
    cells = torch.stack([selector.att_conv1(hidden), selector.att_conv2(hidden)]).softmax(dim=0)
    cells = cells.view(2, x.shape[1], 4, 4)
    return (F.interpolate(cells, x.shape[-2:], mode="nearest")[:, None] * branches).sum(0)


def published_weights(decoder: RobustMaskDecoder, token: Tensor) -> Tensor:
    """AOTG and the hypernetwork of one token (1, D): mask weights of its four chunks (4, D/8)."""
    mean, variance = token.mean(), token.var(correction=0)
    token = (token - mean) / torch.sqrt(variance + 1e-5)
    token = (token - token.mean()) / torch.sqrt(token.var(correction=0) + 1e-5)
    return decoder.robust_mlp(decoder.custom_token_block.mlp(token.view(4, -1)))
