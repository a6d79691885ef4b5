"""CLIP (Radford et al., 2021) on open_clip's classes: what text queries and rankings share."""

import core.models.torchvision_shim  # noqa: F401  (open_clip imports torchvision)
