"""What ``python -m core.evaluation dreambooth`` runs: models, judges, settings and subjects."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.clip.build import with_tokenizer
from core.clip.model import ClipModel
from core.clip.text import encode_texts
from core.dreambooth.config import DreamBoothConfig
from core.dreambooth.model import DiffusionModel
from core.engine import get_engine
from core.engine.engine import Engine
from core.errors import ImageError, ModelUnavailable
from core.evaluation import dreambooth_published
from core.evaluation.clip import encode_pictures
from core.evaluation.diffusion import BackdropJudge
from core.evaluation.dreambooth import (
    WAYS,
    Encoder,
    Judges,
    Picture,
    Setting,
    details,
    evaluate,
    summarise,
)
from core.evaluation.dreambooth_layout import Prompt, google_subjects
from core.models.catalogue import catalogue
from core.settings import settings

Results = tuple[dict[str, float], dict[str, Any]]

SAM, CLIP = "sam_embedded", "clip_embedded"
FULL_SAM, FULL_CLIP = "sam_vit_b", "clip_vit_b_16"
DINO = "facebook/dino-vits16"
DINO_SIDE = 224
DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PAPER_SEEDS = (0, 1, 2, 3)
FORMAT = "dreambooth"
JUDGE_SEED = 9


def run_dreambooth(model: DiffusionModel, args: argparse.Namespace) -> Results:
    """Held-out objects, or google/dreambooth; ``--limit`` counts subjects."""
    if args.data:
        return run_photographs(model, args)
    from core.evaluation.dreambooth_data import sticker_subjects

    config = DreamBoothConfig.preset("good", catalogue()[args.model].set, sample_steps=None)
    with embedded_judges(model, args.stickers) as judges, workplace() as folder:
        setting = Setting(get_engine(), args.model, SAM, judges, config, folder)
        taught = evaluate(setting, sticker_subjects(args.stickers, args.limit))
    figures = summarise(taught, len(taught[0].drawn["masked"]))
    told = {
        "subjects": details(taught),
        "settings": config.to_dict(),
        "published": dreambooth_published.PUBLISHED,
    }
    return figures, told


def run_photographs(model: DiffusionModel, args: argparse.Namespace) -> Results:
    """google/dreambooth by its own protocol: 4 pictures of each prompt; DINO, CLIP-I, CLIP-T."""
    if args.format not in (None, FORMAT):
        raise ImageError(f"Unknown --format {args.format}: this protocol reads {FORMAT}.")
    config = DreamBoothConfig.preset("good", catalogue()[args.model].set, sample_steps=None)
    with published_judges() as judges, workplace() as folder:
        setting = Setting(
            get_engine(), args.model, FULL_SAM, judges, config, folder, seeds=PAPER_SEEDS
        )
        taught = evaluate(setting, islice(google_subjects(args.data), args.limit))
    figures = summarise(taught, len(taught[0].drawn["masked"]))
    ours = {
        way: {
            "dino": figures[f"{way}_whole_fidelity"],
            "clip_i": figures[f"{way}_clip_i_whole_fidelity"],
            "clip_t": figures[f"{way}_prompt_fidelity"],
        }
        for way in WAYS
    }
    told = {
        "subjects": details(taught),
        "settings": config.to_dict(),
        "published": dreambooth_published.PUBLISHED,
        "beside": ours,
    }
    return figures, told


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for trainings, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dreambooth-") as folder:
        yield Path(folder)


@contextmanager
def embedded_judges(model: DiffusionModel, stickers: Path) -> Iterator[Judges]:
    """The embedded CLIP's image tower, and the nearest mean of backdrops.

    Its text tower has never met the held-out subjects' names, so prompt fidelity says little here.
    """
    from core.stickers.atlas import load_atlas
    from core.training.diffusion_pictures import WorldGenerator

    engine, atlas = get_engine(), load_atlas(stickers)
    backdrops = BackdropJudge(WorldGenerator(atlas, seed=JUDGE_SEED, size=model.resolution), atlas)

    def background(images: Sequence[Picture], prompts: Sequence[Prompt], _: str) -> Tensor:
        return backdrops.is_right(as_tensor(images), [prompt.backdrop or 0 for prompt in prompts])

    with engine.model(CLIP) as module:
        clip = with_tokenizer(engine.entry(CLIP), module)
        yield Judges({"clip": clip_encoder(clip)}, clip_scores(clip), background)


@contextmanager
def published_judges() -> Iterator[Judges]:
    """DINO ViT-S/16 and CLIP, as the paper measures.

    Raises:
        ModelUnavailable: one of them is not here and cannot be had.
    """
    engine = get_engine()
    with ExitStack() as stack:
        module = stack.enter_context(engine.model(FULL_CLIP))
        clip = with_tokenizer(engine.entry(FULL_CLIP), module)
        scores = clip_scores(clip)

        def background(images: Sequence[Picture], prompts: Sequence[Prompt], noun: str) -> Tensor:
            return scores(images, [prompt.fill("", noun) for prompt in prompts])

        encoders = {"dino": dino_encoder(engine), "clip_i": clip_encoder(clip)}
        yield Judges(encoders, scores, background)


def clip_encoder(clip: ClipModel) -> Encoder:
    """CLIP's image tower as an encoder of pictures of any sizes."""

    def encode(images: Sequence[Picture]) -> Tensor:
        return torch.cat([encode_pictures(clip, as_tensor([image])) for image in images])

    return encode


def clip_scores(clip: ClipModel) -> Callable[[Sequence[Picture], Sequence[str]], Tensor]:
    """Cosine of each picture and its text (N)."""
    encode = clip_encoder(clip)

    def scores(images: Sequence[Picture], texts: Sequence[str]) -> Tensor:
        return (encode(images) * encode_texts(clip, list(texts)).cpu()).sum(dim=1)

    return scores


def dino_encoder(engine: Engine) -> Encoder:
    """DINO ViT-S/16's class token. Raises ModelUnavailable if it is not here."""
    from transformers import ViTModel

    try:
        dino: Any = ViTModel.from_pretrained(
            DINO, add_pooling_layer=False, local_files_only=not settings.allow_download
        )
    except Exception as error:  # those of httpx and the file system
        raise ModelUnavailable(
            f"{DINO}, which judges the pictures, could not be loaded ({type(error).__name__}): "
            "allow downloads once."
        ) from error
    dino = dino.eval().to(engine.device)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (DINO_MEAN, DINO_STD))

    @torch.no_grad()
    def encode(images: Sequence[Picture]) -> Tensor:
        features = []
        for image in images:
            size = (DINO_SIDE, DINO_SIDE)
            pixels = F.interpolate(as_tensor([image]) / 255, size, mode="bicubic", antialias=True)
            hidden = dino(((pixels - mean) / std).to(engine.device)).last_hidden_state
            features.append(F.normalize(hidden[:, 0].float().cpu(), dim=-1))
        return torch.cat(features)

    return encode


def as_tensor(images: Sequence[Picture]) -> Tensor:
    """RGB pictures of one size as uint8 (N, 3, H, W)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
