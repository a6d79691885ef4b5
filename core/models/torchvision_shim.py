"""Make torchvision importable where its compiled operators do not fit the installed PyTorch.

The CPU build of torch and PyPI's torchvision can be a pair whose operators do not load; then
``import torchvision`` itself raises, and segment_anything, open_clip and timm with it. Importing
this module first repairs that: it defines ``torchvision::nms`` (on the CPU) and
``torchvision::qnms`` (schema only). Where torchvision is whole, it changes nothing.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np
import torch
from torch import Tensor

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# torch.library takes the definitions back when this object is collected.
_library: torch.library.Library | None = None


def install() -> bool:
    """Import torchvision, defining the operators that the import needs if they are missing.

    Returns:
        Whether anything had to be defined; False where torchvision's own operators load.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
        RuntimeError: torchvision fails to import for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _forget_partial_import()
    if hasattr(torch.ops.torchvision, "nms"):
        return False
    _define_operators()
    extension = importlib.import_module("torchvision").extension
    # After the import: while it runs, a True here would register kernels for operators that do
    # not exist. Python functions of torchvision with a fallback of their own keep using that.
    extension._has_ops = lambda: True
    return True


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one, as torchvision's CPU kernel does.

    Args:
        dets: (N, 4) float, x0, y0, x1, y1; scores: (N,) float.
        iou_threshold: a box goes if its IoU with a kept, better box is greater than this.

    Returns:
        (K,) int64 indices of the kept boxes, best score first; equal scores keep their order.
    """
    torch._check(dets.ndim == 2 and dets.shape[1] == 4, lambda: f"boxes are {tuple(dets.shape)}")
    torch._check(
        scores.shape == dets.shape[:1],
        lambda: f"{tuple(scores.shape)} scores for {tuple(dets.shape)} boxes",
    )
    order = torch.argsort(scores, descending=True, stable=True)
    wide = dets.detach()[order].to(torch.promote_types(dets.dtype, torch.float32))
    kept = _greedy_nms(np.ascontiguousarray(wide.numpy().T), iou_threshold)
    return order[torch.from_numpy(kept)]


def _greedy_nms(corners: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Indices kept of ``corners`` (4, N), which come best first."""
    threshold = np.float64(iou_threshold)  # the kernel compares as double, whatever the boxes are
    areas = (corners[2] - corners[0]) * (corners[3] - corners[1])
    rest = np.arange(corners.shape[1])
    kept = []
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        x0, y0, x1, y1 = corners[:, rest]
        bx0, by0, bx1, by1 = corners[:, best]
        width = np.maximum(np.minimum(x1, bx1) - np.maximum(x0, bx0), 0)
        height = np.maximum(np.minimum(y1, by1) - np.maximum(y0, by0), 0)
        intersection = width * height
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 of empty boxes: kept
            iou = intersection / (areas[best] + areas[rest] - intersection)
        rest = rest[~(iou > threshold)]
    return np.array(kept, dtype=np.int64)


def _define_operators() -> None:
    global _library
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms" + SCHEMA)
    library.define("qnms" + SCHEMA)
    library.impl("nms", nms, "CPU")
    _library = library


def _forget_partial_import() -> None:
    """Drop the submodules that a failed ``import torchvision`` leaves behind."""
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]


ACTIVE = install()
