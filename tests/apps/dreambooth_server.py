"""A tiny text-to-image model in the catalogue, and a page with the DreamBooth tab, for tests."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from apps.suite import app
from apps.suite.dreambooth import work
from apps.suite.tabs import TABS
from core.clip.build import MERGES
from core.dreambooth import config as presets
from core.dreambooth.build import UNET_FILE, byte_pair_tokenizer, save_model
from core.dreambooth.serving import Trainings
from core.engine import get_engine
from core.models.catalogue import Entry, catalogue, parse_entry
from core.settings import settings
from tests.apps.conftest import Server
from tests.core.dreambooth.conftest import build_tiny

SHOWN = tuple(tab for tab in TABS if tab.name in ("personalize", "dreambooth"))
MODEL = "tiny_diffusion"
FAST = {
    "steps": 6,
    "prior_pictures": 2,
    "rank": 2,
    "crops_per_picture": 1,
    "sample_steps": 3,
    "checkpoint_steps": 2,
    "inference_steps": 2,
    "gradient_checkpointing": False,
    "sample_prompts": ("a photo of {}",),
}


def tiny_entry(folder: Path) -> Entry:
    """Write a text-to-image model of some thousand random weights; its entry."""
    model = build_tiny(byte_pair_tokenizer(MERGES))
    files = save_model(model, folder, dtype=torch.float32)
    card = folder / "card.json"
    card.write_text(json.dumps({"files": files, "sha256": files[UNET_FILE]}))
    record = {
        "id": MODEL,
        "method": "dreambooth",
        "set": "embedded",
        "title": "Tiny",
        "note": "",
        "license": "",
        "source": "",
        "memory_mib": 50,
        "file": str(folder / UNET_FILE),
        "card": str(card),
        "builder": "core.dreambooth.build:build_from_entry",
    }
    return parse_entry(record, Path("/"))


@contextmanager
def tiny_model(folder: Path) -> Iterator[Path]:
    """Put the model into the catalogue, make presets short, and keep trainings in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for entry in [one for one in catalogue().values() if one.method == "dreambooth"]:
            patch.delitem(catalogue(), entry.id)  # this one shall be the only one
        patch.setitem(catalogue(), MODEL, tiny_entry(folder / "model"))
        patch.setattr(presets, "_EMBEDDED", {name: FAST for name in presets.PRESETS})
        root = folder / "trainings"
        patch.setattr(work, "trainings", lambda: Trainings(get_engine(), root))
        yield root


@contextmanager
def serve_dreambooth(folder: Path) -> Iterator[Server]:
    """Serve a page with this tab and Personalize."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tiny_model(folder), pytest.MonkeyPatch.context() as patch:
        place = folder / "segment-studio-dreambooth"
        place.mkdir()
        patch.setitem(os.environ, "GRADIO_TEMP_DIR", str(place))
        options = replace(settings, port=port)
        # The page sets it for its process, which is the tests' here.
        patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        page = app.build(options, SHOWN)
        try:
            yield Server(app.launch(page, options), folder)
        finally:
            page.close()
