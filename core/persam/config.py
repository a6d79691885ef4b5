"""What can be chosen in PerSAM and PerSAM-F; defaults are those of the published code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Pooling = Literal["mean", "mean_max"]
Scale = Literal["single", "learned", "equal"]

# The published code writes masks as pictures before it pools them to the grid. PerSeg's files
# hold 128, so that only cells covered to about 97 % count; 255 puts that at about a half.
PERSEG_MASK_VALUE = 128
FIRST_POSITIVE_VALUE = 124  # below, no cell can be foreground (the mean of SAM's red channel)


@dataclass(frozen=True, kw_only=True)
class PersamConfig:
    """Settings of one personalized segmentation.

    The first five are the paper's ablation; all on gives PerSAM.

    Args:
        negative_point: also prompt with the least similar pixel (location prior).
        guided_attention: target-guided attention in the first pass.
        semantic_prompt: target-semantic prompting in the first pass.
        refinement_1: second pass, prompted with the first pass's logits.
        refinement_2: third pass, prompted with the mask's box and logits.
        points: positive points.
        distinct_points: keep several points a grid cell apart; else the highest pixels, which
            are neighbours, as in the published code.
        guidance_weight: alpha of the guided attention; the published code has 1.
        aligned_guidance: lay the guidance over the picture's part of the grid. The published
            code stretches it over the padding, which misplaces it unless the picture is square.
        pooling: target feature of the similarity: mean over the object's cells, or the mean of
            that and their maximum (PerSAM-F).
        scale: what the first pass gives: a single mask, or its three readings weighted by
            PerSAM-F's learned weights or by a third each.
        refinement_1_box: give the second pass the box of the first one's mask (PerSAM-F).
        mask_value: brightness (124 to 255) of the reference mask when it is read as a picture.
        max_instances: look for so many instances of the object, one after the other.
        instance_ratio: stop when the highest similarity left rises above the picture's mean by
            less than this share of what the first one's did.
        same_instance_iou: stop when a mask overlaps a former one by that much.
        presence_threshold: answer "not in this picture" below this presence score; None: always
            answer with a mask, as published.

    Raises:
        ValueError: a number is out of its range.
    """

    negative_point: bool = True
    guided_attention: bool = True
    semantic_prompt: bool = True
    refinement_1: bool = True
    refinement_2: bool = True
    points: int = 1
    distinct_points: bool = True
    guidance_weight: float = 1.0
    aligned_guidance: bool = False
    pooling: Pooling = "mean"
    scale: Scale = "single"
    refinement_1_box: bool = False
    mask_value: int = 255
    max_instances: int = 1
    instance_ratio: float = 0.7
    same_instance_iou: float = 0.8
    presence_threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("points", "max_instances"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not FIRST_POSITIVE_VALUE <= self.mask_value <= 255:
            raise ValueError(f"mask_value is {self.mask_value}; it must be 124 to 255")

    @classmethod
    def persam_f(cls, **changes: Any) -> PersamConfig:
        """PerSAM-F as published: one point, no guidance, no semantic prompt, a box throughout.

        The paper describes it as built upon PerSAM; its code leaves these three out.
        """
        published = cls(
            negative_point=False,
            guided_attention=False,
            semantic_prompt=False,
            pooling="mean_max",
            scale="learned",
            refinement_1_box=True,
        )
        return replace(published, **changes)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How PerSAM-F's two weights are optimised: AdamW with a cosine schedule, one cycle.

    Args:
        steps, learning_rate: 1000 steps of at most 1e-3.
        weight_decay: PyTorch's default, which the published code leaves as it is.
        max_pixels: a larger reference is averaged over square blocks, object and background
            apart, down to about so many; None: every pixel, as in the published code.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_pixels: int | None = 2**13

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}; it must be at least 1")
