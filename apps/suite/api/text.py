"""The endpoint of text queries: which of many words are in a picture, and where."""

from __future__ import annotations

from typing import Any

import gradio as gr

from apps.suite import models
from apps.suite.api.common import expose, load_picture, new_folder, picture
from apps.suite.limits import Doorkeeper
from apps.suite.text.session import MODES
from apps.suite.text.words import tidy
from core.car.choices import CLIPS, DEFAULT_PRESETS, change, config_of
from core.car.config import CarConfig
from core.errors import PromptError
from core.models.catalogue import catalogue
from core.prompts import TextQueries

Answer = tuple[str, dict[str, Any], str]  # overlay, record, ZIP


class Texts(gr.JSON):
    """A JSON parameter that says it is a list of texts."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}, "description": "list of texts"}


def add_text(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add the endpoint, with its parameters, to the row that is being built."""
    inputs = [
        picture("image"),
        Texts(label="queries"),
        Texts(label="background_queries"),
        gr.Textbox("auto", label="preset"),
        gr.Number(label="eta"),
        gr.Number(label="theta"),
        gr.Number(label="crf_lambda"),
        gr.Checkbox(True, label="use_crf"),
        gr.Checkbox(False, label="use_sam"),
        gr.Textbox("words", label="mode"),
        gr.Number(label="presence_threshold"),
        gr.Textbox("embedded", label="model"),
    ]
    outputs = [gr.File(label="overlay"), gr.JSON(label="record"), gr.File(label="archive")]
    expose(button, segment_text, inputs, outputs, doorkeeper)


def segment_text(
    image: str,
    queries: list[str],
    background_queries: list[str] | None = None,
    preset: str = "auto",
    eta: float | None = None,
    theta: float | None = None,
    crf_lambda: float | None = None,
    use_crf: bool = True,
    use_sam: bool = False,
    mode: str = "words",
    presence_threshold: float | None = None,
    model: str = "embedded",
) -> Answer:
    """Find which of some words are in a picture, and where; those that are not are `dropped`.

    Args:
        image: the picture: JPEG, PNG, WebP, BMP, TIFF or GIF.
        queries: words or phrases to look for, in any script; commas belong to a word. A word
            that is given twice is looked for once.
        background_queries: what the picture may also show; the preset's if not given.
        preset: "auto" (the model's own), "embedded", "voc", "coco", "context", "ade_150",
            "refcoco", "refcoco+", "refcocog", "gres" or "demo".
        eta: η, 0 to 1: a word's map above it is marked for the classifier; None: the preset's.
        theta: θ, 0 to 1: words whose score is not above it are dropped; None: the preset's.
        crf_lambda: λ, 0 to 1: the box threshold of the maps' refinement, which despite its name
            here has no part in the CRF; None: the preset's.
        use_crf: draw outlines by a dense CRF.
        use_sam: replace masks by those of SAM's everything mode where these match.
        mode: "words": each pixel has one word or none; "phrases": each by itself, as referring
            expressions, and masks may overlap.
        presence_threshold: words that reach no more than this against the background words are
            dropped; 0: no such check, the best word always stays; None: the preset's.
        model: "embedded", "full", or the id of a CLIP from list_models.

    Returns:
        The picture with the label map drawn over it (PNG); a record with the masks, what was
        dropped and why, and all steps of the recurrence; and a ZIP of all files.
    """
    from core.car.exports import text_record, write_text
    from core.car.serving import find_words
    from core.engine import get_engine

    loaded, model_set = load_picture(image), _model_set(model)
    if mode not in MODES:
        raise PromptError(f"There is no mode {mode[:20]!r}; use one of {', '.join(MODES)}.")
    words = read_words(queries)
    name = DEFAULT_PRESETS[model_set] if preset == "auto" else preset
    background = None if background_queries is None else read_words(background_queries, least=0)
    config = _config(
        config_of(name, model_set),
        mask_threshold=eta,
        confidence_threshold=theta,
        box_threshold=crf_lambda,
        background_queries=background,
        use_crf=use_crf,
    )
    if presence_threshold is not None:
        config = change(config, presence_threshold=presence_threshold or None)
    answer = find_words(
        get_engine(),
        model_set,
        loaded.image,
        words,
        config,
        phrases=mode == "phrases",
        sam=models.default_model(model_set) if use_sam else None,
    )
    files = write_text(
        loaded.image, answer.result, loaded.stem, new_folder(), notices=loaded.notices
    )
    told = text_record(answer.result, loaded.notices)
    return str(files.masks.overlay), told, str(files.archive)


def read_words(texts: Any, least: int = 1) -> tuple[str, ...]:
    """Read a list of words; repeated ones stay, for they get a sentence in the answer.

    Raises:
        PromptError: no list of texts, too many, one too long, or fewer than ``least``.
    """
    if not isinstance(texts, list):
        raise PromptError('The words have to be a list of texts, such as ["dog", "red car"].')
    if texts or least:
        TextQueries.parse(texts)
    return tuple(word for word in map(tidy, texts) if word)


def _config(config: CarConfig, **values: Any) -> CarConfig:
    """Change what was given."""
    return change(config, **{name: value for name, value in values.items() if value is not None})


def _model_set(model: str) -> str:
    """The set of a model that is here, with both of its CLIPs. Raises ModelUnavailable if not."""
    model_set = catalogue()[models.resolve(model, "clip")].set
    for clip in CLIPS[model_set]:
        models.resolve(clip, "clip")
    return model_set
