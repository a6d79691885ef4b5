"""Sizes of every PixelLM in the suite, and what the published weights need otherwise.

Letters: S side of the input, g = S / patch the feature grid, L scales, N codebook tokens a scale,
C width of the pixel decoder, D width of the language model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

PositionTable = Literal["correct", "reference"]

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.3231630)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The CLIP image tower; the defaults are those of ViT-L/14 as PixelLM runs it.

    Args:
        image_size: side S of the square input, px; a multiple of twice the patch.
        trained_size: input side that published tower weights come with; their position table is
            resized from its grid.
        position_table: how. "reference" takes the last row for the class token's, which is a bug
            that the published PixelLM was trained with; "correct" keeps the first row apart.
        feature_layers: which hidden states are the L scales, deepest first; index k is the
            output of block k, negative ones count from the last block's.
        activation: transformers' name of the blocks' activation; "gelu" is the exact one.
    """

    image_size: int = 448
    patch_size: int = 14
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_layers: int = 24
    num_heads: int = 16
    trained_size: int = 336
    position_table: PositionTable = "correct"
    feature_layers: tuple[int, ...] = (-2, -11)
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"image_size is {self.image_size}; it must be a multiple of {2 * self.patch_size}"
            )
        for layer in self.feature_layers:
            if not -self.num_layers <= layer <= self.num_layers or layer == 0:
                raise ValueError(f"feature layer {layer} is not among {self.num_layers} blocks")

    @property
    def grid_size(self) -> int:
        """Side g of the feature grid."""
        return self.image_size // self.patch_size

    @property
    def blocks(self) -> tuple[int, ...]:
        """`feature_layers` as numbers of blocks, 1 to `num_layers`."""
        return tuple(k if k > 0 else self.num_layers + 1 + k for k in self.feature_layers)


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The LLaMA language model; the defaults are those of 7B with PixelLM's added tokens.

    Args:
        num_key_value_heads: None: as many as heads.
        max_position_embeddings: longest sequence, image tokens included.
    """

    vocab_size: int = 32008
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_layers: int = 32
    num_heads: int = 32
    num_key_value_heads: int | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The pixel decoder; the defaults are the published sizes.

    Args:
        hidden_size: C.
        extra_mask_tokens: SAM's multimask tokens, which are fed along and never read.
        mask_in_chans: of the prompt encoder's part for masks, which is never used.
    """

    hidden_size: int = 256
    num_heads: int = 8
    depth: int = 2
    mlp_dim: int = 2048
    extra_mask_tokens: int = 3
    mask_in_chans: int = 16


@dataclass(frozen=True, kw_only=True)
class PixelLMConfig:
    """One PixelLM.

    Args:
        tokens_per_scale: N; the codebook has L·N tokens, L as many as there are feature layers.
        learned_fusion: weights of tokens and scales are parameters, as in the paper; otherwise
            the constants 1/(L·N) and 1/L that the published code never trains.
        template: key of ``conversation.TEMPLATES``.
        pixel_mean, pixel_std: on the scale [0, 255]. Published weights expect ImageNet's, not
            CLIP's.
        unchecked_groups: read codebook tokens as the published code does: in any order, and no
            mask at all if their number is not a multiple of L·N.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    tokens_per_scale: int = 3
    learned_fusion: bool = False
    template: str = "llava_v1"
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    unchecked_groups: bool = False

    def __post_init__(self) -> None:
        if self.tokens_per_scale < 1 or self.scales < 1:
            raise ValueError(
                f"the codebook has {self.scales} scales of {self.tokens_per_scale} tokens; "
                "it needs at least one of each"
            )

    @property
    def scales(self) -> int:
        """L."""
        return len(self.vision.feature_layers)

    @property
    def image_tokens(self) -> int:
        """Positions that a picture takes in the language model's sequence, (g/2)²."""
        return (self.vision.grid_size // 2) ** 2

    @property
    def mask_size(self) -> int:
        """Side of the fused mask, 2g at scale 0 and twice that at each further one."""
        return 2 * self.vision.grid_size * 2 ** (self.scales - 1)

    @classmethod
    def published_7b(cls, vocab_size: int = 32008) -> PixelLMConfig:
        """PixelLM-7B; codebook and two image tokens end the vocabulary."""
        return cls(
            vision=VisionConfig(position_table="reference"),
            language=LanguageConfig(vocab_size=vocab_size),
        )

    @classmethod
    def published_13b(cls, vocab_size: int = 32008) -> PixelLMConfig:
        """PixelLM-13B."""
        return cls(
            vision=VisionConfig(position_table="reference"),
            language=LanguageConfig(
                vocab_size=vocab_size,
                hidden_size=5120,
                intermediate_size=13824,
                num_layers=40,
                num_heads=40,
            ),
        )

    @classmethod
    def embedded(cls, vocab_size: int = 2048) -> PixelLMConfig:
        """Sizes for a model that two CPU cores can run and train, about 7 M parameters.

        The image tower is that of the embedded CLIP, so that its weights can begin there. No token
        that is never read; the shallow features come from half of the depth, roughly as in the
        published model.
        """
        return cls(
            vision=VisionConfig(
                image_size=128,
                trained_size=96,
                patch_size=8,
                hidden_size=192,
                intermediate_size=768,
                num_layers=6,
                num_heads=3,
                feature_layers=(6, 3),
                activation="gelu",
            ),
            language=LanguageConfig(
                vocab_size=vocab_size,
                hidden_size=192,
                intermediate_size=512,
                num_layers=5,
                num_heads=4,
                max_position_embeddings=512,
                tie_word_embeddings=True,
            ),
            decoder=DecoderConfig(
                hidden_size=64, num_heads=4, mlp_dim=256, extra_mask_tokens=0, mask_in_chans=4
            ),
            learned_fusion=True,
            template="plain",
            pixel_mean=CLIP_MEAN,
            pixel_std=CLIP_STD,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PixelLMConfig:
        """Build from JSON values (lists become tuples). Raises TypeError on an unknown name."""
        parts = {"vision": VisionConfig, "language": LanguageConfig, "decoder": DecoderConfig}
        arguments = _known(cls, values)
        for name, part in parts.items():
            if name in arguments:
                arguments[name] = part(**_known(part, arguments[name]))
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """JSON values from which ``from_dict`` builds the same."""
        return asdict(self)


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    if unknown := set(values) - names:
        raise TypeError(f"unknown {kind.__name__} values: {', '.join(sorted(unknown))}")
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
