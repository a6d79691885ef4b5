"""The embedded CLIP: does it name single objects, and does it find a scene by its caption?

Pictures are of the objects that it knows, on photographs never trained on, in renderings never
trained on: of sprites that it saw (``seen_style``), and in an art style that it never saw. The
candidates are all names of the object table, those of objects it never saw among them. A name's
feature is the mean over a few templates, as in CLIP's own zero-shot protocol (section 3.1).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.clip.model import ClipModel
from core.clip.text import average_templates, encode_templates, encode_texts
from core.clip.towers import encode_images
from core.stickers.captions import caption
from core.stickers.objects import load_objects
from core.stickers.scenes import SceneConfig

if TYPE_CHECKING:
    from core.stickers.atlas import Atlas
    from core.training.clip_scenes import LabelledSceneGenerator

SEED = 2026
TEMPLATES = ("{}", "a photo of a {}.", "There is a {} in the scene", "a picture of a {}")
BATCH = 64
SIZE = 128  # px, side of the pictures; the model's own size follows by resizing


@dataclass(frozen=True)
class Naming:
    """Of single objects: ranks (N,) of the true name, 0 the first, and the objects' rows."""

    ranks: Tensor
    rows: Tensor

    def top(self, k: int) -> float:
        return float((self.ranks < k).float().mean())


def evaluate_clip(model: ClipModel, atlas: Atlas, renderings: int) -> tuple[dict[str, float], Any]:
    """Measure naming and retrieval.

    Args:
        renderings: pictures of each known object and art style; as many scenes per ten objects.

    Returns:
        Figures, and per object what it is taken for.
    """
    held_style = atlas.select(lambda info: info.style == "noto")
    unseen, seen = (
        name_objects(model, single_objects(atlas, sprites, seed), renderings)
        for seed, sprites in ((SEED, held_style), (SEED + 1, atlas.training_sprites()))
    )
    figures = {
        "zero_shot_top1": unseen.top(1),
        "zero_shot_top5": unseen.top(5),
        "seen_style_top1": seen.top(1),
        "seen_style_top5": seen.top(5),
        **retrieve(model, atlas),
    }
    return figures, {"worst_in_held_style": worst_objects(unseen), "candidates": len(names())}


def names() -> list[str]:
    """All names of the object table."""
    return [item.name for item in load_objects().values()]


def single_objects(atlas: Atlas, sprites: Tensor, seed: int) -> LabelledSceneGenerator:
    """Pictures of one object each, large enough to be seen whole."""
    from core.training.clip_scenes import LabelledSceneGenerator

    config = SceneConfig(
        size=SIZE, max_objects=1, min_scale=0.45, max_scale=0.95, close_up_probability=1.0
    )
    return LabelledSceneGenerator(
        atlas, sprites, config, seed=seed, test_photos=True, recoloured_share=0.0
    )


def name_objects(model: ClipModel, scenes: LabelledSceneGenerator, renderings: int) -> Naming:
    """Rank all names for ``renderings`` pictures of each known object."""
    from core.training.clip_scenes import known_objects

    features = average_templates(encode_templates(model, names(), TEMPLATES))
    place = {name: i for i, name in enumerate(names())}
    known = torch.tensor([place[item.name] for item in known_objects()])
    ranks, rows = [], []
    for _ in range(renderings):
        for start in range(0, len(scenes.drawable), BATCH):
            wanted = scenes.drawable[start : start + BATCH]
            batch = scenes.batch_of([[row] for row in wanted])
            truth = known[torch.tensor(wanted)]
            logits = encode_pictures(model, batch.images) @ features.T
            own = logits.gather(1, truth[:, None])
            ranks.append((logits > own).sum(dim=1))
            rows.append(torch.tensor(wanted))
    return Naming(torch.cat(ranks), torch.cat(rows))


def retrieve(model: ClipModel, atlas: Atlas, count: int = 100) -> dict[str, float]:
    """Find scenes of two or three objects by their captions, and captions by scenes."""
    from core.training.clip_scenes import LabelledSceneGenerator, known_objects

    config = SceneConfig(size=SIZE, min_objects=2, max_objects=3, min_scale=0.35, max_scale=0.7)
    scenes = LabelledSceneGenerator(
        atlas, atlas.training_sprites(), config, seed=SEED + 2, test_photos=True
    )
    pictures: list[Tensor] = []
    texts: list[str] = []
    objects, draw = known_objects(), random.Random(SEED)
    while len(texts) < count:
        batch = scenes.batch(BATCH)
        pictures.append(encode_pictures(model, batch.images))
        for row in batch.classes.tolist():
            shown = [objects[k].name for k in row if k >= 0]
            draw.shuffle(shown)
            texts.append(caption(shown))
    images = torch.cat(pictures)[:count]
    logits = images @ encode_texts(model, texts[:count]).T
    own = logits.diagonal()[:, None]
    figures = {}
    for name, ranks in (
        ("image_to_text", (logits > own).sum(dim=1)),
        ("text_to_image", (logits.T > own).sum(dim=1)),
    ):
        for k in (1, 5):
            figures[f"{name}_recall_{k}"] = float((ranks < k).float().mean())
    return figures


def encode_pictures(model: ClipModel, images: Tensor) -> Tensor:
    """Encode uint8 (B, 3, S, S) at the model's own size: unit vectors (B, E)."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.mean, model.std))
    size = (model.image_size, model.image_size)
    pixels = F.interpolate(
        images.float() / 255, size, mode="bilinear", align_corners=False, antialias=True
    )
    return encode_images(model, ((pixels - mean) / std).to(model.device)).cpu()


def worst_objects(naming: Naming, count: int = 15) -> dict[str, float]:
    """Share of right names of the objects that it knows least."""
    from core.training.clip_scenes import known_objects

    objects = known_objects()
    shares = {
        objects[row].name: float((naming.ranks[naming.rows == row] == 0).float().mean())
        for row in naming.rows.unique().tolist()
    }
    return dict(sorted(shares.items(), key=lambda pair: pair[1])[:count])
