"""Sizes of every RobustSAM in the suite."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from core.sam.config import SamConfig

if TYPE_CHECKING:
    from core.robustsam.modules import NormStats


@dataclass(frozen=True, kw_only=True)
class RobustSamConfig:
    """A SAM, and what its robust path needs beyond.

    Args:
        sam: the SAM inside.
        early_dim, last_dim: channels of the early feature and of the image embedding that the
            anti-degradation features are made of: the first ones of what the encoder's
            ``forward_features`` gives. Cost grows with their squares. ``last_dim`` None: all.
        norm_stats: what the batch-normalised branches go by. The published demo never leaves
            training mode, so its checkpoints go by the picture at hand.
        multimask: the three other tokens were trained, too. In the published training they got
            no loss, so that only the single mask means something.
    """

    sam: SamConfig = field(default_factory=SamConfig)
    early_dim: int = 768
    last_dim: int | None = None
    norm_stats: NormStats = "image"
    multimask: bool = False

    @classmethod
    def published(cls, sam: SamConfig) -> RobustSamConfig:
        """The published ViT-B, L or H: the early feature has the encoder's width."""
        return cls(sam=sam, early_dim=sam.embed_dim)

    @classmethod
    def embedded(cls) -> RobustSamConfig:
        """The model this project trains on its embedded SAM.

        Its few channels keep what the robust path adds under 15 % of SAM's arithmetic.
        """
        return cls(
            sam=SamConfig.embedded(),
            early_dim=40,
            last_dim=48,
            norm_stats="running",
            multimask=True,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RobustSamConfig:
        """Build from JSON values. Raises TypeError on an unknown name."""
        sam = SamConfig.from_dict(values.get("sam", {}))
        others = {key: value for key, value in values.items() if key != "sam"}
        return replace(cls.published(sam), **others)
