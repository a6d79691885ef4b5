"""Quality of every method on held-out data: one file a protocol, one command for all."""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)
