"""Segment Anything: configurations, encoders, a stateless predictor, and what the paper does
with it (everything mode, edges, object proposals)."""

import core.models.torchvision_shim  # noqa: F401  (segment_anything imports torchvision)
