"""How SAM searches a whole picture by default: for the published models and for the embedded one.

Free of torch, unlike core.sam, so that a page can show these numbers before torch is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import PromptError
from core.models.catalogue import Entry


@dataclass(frozen=True, kw_only=True)
class EverythingConfig:
    """Settings of SamAutomaticMaskGenerator, with its defaults, chosen there for ViT-H.

    Args:
        points_per_side: of the grid over the whole picture.
        points_per_batch: per decoder call; None: what suits the device.
        pred_iou_thresh, stability_score_thresh: masks below are dropped; 0 keeps all.
        stability_score_offset: shift of the logit threshold for the stability score.
        box_nms_thresh: IoU of boxes above which the mask of the lower predicted IoU goes.
        crop_n_layers: layer i adds 2^i x 2^i crops.
        crop_nms_thresh: the same between crops, where the more zoomed one stays.
        crop_overlap_ratio: of the first layer's crops, as a share of the short side.
        crop_n_points_downscale_factor: layer i has points_per_side / factor^i points.
        min_mask_region_area: px; smaller holes are filled and smaller islands dropped.
        drop_full_image: drop masks that cover 95 % of the picture or more.
    """

    points_per_side: int = 32
    points_per_batch: int | None = None
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    drop_full_image: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.points_per_side <= 128:
            raise PromptError(
                f"There are {self.points_per_side} points per side; choose between 1 and 128."
            )
        if not 0 <= self.crop_n_layers <= 3:
            raise PromptError(f"There are {self.crop_n_layers} crop layers; choose from 0 to 3.")

    @classmethod
    def embedded(cls) -> EverythingConfig:
        """For the embedded model: a coarser grid, and thresholds that suit its scores.

        A small model trained with focal loss is less sure of itself: its logits are shallow, so
        the shift for the stability score is half the published one.
        """
        return cls(
            points_per_side=16,
            pred_iou_thresh=0.5,
            stability_score_thresh=0.7,
            stability_score_offset=0.5,
            drop_full_image=True,
        )

    @classmethod
    def of_set(cls, model_set: str) -> EverythingConfig:
        """The settings that suit a model set of the catalogue."""
        return cls.embedded() if model_set == "embedded" else cls()


@dataclass(frozen=True, kw_only=True)
class ProposalConfig:
    """The paper's settings for AR@1000 on LVIS.

    Args:
        points_per_side: of the grid.
        box_nms_thresh: IoU of boxes above which the mask of the lower predicted IoU goes.
        max_proposals: masks returned at most.
    """

    points_per_side: int = 64
    box_nms_thresh: float = 0.9
    max_proposals: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.points_per_side <= 128:
            raise PromptError(
                f"There are {self.points_per_side} points per side; choose between 1 and 128."
            )

    @classmethod
    def embedded(cls) -> ProposalConfig:
        """For the embedded model on a CPU: its 16 x 16 embedding gains nothing above 32."""
        return cls(points_per_side=32, max_proposals=300)

    @classmethod
    def of_set(cls, model_set: str) -> ProposalConfig:
        """The settings that suit a model set of the catalogue."""
        return cls.embedded() if model_set == "embedded" else cls()


def calibrated_threshold(entry: Entry) -> float | None:
    """PerSAM's presence threshold in a model's card, if it was calibrated for that model.

    ``python -m core.evaluation persam`` calibrates it; scores of two models do not compare.
    """
    value = entry.read_card().get("presence_threshold")
    return None if value is None else float(value)
