"""Where RobustSAM's training begins: at a robust path that nearly is SAM's own.

From random parameters its losses would take hours to reach what SAM has; so the added layers
begin as the identity, and the one part that cannot, AOTG, first learns SAM's masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from core.robustsam.decoder import RobustMaskDecoder
from core.robustsam.modules import AntiDegradationFeatures
from core.sam.decoding import run_transformer
from core.stickers.scenes import SceneGenerator, Scenes
from core.training import prompting
from core.training.robust_pairs import encode


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Sizes of the beginning.

    Args:
        token_scenes, token_steps: of the warm-up, in which AOTG learns SAM's own masks.
        feature_size: of the mask features; the feature loss counts in its square.
    """

    token_scenes: int = 480
    token_steps: int = 1500
    feature_size: float = 0.1


def begin(sam: Sam, base: dict[str, Tensor], config: StartConfig) -> dict[str, Tensor]:
    """Added parameters to begin with, at the size of the base's features on plain noise."""
    decoder = sam.mask_decoder
    sam.load_state_dict(base, strict=False)
    with torch.no_grad():
        noise = torch.rand(2, 3, *sam.prompt_encoder.input_image_size) * 255
        upscaled = decoder.output_upscaling(encode(sam, noise).embedding)
    rms = float(upscaled.square().mean().sqrt())
    start_as_sam(decoder, feature_size=config.feature_size, upscaled_rms=rms)
    return decoder.added_parameters()


@torch.no_grad()
def start_as_sam(decoder: RobustMaskDecoder, *, feature_size: float, upscaled_rms: float) -> None:
    """Initialise the added parameters so that the masks' features begin as SAM's own.

    AMFG begins as the identity, the picture's features add nothing, and the output layers keep
    the direction of each pixel's vector: GELU(x) - GELU(-x) = x. Only AOTG is left to learn,
    which sees a quarter of a token.

    Args:
        feature_size: root mean square of the fused features.
        upscaled_rms: the same of SAM's own features, for logits of SAM's size.
    """
    decoder.custom_robust_token.weight.copy_(decoder.mask_tokens.weight)
    sams_mlp = decoder.output_hypernetworks_mlps[0]
    decoder.robust_mlp.load_state_dict(sams_mlp.state_dict())
    last = decoder.robust_mlp.layers[-1]
    last.weight.mul_(upscaled_rms / feature_size)
    last.bias.mul_(upscaled_rms / feature_size)
    for block in (decoder.fourier_first_layer_features, decoder.fourier_last_layer_features):
        _start_as_identity(block)
        last_conv = block.output_layers[-1]
        assert isinstance(last_conv, nn.ConvTranspose2d) and last_conv.bias is not None
        nn.init.zeros_(last_conv.weight)
        nn.init.zeros_(last_conv.bias)
    _start_as_identity(decoder.fourier_mask_features)
    widen, _, _, narrow = decoder.fourier_mask_features.output_layers
    identity = torch.eye(decoder.transformer_dim // 8)
    _set_centre(widen, torch.cat([identity, -identity]))
    _set_centre(narrow, feature_size * torch.cat([identity, -identity], dim=1))


def _start_as_identity(block: AntiDegradationFeatures) -> None:
    excite = block.dnc_block_combined.channel_attention.excitation[2]
    assert isinstance(excite, nn.Linear)
    nn.init.zeros_(excite.weight)
    nn.init.zeros_(excite.bias)  # each channel at one half
    channels = block.conv_layer.out_channels
    _set_centre(block.fgm_block.conv_layer, torch.eye(2 * channels))
    keep = torch.cat([torch.eye(channels), torch.zeros(channels, channels)], dim=1)
    _set_centre(block.conv_layer, 2 * keep)


def _set_centre(conv: nn.Module, weight: Tensor) -> None:
    """Make a convolution one of the central pixel alone."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    height, width = conv.kernel_size
    conv.weight[:, :, height // 2, width // 2] = weight


def learn_tokens(sam: Sam, generator: SceneGenerator, config: StartConfig, seed: int) -> None:
    """Let AOTG and the robust MLP give the masks that SAM gives clear pictures.

    The one part of the robust path that cannot begin as SAM's own: it sees a quarter of a token.
    """
    decoder = sam.mask_decoder
    random = torch.Generator().manual_seed(seed + 2)
    batches = [
        _sams_masks(sam, generator.batch(16), random) for _ in range(config.token_scenes // 16)
    ]
    tokens, features, truth = (torch.cat(parts) for parts in zip(*batches, strict=True))
    learner = nn.ModuleList([decoder.custom_token_block, decoder.robust_mlp])
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.token_steps)
    for _ in range(config.token_steps):
        rows = torch.randint(len(tokens), (128,), generator=random).to(tokens.device)
        logits = torch.einsum(
            "btc,bchw->bthw", decoder.hyper_weights(tokens[rows])[0], features[rows].float()
        )
        loss = F.binary_cross_entropy_with_logits(logits, truth[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _sams_masks(sam: Sam, scenes: Scenes, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """SAM's tokens (B, 4, D), their features as the robust path begins, and SAM's masks.

    Features (B, D/8, 2g, 2g) and masks (B, 4, 2g, 2g) at every second pixel.
    """
    decoder, encoded = sam.mask_decoder, encode(sam, scenes.images)
    targets = prompting.choose_targets(scenes, 4, random)
    sparse, dense = prompting.embed_prompts(sam, *prompting.first_prompts(targets.masks, random))
    hidden, src = run_transformer(
        decoder,
        decoder.mask_tokens.weight,
        image_embeddings=encoded.embedding[targets.scene],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    tokens, upscaled = hidden[:, 1 : 1 + decoder.num_mask_tokens], decoder.output_upscaling(src)
    mlps = decoder.output_hypernetworks_mlps
    weights = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(mlps)], dim=1)
    upscaled = upscaled[..., ::2, ::2]
    features = decoder.fourier_mask_features(upscaled, clear=True)
    return tokens, features.half(), torch.einsum("btc,bchw->bthw", weights, upscaled) > 0
