"""How each embedded model is trained: one file a model, one command for all."""

import core.models.torchvision_shim  # noqa: F401  (before anything imports torchvision)
