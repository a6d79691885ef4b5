"""Fifteen ways in which a picture can be bad, at five severities, repeatable by a seed.

The degradations of RobustSAM (Chen et al., "RobustSAM: Segment Anything Robustly on Degraded
Images", CVPR 2024) as its released augmentation script defines them by albumentations 1.3.1 and
imgaug 0.4, built again from NumPy and OpenCV. `guess` goes the other way: from a picture to what
is likely wrong with it.
"""

from core.degradations.kinds import DEGRADATIONS, FAMILIES, KINDS, Kind
from core.degradations.levels import SEVERITIES
from core.degradations.pipeline import COMBINATIONS, Degraded, degrade, degrade_chain

__all__ = [
    "COMBINATIONS",
    "DEGRADATIONS",
    "FAMILIES",
    "KINDS",
    "SEVERITIES",
    "Degraded",
    "Kind",
    "degrade",
    "degrade_chain",
]
