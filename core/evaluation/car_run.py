"""What ``python -m core.evaluation clip`` and ``car`` run: which models, settings and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.car.config import CarConfig
from core.car.presets import PRESETS, Preset
from core.clip.build import with_tokenizer
from core.clip.model import ClipModel
from core.engine import get_engine
from core.errors import ImageError
from core.evaluation import car, car_data, car_layouts, car_published
from core.models.catalogue import Entry, catalogue
from core.models.presets import EverythingConfig
from core.sam.everything import segment_everything
from core.sam.predictor import Predictor

Results = tuple[dict[str, float], dict[str, Any]]

SAM = "sam_embedded"  # for the sticker world


def settings_of(entry: Entry, preset: Preset | None = None) -> CarConfig:
    """Settings for a model of the catalogue: a data set's are those of the published models."""
    if entry.set == "full":
        return preset.config if preset is not None else CarConfig()
    return CarConfig.embedded()


def for_phrases(config: CarConfig) -> CarConfig:
    """The same settings for phrases whose object is known to be in the picture."""
    return replace(config, templates=(), presence_threshold=None)


def run_clip(model: ClipModel, args: argparse.Namespace) -> Results:
    """Naming and retrieval on stickers; ``--limit`` counts pictures of each object and style."""
    from core.evaluation.clip import evaluate_clip
    from core.stickers.atlas import load_atlas

    if args.data:
        raise ImageError("The CLIP is evaluated on the sticker world only: leave --data out.")
    return evaluate_clip(model, load_atlas(args.stickers), args.limit)


def run_car(model: ClipModel, args: argparse.Namespace) -> Results:
    """Words and phrases; ``--limit`` counts scenes. Expect 40 minutes on one core."""
    if not args.data:
        return run_stickers(model, args)
    if args.format not in car_layouts.FORMATS:
        raise ImageError(
            f"Unknown --format {args.format}: use one of {', '.join(car_layouts.FORMATS)}."
        )
    runs = {"refcoco": run_refcoco, "ref_davis": run_davis}
    return runs.get(args.format, run_words)(model, args)


def run_stickers(model: ClipModel, args: argparse.Namespace) -> Results:
    """Twenty words a scene with each part switched off and with SAM, then the held-out style."""
    config = settings_of(catalogue()[args.model])
    half = -(-args.limit // 2)
    configs = {"car": config} | car.ablations(config)
    with sam_masks(SAM) as everything, classifier_of(model, args) as classifier:
        scores = car.evaluate_words(
            model,
            classifier,
            car_data.word_scenes(args.stickers, args.limit),
            configs,
            everything,
        )
        scenes = car_data.word_scenes(args.stickers, half, held_out_style=True)
        held = car.evaluate_words(model, classifier, scenes, {"car": config}, everything)
        phrases = car.evaluate_phrases(
            model,
            classifier,
            car_data.phrase_scenes(args.stickers, args.limit),
            for_phrases(config),
        )
    figures = car.word_figures(scores) | phrases.figures()
    figures |= {f"held_style_{name}": value for name, value in car.word_figures(held).items()}
    details = {
        "seen_styles": car.word_details(scores),
        "held_out_style": car.word_details(held),
        "phrases": phrases.details(),
        "published": car_published.PUBLISHED,
    }
    return figures, details


def run_words(model: ClipModel, args: argparse.Namespace) -> Results:
    """A data set of label pictures, all its class names asked of each picture."""
    layout = car_layouts.WORD_LAYOUTS[args.format]
    scenes = islice(car_layouts.read_words(args.format, args.data, args.split), args.limit)
    config = data_settings(args, layout.preset)
    with sam_masks(args.sam) as everything, classifier_of(model, args, layout.preset) as classifier:
        scores = car.evaluate_words(
            model,
            classifier,
            scenes,
            {"car": config},
            everything,
            preset=layout.preset,
        )
    figures = car.word_figures(scores)
    return figures, car.word_details(scores) | compared(layout.published, figures["miou"])


def run_refcoco(model: ClipModel, args: argparse.Namespace) -> Results:
    """RefCOCO, RefCOCO+ or RefCOCOg: one mask for all expressions of an object."""
    preset = PRESETS[car_layouts.referring_name(args.data)]
    scenes = islice(car_layouts.refcoco_scenes(args.data, args.split), args.limit)
    with classifier_of(model, args, preset) as classifier:
        config = for_phrases(data_settings(args, preset))
        scores = car.evaluate_phrases(model, classifier, scenes, config)
    figures = scores.figures()
    column = car_layouts.refcoco_column(args.data, args.split)
    return figures, scores.details() | compared(column, figures["referring_iou"])


def run_davis(model: ClipModel, args: argparse.Namespace) -> Results:
    """Ref-DAVIS, frame by frame, with RefCOCO's settings: none were published for it."""
    preset = PRESETS["refcoco"]
    clips = islice(car_layouts.davis_clips(args.data, args.split), args.limit)
    with classifier_of(model, args, preset) as classifier:
        config = for_phrases(data_settings(args, preset))
        figures, details = car.evaluate_clips(model, classifier, clips, config)
    return figures, details | compared("ref_davis", figures["j_and_f"])


def data_settings(args: argparse.Namespace, preset: Preset) -> CarConfig:
    """A data set's settings, with all published deviations if asked for."""
    config = settings_of(catalogue()[args.model], preset)
    return config.as_published() if args.parity else config


def compared(column: str, ours: float) -> dict[str, Any]:
    """Details: published figures of one data set beside ours, and all the others."""
    beside = car_published.beside(column, ours)
    return {"beside": beside, "published": car_published.PUBLISHED}


@contextmanager
def classifier_of(
    model: ClipModel, args: argparse.Namespace, preset: Preset | None = None
) -> Iterator[ClipModel]:
    """The mask classifier: the one asked for, a preset's among the published ones, or ``model``."""
    wanted = args.classifier or _published_classifier(args.model, preset)
    if wanted in (None, args.model):
        yield model
        return
    engine = get_engine()
    with engine.model(wanted) as clip:
        yield with_tokenizer(engine.entry(wanted), clip)


def _published_classifier(model_id: str, preset: Preset | None) -> str | None:
    if preset is None or catalogue()[model_id].set != "full":
        return None
    ids = (e.id for e in catalogue().values() if e.config.get("model") == preset.classifier)
    return next(ids, None)


@contextmanager
def sam_masks(model_id: str | None) -> Iterator[car.SamMasks | None]:
    """A SAM's everything mode; None without one."""
    if model_id is None:
        yield None
        return
    engine = get_engine()
    embedded = engine.entry(model_id).set == "embedded"
    config = EverythingConfig.embedded() if embedded else EverythingConfig()
    with engine.model(model_id) as sam:
        predictor = Predictor(sam, model_id=model_id)

        def everything(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
            records = segment_everything(predictor, image, config)
            return np.array([record.mask for record in records], bool).reshape(-1, *image.shape[:2])

        yield everything
