"""Make the Text query tab's examples: ``python tests/data/make_text.py data/stickers``.

Writes ``assets/examples/text``: scenes of objects that the embedded CLIP knows, in renderings never
trained on, over photographs never trained on, and ``scenes.json`` with what is asked of each. Of
the scenes that a seed draws the first is taken in which every object is large and well visible,
whatever a model makes of it. Run it from the project's root.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image

from core.stickers.atlas import Atlas, load_atlas
from core.stickers.objects import find_object
from core.stickers.scenes import Cast, SceneConfig, SceneGenerator, Scenes

FOLDER = Path("assets/examples/text")
STYLE = "fluent_3d"
CREDIT = "Fluent emoji by Microsoft, MIT, over photographs credited in the model card"
DRAWN, SAVED = 320, 512  # px
SEED = 407
LEAST_SHARE = 0.03  # of the picture, that every object covers
LEAST_VISIBLE = 0.85  # of an object
TRIES = 150
QUALITY = 84

# Title, objects back to front, and words that are asked for and not there.
SCENES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "farm": ("Farm animals", ("cow", "tractor", "pig"), ("horse", "sheep", "truck")),
    "breakfast": (
        "Breakfast",
        ("croissant", "cup of coffee", "banana"),
        ("bread", "egg", "glass of milk", "hamburger"),
    ),
    "street": ("Street", ("bus", "bicycle", "fire engine"), ("car", "train", "motorcycle")),
    "zoo": ("Zoo", ("elephant", "penguin", "giraffe"), ("zebra", "lion", "panda", "owl")),
    "music": ("Music", ("guitar", "trumpet", "accordion"), ("piano", "violin", "radio")),
    "garden": ("Garden", ("sunflower", "butterfly", "frog"), ()),
}
# Asked for one by one, instead of the words.
PHRASES = {"garden": ("the yellow sunflower", "the green frog", "the red butterfly")}


def main(stickers: Path) -> None:
    atlas = load_atlas(stickers)
    config = SceneConfig(
        size=DRAWN,
        max_objects=3,
        min_scale=0.3,
        max_scale=0.5,
        max_turn_degrees=15.0,
        plain_background_probability=0.0,
        texture_probability=0.0,
        noise_probability=0.0,
        jpeg_probability=0.0,
        blur_probability=0.0,
    )
    generator = SceneGenerator(atlas, torch.empty(0), config=config, seed=SEED, test_photos=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, (title, there, absent) in SCENES.items():
        sprites = torch.tensor([[sprite_of(atlas, word) for word in there]] * TRIES)
        tones = generator.draw_light(sprites.numel()).view(*sprites.shape, 3)
        scenes = generator.compose(Cast(sprites, tones, torch.full(sprites.shape, -1)))
        index = next(b for b in range(TRIES) if is_clear(scenes, b, len(there)))
        image = Image.fromarray(scenes.images[index].permute(1, 2, 0).numpy())
        enlarged = image.resize((SAVED, SAVED), Image.Resampling.BICUBIC)
        enlarged.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
        facts[f"{name}.jpg"] = {
            "title": title,
            "mode": "phrases" if name in PHRASES else "words",
            "words": list(PHRASES.get(name, sorted([*there, *absent]))),
            "credit": CREDIT,
        }
    (FOLDER / "scenes.json").write_text(json.dumps(facts, indent=1) + "\n")


def sprite_of(atlas: Atlas, word: str) -> int:
    """The picture of an object in the one style, by the object's name."""
    known = find_object(word)
    assert known is not None and known.split == "train", f"the embedded CLIP knows no {word}"
    wanted = (STYLE, known.code_point)
    return next(k for k, one in enumerate(atlas.infos) if (one.style, one.object_id) == wanted)


def is_clear(scenes: Scenes, b: int, count: int) -> bool:
    """Whether all objects of one scene are large, hardly hidden and not cut off."""
    ids = scenes.instance_ids[b]
    cut = any(bool(side.any()) for side in (ids[0], ids[-1], ids[:, 0], ids[:, -1]))
    large = all(float((ids == k).float().mean()) >= LEAST_SHARE for k in range(1, count + 1))
    return large and not cut and float(scenes.visible_fractions[b].min()) >= LEAST_VISIBLE


if __name__ == "__main__":
    main(Path(sys.argv[1]))
