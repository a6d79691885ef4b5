"""PixelLM put together: image tower, projectors, language model, codebook, pixel decoder.

The network keeps nothing of a visitor: a picture goes in and ``PictureFeatures`` come out, which
serve any number of questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn

from core.pixellm.codebook import IMAGE_TOKEN, Fusion
from core.pixellm.config import LanguageConfig, PixelLMConfig
from core.pixellm.decoder import MultiScaleMaskDecoder, fuse_masks, image_feature_neck
from core.pixellm.preprocessing import Geometry, llm_image_mask
from core.pixellm.vision import VisionTower, halve_grid, projector

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, eq=False)
class PictureFeatures:
    """Everything that depends on a picture alone.

    Args:
        image_tokens: ((g/2)², D), what the language model sees of it.
        token_mask: bool ((g/2)²,), False on padding.
        decoder_features: (1, C, 2^l·g, 2^l·g) for each scale.
        geometry: how it lies in the input.
    """

    image_tokens: Tensor
    token_mask: Tensor
    decoder_features: tuple[Tensor, ...]
    geometry: Geometry

    @property
    def nbytes(self) -> int:
        """Memory of all of it, for ``EmbeddingCache``."""
        tensors = (self.image_tokens, self.token_mask, *self.decoder_features)
        return sum(one.numel() * one.element_size() for one in tensors)


class PixelLM(nn.Module):
    """The network; but for ``vision_tower`` and ``language_model`` its parts are named as in the
    published checkpoints, without their "model."."""

    def __init__(self, config: PixelLMConfig) -> None:
        super().__init__()
        self.config = config
        vision, width = config.vision, config.decoder.hidden_size
        language_dim = config.language.hidden_size
        self.vision_tower = VisionTower(vision)
        self.language_model = build_language_model(config.language)
        self.mm_projector = projector(vision.hidden_size, language_dim)
        self.out_mm_projector = projector(vision.hidden_size, language_dim)
        self.text_hidden_fcs = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(language_dim, language_dim),
                    nn.ReLU(),
                    nn.Linear(language_dim, width),
                )
            ]
        )
        self.image_feature_neck = image_feature_neck(language_dim, width)
        self.prompt_encoder = PromptEncoder(
            embed_dim=width,
            image_embedding_size=(vision.grid_size, vision.grid_size),
            input_image_size=(vision.image_size, vision.image_size),
            mask_in_chans=config.decoder.mask_in_chans,
        )
        self.mask_decoder = MultiScaleMaskDecoder(config.decoder, config.scales)
        self.fusion = Fusion(config)

    @property
    def device(self) -> torch.device:
        return self.prompt_encoder.no_mask_embed.weight.device

    def encode_picture(self, pixels: Tensor, geometry: Geometry) -> PictureFeatures:
        """Encode one picture (1, 3, S, S): once for a whole conversation."""
        patch_mask = geometry.patch_mask(self.config.vision.patch_size).to(self.device)[None]
        features = self.vision_tower(pixels.to(self.device), patch_mask)
        return PictureFeatures(
            image_tokens=self.project_to_words(features[0])[0],
            token_mask=llm_image_mask(patch_mask).flatten(),
            decoder_features=tuple(self.decoder_features(self.project_to_masks(features))),
            geometry=geometry,
        )

    def project_to_words(self, deep: Tensor) -> Tensor:
        """Image tokens (B, (g/2)², D) from deep features (B, g·g, C_v)."""
        return self.mm_projector(_as_weights(halve_grid(deep), self.mm_projector))

    def project_to_masks(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features (B, g·g, C_v) of each scale at the language model's width, (B, g·g, D)."""
        return [self.out_mm_projector(_as_weights(one, self.out_mm_projector)) for one in features]

    def decoder_features(self, projected: Sequence[Tensor]) -> list[Tensor]:
        """Projected features (B, g·g, D) of each scale as the decoder takes them, in float32."""
        side = self.config.vision.grid_size
        grids = (one.float().transpose(1, 2).unflatten(2, (side, side)) for one in projected)
        return self.mask_decoder.upsample([self.image_feature_neck(grid) for grid in grids])

    def embed(self, ids: Sequence[int], image_tokens: Tensor) -> Tensor:
        """Embed token ids, the picture in the place of ``IMAGE_TOKEN``; (T, D)."""
        words = self.language_model.model.embed_tokens
        parts: list[Tensor] = []
        start = 0
        for end in [*(i for i, token in enumerate(ids) if token == IMAGE_TOKEN), len(ids)]:
            if end > start:
                piece = torch.tensor(list(ids[start:end]), device=self.device)
                parts.append(words(piece))
            if end < len(ids):
                parts.append(image_tokens.to(words.weight.dtype))
            start = end + 1
        return torch.cat(parts)

    def token_logits(self, states: Tensor) -> Tensor:
        """Scores of the next token, (..., V), from hidden states (..., D)."""
        head = self.language_model.lm_head
        return head(_as_weights(states, head)).float()

    def codebook_vectors(self, states: Tensor) -> Tensor:
        """Bring states (K, L·N, D) of codebook tokens to the decoder's width, (K, L, N, C)."""
        vectors = self.text_hidden_fcs[0](states.float())
        return vectors.unflatten(1, (self.config.scales, self.config.tokens_per_scale))

    def prompts(self, states: Tensor) -> Tensor:
        """The pixel decoder's prompts, one for each scale, (K, L, C), from states (K, L·N, D)."""
        return self.fusion.fuse_tokens(self.codebook_vectors(states))

    def scale_logits(self, states: Tensor, decoder_features: Sequence[Tensor]) -> list[Tensor]:
        """Mask logits (K, 1, h_l, w_l) of each scale for states (K, L·N, D).

        Args:
            decoder_features: of one picture (1, …), or a row for each target (K, …).
        """
        return self._scale_logits(self.prompts(states), decoder_features)

    def decode(self, states: Tensor, decoder_features: Sequence[Tensor]) -> Tensor:
        """Fused mask logits (K, h, w) of targets; arguments as of ``scale_logits``."""
        return self.decode_prompts(self.prompts(states), decoder_features)

    def decode_prompts(self, prompts: Tensor, decoder_features: Sequence[Tensor]) -> Tensor:
        """As ``decode``, from prompts (K, L, C)."""
        masks = self._scale_logits(prompts, decoder_features)
        return fuse_masks(masks, self.fusion.scale_weights(self.device))

    def _scale_logits(self, prompts: Tensor, decoder_features: Sequence[Tensor]) -> list[Tensor]:
        return self.mask_decoder(
            decoder_features,
            prompts,
            self.prompt_encoder.get_dense_pe(),
            self.prompt_encoder.no_mask_embed.weight,
        )


def build_language_model(config: LanguageConfig) -> LlamaForCausalLM:
    """transformers' LlamaForCausalLM, freshly initialised."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_key_value_heads,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )


def _as_weights(values: Tensor, module: nn.Module) -> Tensor:
    """Bring values to the precision of a module's weights."""
    return values.to(next(module.parameters()).dtype)
