"""Train the embedded PixelLM on talks about sticker scenes: ``python -m core.training pixellm``.

Its image tower begins as the embedded CLIP's, frozen at first, and its words as CLIP's features of
them: objects are named already, and what is left to learn is language, the table's knowledge, and
masks. What it sees is drawn by ``pixellm_scenes``, what is said about it by ``pixellm_questions``
in the words of ``pixellm_words``. The losses are the published ones; beside them each image token
is told the name of what it shows, as a mean of word embeddings, so that words find their objects,
and the decoder learns from the objects' own features first (``pixellm_losses``).
"""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.models.loading import load_weights, read_state_dict
from core.pixellm.build import EMBEDDING, HEAD
from core.pixellm.model import PixelLM
from core.stickers.atlas import Atlas, load_atlas
from core.stickers.scenes import SceneConfig
from core.stickers.sources import CREDITS, HELD_OUT_STYLE
from core.training.clip_scenes import known_objects
from core.training.pixellm_batches import Batch, Packer
from core.training.pixellm_objective import Learner, Objective, ObjectiveConfig, encode
from core.training.pixellm_questions import converse
from core.training.pixellm_scenes import ChatSceneGenerator, ChatScenes
from core.training.pixellm_start import balance, embedded_clip, start_tower, start_words
from core.training.pixellm_tokenizer import (
    FILE,
    embedded_config,
    embedded_tokenizer,
    word_pieces,
)
from core.training.run import RunConfig, TrainingRun

NAME = "pixellm_embedded"


class Stage(NamedTuple):
    """A part of the training: its end as a share of the time, and what is seen and asked.

    ``plain`` is the share of conversations of one simple question, ``frozen`` whether the tower
    stays as it is; a batch has ``pictures`` with ``conversations`` about each, 0 for none: then
    only names of image tokens are learned, and masks of what is there.
    """

    end: float
    pictures: int
    conversations: int
    max_objects: int
    min_scale: float
    max_scale: float
    plain: float
    frozen: bool


STAGES = (
    Stage(0.07, 12, 0, 4, 0.3, 1.0, 1.0, True),
    Stage(0.16, 16, 3, 2, 0.5, 1.0, 1.0, True),
    Stage(0.32, 8, 5, 3, 0.35, 0.9, 0.2, True),
    Stage(0.75, 8, 6, 5, 0.24, 0.75, 0.05, True),
    Stage(1.0, 8, 6, 5, 0.24, 0.75, 0.05, False),
)


@dataclass(frozen=True, kw_only=True)
class PixelLMTraining(ObjectiveConfig):
    """What is seen, and how much each loss counts."""

    stages: tuple[Stage, ...] = STAGES


class Talks:
    """Draws batches of scenes with conversations."""

    def __init__(self, atlas: Atlas, stage: Stage, packer: Packer, seed: int) -> None:
        self.stage, self.packer = stage, packer
        self.draw = random.Random(seed)
        config = SceneConfig(
            size=packer.config.vision.image_size,
            max_objects=stage.max_objects,
            min_scale=stage.min_scale,
            max_scale=stage.max_scale,
            close_up_probability=0.15,
            max_turn_degrees=30.0,
        )
        self.scenes = ChatSceneGenerator(atlas, atlas.training_sprites(), config, seed=seed)

    def batch(self) -> tuple[ChatScenes, Batch | None]:
        scenes = self.scenes.batch(self.stage.pictures)
        if not self.stage.conversations:
            return scenes, None
        conversations = [
            [
                converse(scene, self.draw, plain=self.draw.random() < self.stage.plain)
                for _ in range(self.stage.conversations)
            ]
            for scene in scenes.scenes
        ]
        batch = self.packer.pack(conversations)
        return scenes, batch.to(scenes.images.device)


def train(run_config: RunConfig, data: Path, training: PixelLMTraining | None = None) -> Path:
    """Train within the run's time budget and export ``pixellm_embedded``; return its path."""
    training = training or PixelLMTraining(seed=run_config.seed)
    torch.manual_seed(training.seed)
    tokenizer = embedded_tokenizer()
    network = PixelLM(embedded_config())
    atlas = load_atlas(data)
    packer = Packer(tokenizer, network.config)
    prepare(network, run_config, Talks(atlas, training.stages[0], packer, 1))
    learner = Learner(network)
    run = TrainingRun(learner, run_config, matrices=matrices(learner))
    atlas, seed = atlas.to(run.device), training.seed + run.step
    stages = [
        (stage, Talks(atlas, stage, packer, seed + number))
        for number, stage in enumerate(training.stages)
    ]
    objective = Objective(learner, tokenizer, training)
    for _ in run.steps():
        # Weights to start from can talk already.
        now = 1.0 if run_config.start_from else run.progress
        stage, talks = next(one for one in stages if now <= one[0].end)
        scenes, batch = talks.batch()
        # On a CPU products are faster than the fused attention, backwards above all.
        with run.accelerator.autocast(), sdpa_kernel(SDPBackend.MATH):
            loss, figures = objective(scenes, batch, frozen=stage.frozen)
        run.update(loss, **figures)
    return export(run, training)


def prepare(network: PixelLM, run_config: RunConfig, talks: Talks) -> None:
    """Begin with exported weights, or with what the embedded CLIP knows."""
    if run_config.start_from:
        start = read_state_dict(run_config.start_from)
        name = run_config.start_from.name
        load_weights(network, {**start, HEAD: start[EMBEDDING]}, name=name)
        return
    clip = embedded_clip()
    start_tower(network, clip)
    start_words(network, word_pieces(), clip)
    with torch.no_grad():
        balance(network, encode(network, talks.batch()[0].images))


def matrices(learner: Learner) -> list[str]:
    """Names of the matrices that Muon steps: of the blocks and of the projectors."""
    parts = (
        "language_model.model.layers.",
        "vision_tower.clip.encoder.layers.",
        "mm_projector.",
        "text_hidden_fcs.",
        "mask_decoder.transformer.",
    )
    return [
        name
        for name, value in learner.named_parameters()
        if value.ndim == 2 and any(part in name for part in parts)
    ]


def export(run: TrainingRun, training: PixelLMTraining) -> Path:
    """Write weights and card, which says what the model knows; the tokenizer beside them."""
    config = embedded_config()
    card = {
        "id": NAME,
        "license": "Apache-2.0",
        "config": {**config.to_dict(), "tokenizer": FILE.name},
        "credits": CREDITS,
        "knows": [item.name for item in known_objects()],
        "training": {
            "command": f"python -m core.training pixellm --minutes {run.config.minutes:g} "
            f"--learning-rate {run.config.learning_rate:g}",
            "data": "sticker world: objects of the table that are no test objects, every art "
            f"style but the held-out one ({HELD_OUT_STYLE}); the image tower begins as that of "
            "clip_embedded",
            **asdict(training),
        },
    }
    network = run.average.module.network
    assert isinstance(network, PixelLM)
    names = set(network.state_dict()) - {HEAD}  # tied to the embeddings
    shutil.copy(FILE, run.config.out / FILE.name)
    return run.export(NAME, card, prefix="network.", names=names, half=True)
