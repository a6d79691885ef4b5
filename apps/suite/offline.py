"""What has to be in the environment before gradio is imported.

No telemetry, no version check, no hub requests with the embedded models, and a folder of this
process alone for everything that visitors upload or receive.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def prepare(model_set: str) -> Path:
    """Set the flags and return the folder for temporary files, removed when the process ends.

    Args:
        model_set: "embedded" switches the model hub off as well.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if model_set == "embedded":
        os.environ["HF_HUB_OFFLINE"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="segment-studio-")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
