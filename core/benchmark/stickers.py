"""Scenes per second of the sticker world. Needs the sprites: ``python -m core.stickers`` installs
them the first time."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import torch

from core.benchmark.harness import WARM_UPS, environment
from core.engine.device import synchronize
from core.reports import Report
from core.settings import settings
from core.stickers.atlas import load_atlas
from core.stickers.scenes import SceneGenerator

BATCH = 32
REPEATS = 15


def run(limit: int | None) -> Report:
    """Measure batches of 32 scenes of 256 x 256 with up to six objects."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    atlas = load_atlas(Path(settings.sticker_folder)).to(device)
    generator = SceneGenerator(atlas, atlas.training_sprites())
    for _ in range(WARM_UPS):
        generator.batch(BATCH)
    walls, processors = [], []
    for _ in range(min(REPEATS, limit or REPEATS)):
        wall, processor = time.perf_counter(), time.process_time()
        generator.batch(BATCH)
        synchronize(device)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    figures = {
        "scenes_per_second": BATCH / statistics.median(walls),
        "scenes_per_processor_second": BATCH / statistics.median(processors),
    }
    details = {
        "batch_s": walls,
        "load_after": os.getloadavg()[0],
        "environment": environment(device),
    }
    return Report("stickers", [], "sticker world, training split", str(device), figures, details)
