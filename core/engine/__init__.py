"""The engine: device and precision, models in memory, embedding cache, cancellation, timings."""

# First, and here: threads that import parts of torchvision at the same time find it half made,
# and whoever works with models imports this package before anything else.
import core.models.torchvision_shim  # noqa: F401
from core.engine.cache import CacheStats, EmbeddingCache
from core.engine.cancellation import CancelToken
from core.engine.device import describe, pick_device, pick_precision
from core.engine.engine import Engine, get_engine
from core.engine.timing import StageTimer

__all__ = [
    "CacheStats",
    "CancelToken",
    "EmbeddingCache",
    "Engine",
    "StageTimer",
    "describe",
    "get_engine",
    "pick_device",
    "pick_precision",
]
