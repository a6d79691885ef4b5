"""Speed and memory of our paths against the plain reference paths."""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)
