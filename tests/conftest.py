"""Settings of all tests."""

from hypothesis import settings

import core.models.torchvision_shim  # noqa: F401  (before a test imports torchvision)

# A loaded two-core machine misses hypothesis's 200 ms deadline without any fault of the code.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
