"""Make the DreamBooth tab's example subjects.

``python tests/data/make_dreambooth.py data/stickers`` writes ``assets/examples/dreambooth``, with a
folder for each: one held-out thing alone in five places, and ``mask.png`` of the first picture.
Art: Fluent emoji (MIT), over photographs named in the sticker world's sources. Run it from the
project's root.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.stickers.atlas import Atlas, load_atlas
from core.stickers.scenes import Cast, SceneConfig, SceneGenerator

SEED = 4
PICTURES = 5
SIDE = 256
MOST_BYTES = 25_000
THINGS = {"teapot": "teapot", "rooster": "rooster", "luggage": "suitcase"}  # with their nouns
STYLE = "fluent_3d"
CREDIT = "Fluent emoji by Microsoft, MIT, over photographs credited in the model card"
ALONE = SceneConfig(
    min_objects=1, max_objects=1, min_scale=0.45, max_scale=0.7, texture_probability=0
)


def draw_alone(atlas: Atlas, sprite: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures RGB uint8 (256, 256, 3) of one thing in different places, with its masks."""
    scenes = SceneGenerator(
        atlas, torch.tensor([sprite]), config=ALONE, seed=SEED + sprite, test_photos=True
    )
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    while len(kept) < count:
        sprites = torch.full((count, 1), sprite)
        light = scenes.draw_light(count).view(count, 1, 3)
        batch = scenes.compose(Cast(sprites, light, torch.full_like(sprites, -1)))
        whole = (batch.visible_fractions[:, 0] > 0.97).tolist()
        for image, ids, is_whole in zip(batch.images, batch.instance_ids, whole, strict=True):
            mask = ids.numpy() > 0
            inside = not (mask[[0, -1]].any() or mask[:, [0, -1]].any())
            if is_whole and inside:
                kept.append((image.permute(1, 2, 0).numpy(), mask))
    return kept[:count]


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write as good a JPEG as MOST_BYTES allow."""
    picture = Image.fromarray(image).resize((SIDE, SIDE))
    for quality in range(92, 40, -4):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return


def main(stickers: Path) -> None:
    atlas = load_atlas(stickers)
    folder = Path("assets/examples/dreambooth")
    facts = {}
    for name, noun in THINGS.items():
        (sprite,) = (
            i
            for i in atlas.test_sprites().tolist()
            if (atlas.infos[i].name, atlas.infos[i].style) == (name, STYLE)
        )
        place = folder / noun
        place.mkdir(parents=True, exist_ok=True)
        for number, (image, mask) in enumerate(draw_alone(atlas, sprite, PICTURES), start=1):
            save_jpeg(place / f"{number:02d}.jpg", image)
            if number == 1:
                Image.fromarray(mask).resize((SIDE, SIDE)).save(place / "mask.png", optimize=True)
        facts[noun] = {
            "title": noun.capitalize(),
            "class_noun": noun,
            "marked": 1,
            "credit": CREDIT,
        }
    (folder / "subjects.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
