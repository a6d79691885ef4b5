"""Make the small sets that tests score the shipped CLIP and its text queries on.

``python tests/data/make_words.py data/stickers`` writes ``words/``: scenes with 20 candidate words
each, scenes with a phrase each, and sheets of single objects, all in renderings and on photographs
never trained on, of seeds that nothing else uses; one sheet in the held-out style. Art: Fluent
emoji (MIT), Twemoji (CC BY 4.0), OpenMoji (CC BY-SA 4.0), Noto emoji (OFL 1.1), Open Clip Art,
over photographs named in the sticker world's sources. Run it from the project's root.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from core.evaluation.car_data import phrase_scenes, word_scenes
from core.evaluation.clip import single_objects
from core.stickers.atlas import load_atlas
from core.stickers.sources import HELD_OUT_STYLE
from core.training.clip_scenes import known_objects

FOLDER = Path(__file__).parent / "words"
SEED = 78
SCENES, PHRASES = 5, 8
COLUMNS, ROWS = 10, 8  # of a sheet


def main(stickers: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    facts: dict[str, object] = {"words": {}, "phrases": {}, "sheets": {}}
    for k, scene in enumerate(word_scenes(stickers, SCENES, seed=SEED)):
        facts["words"][save(f"words_{k:02d}", scene.image, scene.labels)] = list(scene.words)
    for k, one in enumerate(phrase_scenes(stickers, PHRASES, seed=SEED + 1)):
        name = save(f"phrase_{k:02d}", one.image, one.mask.astype(np.uint8))
        facts["phrases"][name] = list(one.phrases)
    atlas = load_atlas(stickers)
    sheets = {
        "seen_styles": atlas.training_sprites(),
        "held_style": atlas.select(lambda info: info.style == HELD_OUT_STYLE),
    }
    for k, (name, sprites) in enumerate(sheets.items()):
        scenes = single_objects(atlas, sprites, SEED + 2 + k)
        rows = random.Random(SEED).sample(scenes.drawable, COLUMNS * ROWS)
        images = scenes.batch_of([[row] for row in rows]).images.permute(0, 2, 3, 1).numpy()
        sheet = np.vstack(
            [np.hstack(images[at : at + COLUMNS]) for at in range(0, len(rows), COLUMNS)]
        )
        Image.fromarray(sheet).save(FOLDER / f"{name}.jpg", quality=92, optimize=True)
        facts["sheets"][name] = [known_objects()[row].name for row in rows]
    (FOLDER / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def save(name: str, image: np.ndarray, labels: np.ndarray) -> str:
    """Write a picture and its labels; return their name."""
    Image.fromarray(image).save(FOLDER / f"{name}.jpg", quality=92, optimize=True)
    Image.fromarray(labels).save(FOLDER / f"{name}.png", optimize=True)
    return name


if __name__ == "__main__":
    main(Path(sys.argv[1]))
