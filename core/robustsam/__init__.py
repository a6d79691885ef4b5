"""Segmentation of degraded pictures (RobustSAM): rain, noise, blur, darkness, compression.

Chen et al., "RobustSAM: Segment Anything Robustly on Degraded Images", CVPR 2024,
arXiv 2406.09627.
"""

import core.models.torchvision_shim  # noqa: F401  (segment_anything imports torchvision)
