"""Sizes of every SAM in the suite: the published ViT-B/L/H, MobileSAM, and the embedded one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Constructor arguments of one SAM; the defaults are the published ViT-B.

    ``stage_widths`` and ``stage_depths`` belong to the hybrid encoder only (stages at 1/4, 1/8
    and 1/16 of the input); ``window_size`` and ``global_attn_indexes`` to the ViT only.
    """

    encoder: Literal["vit", "hybrid", "tiny_vit"] = "vit"
    image_size: int = 1024
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    window_size: int = 14
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    stage_widths: tuple[int, ...] = ()
    stage_depths: tuple[int, ...] = ()
    out_chans: int = 256
    mask_in_chans: int = 16
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    decoder_num_heads: int = 8
    iou_head_hidden_dim: int = 256

    @property
    def grid_size(self) -> int:
        """Side g of the image embedding; low-res logits have side 4g."""
        return self.image_size // self.patch_size

    @classmethod
    def vit_b(cls) -> SamConfig:
        return cls()

    @classmethod
    def vit_l(cls) -> SamConfig:
        return cls(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23))

    @classmethod
    def vit_h(cls) -> SamConfig:
        return cls(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31))

    @classmethod
    def mobile(cls) -> SamConfig:
        """MobileSAM: a TinyViT encoder in front of SAM's own prompt encoder and decoder."""
        return cls(encoder="tiny_vit")

    @classmethod
    def embedded(cls) -> SamConfig:
        """The model this project trains: 256 px, convolutional stages, four attention blocks."""
        return cls(
            encoder="hybrid",
            image_size=256,
            stage_widths=(32, 64, 128),
            stage_depths=(1, 2, 2),
            embed_dim=192,
            depth=4,
            num_heads=3,
            mlp_ratio=3.0,
            out_chans=128,
            decoder_mlp_dim=512,
            iou_head_hidden_dim=128,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SamConfig:
        """Build from JSON values (lists become tuples). Raises TypeError on an unknown name."""
        names = {field.name for field in fields(cls)}
        if unknown := set(values) - names:
            raise TypeError(f"unknown SamConfig values: {', '.join(sorted(unknown))}")
        arguments: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**arguments)
