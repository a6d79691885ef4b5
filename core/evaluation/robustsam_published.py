"""Published figures of RobustSAM, to stand beside ours: its paper's, and another group's.

Ours are comparable in kind, not in size: other pictures, other models, severities of our own.
"""

from __future__ import annotations

from typing import Any

# Chen et al., CVPR 2024, tables 2 to 6; "pa" is pixel accuracy.
_POINTS = ("degrade_iou", "degrade_pa", "clear_iou", "clear_pa", "average_iou", "average_pa")


def _rows(names: tuple[str, ...], **values: tuple[float, ...]) -> dict[str, dict[str, float]]:
    return {model: dict(zip(names, row, strict=True)) for model, row in values.items()}


PAPER: dict[str, Any] = {
    "msra10k_points": _rows(
        _POINTS,
        sam=(0.8194, 0.9108, 0.8402, 0.9235, 0.8207, 0.9116),
        hq_sam=(0.8358, 0.9202, 0.8604, 0.9328, 0.8373, 0.9210),
        airnet_sam=(0.8157, 0.9193, 0.8236, 0.9294, 0.8162, 0.9199),
        urie_sam=(0.8217, 0.9125, 0.8450, 0.9245, 0.8231, 0.9132),
        robustsam=(0.8609, 0.9640, 0.8726, 0.9649, 0.8616, 0.9641),
    ),
    "lvis_boxes": _rows(
        _POINTS,
        sam=(0.7341, 0.9181, 0.7415, 0.9282, 0.7346, 0.9187),
        hq_sam=(0.7405, 0.9242, 0.7502, 0.9319, 0.7411, 0.9246),
        airnet_sam=(0.7352, 0.9198, 0.7419, 0.9293, 0.7356, 0.9204),
        urie_sam=(0.7336, 0.9182, 0.7406, 0.9277, 0.7340, 0.9188),
        robustsam=(0.7506, 0.9327, 0.7592, 0.9339, 0.7511, 0.9328),
    ),
    "ndd20_streets_fss1000_points": _rows(
        _POINTS,
        sam=(0.7981, 0.9555, 0.8295, 0.9707, 0.8000, 0.9565),
        hq_sam=(0.8079, 0.9617, 0.8448, 0.9756, 0.8102, 0.9625),
        airnet_sam=(0.7988, 0.9629, 0.8312, 0.9752, 0.8008, 0.9637),
        urie_sam=(0.7904, 0.9593, 0.8288, 0.9740, 0.7928, 0.9602),
        robustsam=(0.8195, 0.9778, 0.8529, 0.9817, 0.8216, 0.9780),
    ),
    "coco_boxes": _rows(
        ("ap", "ap_small", "ap_medium", "ap_large"),
        sam=(0.5002, 0.3168, 0.4292, 0.5243),
        hq_sam=(0.5052, 0.2920, 0.4267, 0.5517),
        airnet_sam=(0.4926, 0.3068, 0.4263, 0.5187),
        urie_sam=(0.4980, 0.3186, 0.4319, 0.5215),
        robustsam=(0.5130, 0.3192, 0.4416, 0.5518),
    ),
    "bdd100k_lis": _rows(
        ("points_iou", "points_dice", "boxes_iou", "boxes_dice"),
        sam=(0.3056, 0.3837, 0.8808, 0.9171),
        hq_sam=(0.2943, 0.3712, 0.8877, 0.9245),
        airnet_sam=(0.3245, 0.4550, 0.8776, 0.9129),
        urie_sam=(0.3042, 0.3828, 0.8799, 0.9165),
        robustsam=(0.3717, 0.8926, 0.8958, 0.9416),
    ),
    "remarks": [
        "Its point Dice of 0.8926 on BDD-100k and LIS cannot belong to a mean IoU of 0.3717: with "
        "Dice = 2 IoU / (1 + IoU) it is 0.542 at most. Taken as an error of the paper.",
        "How points were drawn, and the size of the model, are not stated; no code was published.",
    ],
}

