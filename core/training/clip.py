"""Train the embedded CLIP on sticker scenes: ``python -m core.training clip``.

Known to it: the objects of the table that are no test objects, by names, synonyms, plurals,
categories and colours, in every art style but the held-out one. What it learns by is in
``clip_losses.py``, what it sees in ``clip_scenes.py``, what is said to it in ``clip_words.py``.
Pictures come in several sizes, so that its position table may be resized, as CaR does.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.car.config import EMBEDDED_BACKGROUND
from core.clip.build import EMBEDDED, build_clip, embedded_tokenizer
from core.clip.towers import blocks_of, embed_patches
from core.models.loading import load_weights, read_state_dict
from core.stickers.atlas import Atlas, load_atlas
from core.stickers.scenes import SceneConfig
from core.stickers.sources import CREDITS, HELD_OUT_STYLE
from core.training import clip_losses
from core.training.clip_scenes import (
    LabelledSceneGenerator,
    LabelledScenes,
    colour_name,
    known_objects,
    patch_coverage,
)
from core.training.clip_words import describe, put_into_words, spell
from core.training.run import RunConfig, TrainingRun

MAX_SCALE = 100.0  # of the cosines, as in CLIP's training


class Views(NamedTuple):
    """One kind of picture: its side in px, how often, how many at once, and what is in it."""

    size: int
    share: float
    batch: int
    max_objects: int
    min_scale: float
    max_scale: float


class Stage(NamedTuple):
    """A part of the training: its end as a share of the time, and its pictures.

    ``recoloured`` is the share of objects in any hue at all, ``prompted`` the share of pictures
    with a visual prompt, ``redrawn`` the share of those drawn as if by another hand.
    """

    end: float
    recoloured: float
    prompted: float
    redrawn: float
    views: tuple[Views, ...]


# What is learned from sixteen patches in three minutes takes an hour in scenes: an object is named
# first, and looked for afterwards.
STAGES = (
    Stage(0.12, 0.0, 0.0, 0.0, (Views(32, 1.0, 224, 1, 0.6, 1.1),)),
    Stage(
        0.3,
        0.1,
        0.0,
        0.3,
        (Views(32, 0.3, 224, 1, 0.6, 1.1), Views(48, 0.7, 112, 2, 0.5, 1.05)),
    ),
    Stage(
        0.55,
        0.3,
        0.1,
        0.5,
        (Views(48, 0.3, 112, 2, 0.5, 1.05), Views(64, 0.5, 64, 3, 0.4, 1.0))
        + (Views(96, 0.2, 28, 3, 0.35, 0.9),),
    ),
    Stage(
        1.0,
        0.3,
        0.3,
        0.5,
        (Views(64, 0.25, 64, 2, 0.4, 1.05), Views(96, 0.4, 28, 3, 0.3, 0.9))
        + (Views(128, 0.2, 18, 4, 0.25, 0.8), Views(192, 0.15, 8, 5, 0.2, 0.7)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """What is seen and how much each loss counts.

    Args:
        described: pictures of a batch about which phrases and captions are said; long texts cost
            more than small pictures.
    """

    seed: int = 0
    stages: tuple[Stage, ...] = STAGES
    described: int = 32
    patch_weight: float = 1.0
    picture_weight: float = 0.5
    mean_weight: float = 0.3
    map_weight: float = 1.0
    phrase_weight: float = 0.5
    caption_weight: float = 0.2
    word_weight: float = 0.5


class Encoded(NamedTuple):
    """What the image tower makes of a batch.

    Unit vectors: of the picture by its class token (B, D), of each patch (B, n, D), and of the mean
    patch (B, D), from which CaR takes its maps. Inside the last block: ``target`` (B, L, W), the
    input of its attention, and ``mixed`` (B, L, W), the heads' values side by side.
    """

    picture: Tensor
    patches: Tensor
    mean: Tensor
    target: Tensor
    mixed: Tensor


def encode_pictures(visual: VisionTransformer, images: Tensor) -> Encoded:
    """Encode uint8 (B, 3, S, S), S a multiple of the patch, with the position table resized."""
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1)
        for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    x, _ = embed_patches(visual, (images.float() / 255 - mean) / std)
    *others, last = blocks_of(visual)
    for block in others:
        x = block(x)
    target = last.ln_1(x)
    mixed = _mix_values(last.attn, target)
    x = x + last.attn.out_proj(mixed)
    x = visual.ln_post(x + last.mlp(last.ln_2(x))).float()
    picture, patches = x[:, 0] @ visual.proj, x[:, 1:] @ visual.proj
    return Encoded(
        F.normalize(picture, dim=-1),
        F.normalize(patches, dim=-1),
        F.normalize(patches.mean(dim=1), dim=-1),
        target,
        mixed,
    )


def _mix_values(attn: nn.MultiheadAttention, y: Tensor) -> Tensor:
    """Self-attention of (B, L, W) before its output projection."""
    projected = F.linear(y, attn.in_proj_weight, attn.in_proj_bias)  # (B, L, 3·W)
    heads = projected.unflatten(2, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])  # (B, H, L, d)
    return mixed.transpose(1, 2).flatten(2)


def encode_tokens(model: CLIP, tokens: Tensor) -> Tensor:
    """As ``model.encode_text``, without the padding behind the longest text: (N, D).

    The mask is causal, so what comes after a text's end changes nothing.
    """
    ends = tokens.argmax(dim=1)  # the end token has the highest number
    length = int(ends.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x[torch.arange(len(x), device=x.device), ends])
    return x @ model.text_projection


class ClipObjective:
    """The loss of one batch of labelled scenes."""

    def __init__(self, model: CLIP, config: ClipTraining) -> None:
        self.model, self.config = model, config
        self.objects = known_objects()
        self.draw = random.Random(config.seed + 7)
        self.tokenizer = embedded_tokenizer()

    def __call__(self, scenes: LabelledScenes) -> tuple[Tensor, dict[str, Tensor]]:
        config, model = self.config, self.model
        encoded = encode_pictures(model.visual, scenes.images)
        names, others = self._names(), self._names()
        backgrounds = self._texts([put_into_words(word, self.draw) for word in EMBEDDED_BACKGROUND])
        scale = model.logit_scale.exp().clamp(max=MAX_SCALE)
        words = torch.cat([names, backgrounds])
        coverage = patch_coverage(
            scenes.instance_ids, scenes.classes.shape[1], model.visual.patch_size[0]
        )
        patch, patch_top1 = clip_losses.patch_loss(
            scale * encoded.patches @ words.T, coverage, scenes.classes, len(names)
        )
        subjects = self._present(scenes.classes, scenes.subject)
        everyone = self._present(scenes.classes, scenes.classes >= 0)
        by_token = scale * encoded.picture @ names.T
        picture = clip_losses.picture_loss(by_token, subjects)
        mean = clip_losses.picture_loss(scale * encoded.mean @ names.T, everyone)
        phrase = self._phrases(scenes, encoded, coverage, backgrounds, scale)
        map_ = self._maps(scenes, encoded, coverage, words, scale)
        caption = self._captions(scenes, encoded.picture, scale)
        word = clip_losses.word_loss(names, others, scale)
        loss = (
            config.patch_weight * patch
            + config.picture_weight * picture
            + config.mean_weight * mean
            + config.map_weight * map_
            + config.phrase_weight * phrase
            + config.caption_weight * caption
            + config.word_weight * word
        )
        with torch.no_grad():
            one = subjects.any(dim=1)
            top1 = subjects.gather(1, by_token.argmax(dim=1, keepdim=True))[one].float().mean()
        figures = {"patch": patch, "picture": picture, "mean": mean, "map": map_}
        figures |= {"phrase": phrase, "caption": caption, "word": word}
        return loss, {**figures, "patch_top1": patch_top1, "top1": top1}

    def _names(self) -> Tensor:
        """Every known object's name in some spelling and template, unit vectors (C, D)."""
        return self._texts([put_into_words(spell(o, self.draw), self.draw) for o in self.objects])

    def _texts(self, texts: list[str]) -> Tensor:
        """Unit vectors (N, D) of texts."""
        tokens = self.tokenizer(texts).to(self.model.visual.proj.device)
        return F.normalize(encode_tokens(self.model, tokens).float(), dim=-1)

    def _present(self, classes: Tensor, which: Tensor) -> Tensor:
        """Bool (B, C): the names among the objects (B, K) that count."""
        present = torch.zeros(len(classes), len(self.objects) + 1, dtype=torch.bool)
        present = present.to(classes.device)
        rows = torch.where(which & (classes >= 0), classes, len(self.objects))
        return present.scatter(1, rows, True)[:, :-1]

    def _phrases(
        self,
        scenes: LabelledScenes,
        encoded: Encoded,
        coverage: Tensor,
        backgrounds: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Category, colour and both: one phrase a picture, and all objects that it means."""
        first = slice(self.config.described)
        named = zip(scenes.classes[first].tolist(), scenes.colours[first].tolist(), strict=True)
        chosen = [self._phrase(classes, colours) for classes, colours in named]
        rows = [b for b, one in enumerate(chosen) if one is not None]
        if not rows:
            return scale.new_zeros(())
        texts = [put_into_words(one[0], self.draw) for one in chosen if one is not None]
        meant = torch.tensor([one[1] for one in chosen if one is not None]).to(coverage)
        share = (coverage[rows] * meant[:, None]).sum(dim=2)
        return clip_losses.phrase_loss(
            encoded.patches[rows], self._texts(texts), backgrounds, scale, share
        )

    def _phrase(self, classes: list[int], colours: list[int]) -> tuple[str, list[bool]] | None:
        """A phrase about one object of a picture, and which of its objects it means."""
        present = [k for k, row in enumerate(classes) if row >= 0]
        if not present:
            return None
        k = self.draw.choice(present)
        item, colour = self.objects[classes[k]], colour_name(colours[k])
        kind = self.draw.choice(("category", "name", "thing")) if colour else "category"
        said = colour is not None and (kind != "category" or self.draw.random() < 0.6)
        noun = {"category": item.category, "name": spell(item, self.draw), "thing": "thing"}[kind]
        meant = [
            row >= 0
            and (not said or colours[j] == colours[k])
            and (kind != "category" or self.objects[row].category == item.category)
            and (kind != "name" or row == classes[k])
            for j, row in enumerate(classes)
        ]
        return (f"{colour} {noun}" if said else noun), meant

    def _maps(
        self,
        scenes: LabelledScenes,
        encoded: Encoded,
        coverage: Tensor,
        words: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """GradCAM maps (CaR, section 3.2) of one object a picture, as they should be.

        Of the gradient only what passes through the last block's values is kept, which is most of
        it; its derivative is needed once more.
        """
        known = scenes.classes[: self.config.described].tolist()
        chosen = [[k for k, row in enumerate(rows) if row >= 0] for rows in known]
        rows = torch.tensor([b for b, some in enumerate(chosen) if some])
        if not len(rows):
            return scale.new_zeros(())
        own = torch.tensor([self.draw.choice(some) for some in chosen if some])
        names = scenes.classes[rows, own]
        log_p = (scale * encoded.mean[rows] @ words.T).log_softmax(dim=1)
        said = log_p[torch.arange(len(rows)), names].sum()
        (gradient,) = torch.autograd.grad(said, encoded.mixed, create_graph=True)
        width = encoded.mixed.shape[2]
        values = blocks_of(self.model.visual)[-1].attn.in_proj_weight[2 * width :]  # (W, W)
        weights = gradient[rows, 1:].float().mean(dim=1) @ values  # (P, W)
        maps = (encoded.target[rows, 1:].float() @ weights[:, :, None])[..., 0]  # (P, n)
        same = (scenes.classes[rows] == names[:, None]).to(coverage)
        return clip_losses.map_loss(maps, (coverage[rows] * same[:, None]).sum(dim=2))

    def _captions(self, scenes: LabelledScenes, pictures: Tensor, scale: Tensor) -> Tensor:
        """Contrast with captions of all subjects, and with the same but for one object."""
        rows, right, wrong = [], [], []
        first = slice(self.config.described)
        subjects = torch.where(scenes.subject, scenes.classes, -1)[first].tolist()
        named = zip(subjects, scenes.colours[first].tolist(), strict=True)
        for b, (classes, colours) in enumerate(named):
            present = [k for k, row in enumerate(classes) if row >= 0]
            if not present:
                continue
            self.draw.shuffle(present)
            nouns = [self._noun(classes[k], colours[k]) for k in present]
            rows.append(b)
            right.append(describe(nouns, self.draw))
            other = self.draw.randrange(len(self.objects))
            while other in classes:
                other = self.draw.randrange(len(self.objects))
            nouns[self.draw.randrange(len(nouns))] = self._noun(other, -1)
            wrong.append(describe(nouns, self.draw))
        if not rows:
            return scale.new_zeros(())
        return clip_losses.caption_loss(
            pictures[rows], self._texts(right), self._texts(wrong), scale
        )

    def _noun(self, row: int, colour: int) -> str:
        name = self.objects[row].name
        word = colour_name(colour)
        return f"{word} {name}" if word and self.draw.random() < 0.5 else name


class MixedSizes:
    """Draws batches of labelled scenes of one size at a time."""

    def __init__(self, atlas: Atlas, stage: Stage, seed: int) -> None:
        self.draw = random.Random(seed)
        self.views = stage.views
        self.generators = [
            LabelledSceneGenerator(
                atlas,
                atlas.training_sprites(),
                SceneConfig(
                    size=one.size,
                    max_objects=one.max_objects,
                    min_scale=one.min_scale,
                    max_scale=one.max_scale,
                    close_up_probability=0.4,
                    max_turn_degrees=30.0,
                ),
                seed=seed + one.size,
                prompted_share=stage.prompted,
                recoloured_share=stage.recoloured,
                redrawn_share=stage.redrawn,
            )
            for one in stage.views
        ]

    def batch(self) -> LabelledScenes:
        (k,) = self.draw.choices(range(len(self.views)), [one.share for one in self.views])
        return self.generators[k].batch(self.views[k].batch)


def train(run_config: RunConfig, data: Path, training: ClipTraining | None = None) -> Path:
    """Train within the run's time budget and export ``clip_embedded``; return its path."""
    training = training or ClipTraining(seed=run_config.seed)
    torch.manual_seed(training.seed)
    model = build_clip()
    if run_config.start_from:
        start = read_state_dict(run_config.start_from)
        load_weights(model, start, name=run_config.start_from.name)
    matrices = [k for k, p in model.named_parameters() if "resblocks." in k and p.ndim == 2]
    run = TrainingRun(model, run_config, matrices=matrices)
    atlas, seed = load_atlas(data).to(run.device), training.seed + run.step
    stages = [
        (stage.end, MixedSizes(atlas, stage, seed + number))
        for number, stage in enumerate(training.stages)
    ]
    objective = ClipObjective(run.model, training)
    for _ in run.steps():
        # Weights to start from can name objects already.
        now = 1.0 if run_config.start_from else run.progress
        batch = next(one for end, one in stages if now <= end).batch()
        # On a CPU the fused attention's backward pass makes a step a third longer than products do.
        with run.accelerator.autocast(), sdpa_kernel(SDPBackend.MATH):
            loss, figures = objective(batch)
        run.update(loss, **figures)
    return export(run, training)


def export(run: TrainingRun, training: ClipTraining) -> Path:
    """Write weights and card, which says what the model knows."""
    start = run.config.start_from
    begun = f" --start-from {start}" if start else ""
    before = json.loads(start.with_suffix(".json").read_text("utf-8"))["training"] if start else {}
    card = {
        "id": "clip_embedded",
        "license": "Apache-2.0",
        "config": {"model": EMBEDDED},
        "credits": CREDITS,
        "knows": [item.name for item in known_objects()],
        "training": {
            "command": f"python -m core.training clip --minutes {run.config.minutes:g} "
            f"--learning-rate {run.config.learning_rate:g} "
            f"--matrix-rate {run.config.matrix_rate:g}{begun}",
            "data": "sticker world: objects of the table that are no test objects, every art "
            f"style but the held-out one ({HELD_OUT_STYLE})",
            **({"before": before["command"]} if start else {}),
            **asdict(training),
        },
    }
    return run.export("clip_embedded", card, half=True)
