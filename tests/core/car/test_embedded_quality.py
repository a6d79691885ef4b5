"""The shipped CLIP and its text queries against their bars, on small fixed sets.

The sets (``tests/data/make_words.py``) are too small to report figures from; the bars here leave
room for that. ``python -m core.evaluation clip`` and ``car`` measure on more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.car.config import CarConfig
from core.clip.build import with_tokenizer
from core.clip.model import ClipModel
from core.clip.text import average_templates, encode_templates
from core.engine import get_engine
from core.evaluation import car
from core.evaluation.car_data import PhraseScene, WordScene
from core.evaluation.clip import SIZE, TEMPLATES, encode_pictures, names

FOLDER = Path(__file__).parents[2] / "data" / "words"
FACTS = json.loads((FOLDER / "facts.json").read_text())


@pytest.fixture(scope="module")
def clip() -> Iterator[ClipModel]:
    engine = get_engine()
    with engine.model("clip_embedded") as module:
        yield with_tokenizer(engine.entry("clip_embedded"), module)


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A picture RGB uint8 (H, W, 3) and its labels (H, W)."""
    image = np.asarray(Image.open(FOLDER / f"{name}.jpg").convert("RGB"))
    return image, np.asarray(Image.open(FOLDER / f"{name}.png"))


@pytest.mark.parametrize(("sheet", "least"), [("seen_styles", 0.88), ("held_style", 0.45)])
def test_single_objects_are_named(clip: ClipModel, sheet: str, least: float) -> None:
    sheet_image = torch.from_numpy(np.array(Image.open(FOLDER / f"{sheet}.jpg")))
    rows, columns = (length // SIZE for length in sheet_image.shape[:2])
    tiles = sheet_image.view(rows, SIZE, columns, SIZE, 3).permute(0, 2, 4, 1, 3).flatten(0, 1)
    features = average_templates(encode_templates(clip, names(), TEMPLATES))
    said = (encode_pictures(clip, tiles) @ features.T).argmax(dim=1)
    right = [names()[k] == true for k, true in zip(said, FACTS["sheets"][sheet], strict=True)]
    assert np.mean(right) >= least


def test_words_in_scenes_are_found_and_wrong_ones_dropped(clip: ClipModel) -> None:
    scenes = [
        WordScene(image, tuple(words), labels)
        for name, words in FACTS["words"].items()
        for image, labels in [read(name)]
    ]
    config = CarConfig.embedded()
    configs = {"car": config, "no_recurrence": replace(config, recurrence=False)}
    figures = car.word_figures(car.evaluate_words(clip, clip, scenes, configs))
    assert figures["miou"] >= 0.5
    assert figures["recurrence_gain"] >= 0.1
    assert figures["word_f1"] >= 0.8


def test_phrases_find_their_object(clip: ClipModel) -> None:
    scenes = [
        PhraseScene(image, tuple(phrases), labels > 0)
        for name, phrases in FACTS["phrases"].items()
        for image, labels in [read(name)]
    ]
    config = replace(CarConfig.embedded(), templates=(), presence_threshold=None)
    assert car.evaluate_phrases(clip, clip, scenes, config).figures()["referring_iou"] >= 0.45