# The authors of GaRA-SAM (arXiv 2506.02882, tables 1 to 4) ran all models again.
_AGAIN = ("degrade_iou", "clear_iou")
INDEPENDENT: dict[str, Any] = {
    "lvis_points": _rows(
        _AGAIN,
        sam_b=(0.650, 0.701),
        robustsam_b=(0.727, 0.772),
        sam_l=(0.662, 0.750),
        hq_sam_l=(0.726, 0.790),
        robustsam_l=(0.756, 0.800),
    ),
    "lvis_boxes": _rows(
        _AGAIN,
        sam_b=(0.755, 0.784),
        robustsam_b=(0.815, 0.843),
        sam_l=(0.799, 0.828),
        hq_sam_l=(0.811, 0.847),
        robustsam_l=(0.836, 0.858),
    ),
    "msra10k_points": _rows(
        _AGAIN,
        sam_b=(0.759, 0.791),
        robustsam_b=(0.866, 0.896),
        sam_l=(0.773, 0.820),
        hq_sam_l=(0.850, 0.876),
        robustsam_l=(0.876, 0.901),
    ),
    "msra10k_boxes": _rows(
        _AGAIN,
        sam_b=(0.866, 0.887),
        robustsam_b=(0.895, 0.921),
        sam_l=(0.876, 0.889),
        hq_sam_l=(0.894, 0.914),
        robustsam_l=(0.916, 0.936),
    ),
    "coco_points": _rows(
        _AGAIN,
        sam_b=(0.652, 0.696),
        robustsam_b=(0.727, 0.771),
        sam_l=(0.669, 0.746),
        hq_sam_l=(0.732, 0.790),
        robustsam_l=(0.753, 0.799),
    ),
    "coco_boxes": _rows(
        _AGAIN,
        sam_b=(0.760, 0.789),
        robustsam_b=(0.816, 0.845),
        sam_l=(0.804, 0.829),
        hq_sam_l=(0.817, 0.851),
        robustsam_l=(0.838, 0.862),
    ),
    "streets_ndd20_points": _rows(
        _AGAIN,
        sam_b=(0.744, 0.818),
        robustsam_b=(0.745, 0.810),
        sam_l=(0.729, 0.821),
        hq_sam_l=(0.768, 0.839),
        robustsam_l=(0.757, 0.827),
    ),
    "streets_ndd20_boxes": _rows(
        _AGAIN,
        sam_b=(0.802, 0.854),
        robustsam_b=(0.818, 0.862),
        sam_l=(0.815, 0.864),
        hq_sam_l=(0.817, 0.867),
        robustsam_l=(0.830, 0.875),
    ),
    "bdd100k_lis_points": _rows(
        ("iou", "dice"),
        sam_b=(0.652, 0.754),
        robustsam_b=(0.695, 0.795),
        sam_l=(0.689, 0.778),
        hq_sam_l=(0.727, 0.817),
        robustsam_l=(0.714, 0.809),
    ),
    "bdd100k_lis_boxes": _rows(
        ("iou", "dice"),
        sam_b=(0.742, 0.827),
        robustsam_b=(0.757, 0.841),
        sam_l=(0.743, 0.820),
        hq_sam_l=(0.763, 0.843),
        robustsam_l=(0.781, 0.861),
    ),
    "remarks": ["The paper's point figures on BDD-100k and LIS are not reproduced at all."],
}

# Chen et al., table 8: RobustSAM in SAM's place inside of two methods, on SOTS and on GoPro.
PRIOR: dict[str, Any] = {
    "dehazing": _rows(("psnr", "ssim"), sam=(21.677, 0.8451), robustsam=(23.159, 0.8685)),
    "deblurring": _rows(("psnr", "ssim"), sam=(27.491, 0.9066), robustsam=(29.351, 0.9229)),
}

PUBLISHED = {"paper": PAPER, "independent": INDEPENDENT}
