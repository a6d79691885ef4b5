"""Make the chat tab's examples: ``python -m tests.data.make_chat data/stickers``.

Writes ``assets/examples/chat``: scenes of objects that the embedded PixelLM knows, in renderings
never trained on, over photographs never trained on, and ``scenes.json`` with questions about each.
Scenes are chosen as those of the text queries are. Run it from the project's root.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image

from core.stickers.atlas import load_atlas
from core.stickers.scenes import Cast, SceneConfig, SceneGenerator
from tests.data.make_text import CREDIT, QUALITY, SAVED, is_clear, sprite_of

FOLDER = Path("assets/examples/chat")
DRAWN = 320  # px
SEED = 731
TRIES = 150
ROUNDS = 8

# Title, objects back to front, questions, to the last of which nothing fits.
SCENES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "table": (
        "Clock and apple",
        ("alarm clock", "apple", "knife", "cup of coffee"),
        (
            "What here could I use to find out the time?",
            "I am hungry. What can I eat and what would I cut it with?",
            "Is there anything I could drink?",
            "Which of these can fly?",
        ),
    ),
    "pond": (
        "Frog and duck",
        ("sailboat", "duck", "frog", "butterfly"),
        (
            "Which of these can fly?",
            "What here is alive?",
            "What belongs in the water?",
            "What could I use to find out the time?",
        ),
    ),
    "street": (
        "Bus and cat",
        ("bus", "bicycle", "cat", "mailbox"),
        (
            "I have to go to another town. What could take me there?",
            "Which of these have wheels?",
            "Where is the animal?",
            "What could I use to repair something?",
        ),
    ),
    "workshop": (
        "Tools",
        ("flashlight", "hammer", "saw", "sponge"),
        (
            "It is dark. What could help me?",
            "What could I use to repair something?",
            "What is yellow?",
            "Which of these is alive?",
        ),
    ),
    "apples": (
        "Two apples",
        ("apple", "apple", "dog"),
        (
            "Where is the left apple?",
            "And the other one?",
            "How many apples are there?",
            "Is there a banana?",
        ),
    ),
    "wardrobe": (
        "Hat and guitar",
        ("guitar", "top hat", "boot", "umbrella"),
        (
            "What would I put on my head?",
            "I would like to play a song.",
            "What do you see in this picture?",
            "What can I drink?",
        ),
    ),
}


def main(stickers: Path) -> None:
    atlas = load_atlas(stickers)
    config = SceneConfig(
        size=DRAWN,
        max_objects=4,
        min_scale=0.27,
        max_scale=0.42,
        max_turn_degrees=12.0,
        plain_background_probability=0.0,
        texture_probability=0.0,
        noise_probability=0.0,
        jpeg_probability=0.0,
        blur_probability=0.0,
    )
    generator = SceneGenerator(atlas, torch.empty(0), config=config, seed=SEED, test_photos=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, (title, there, questions) in SCENES.items():
        sprites = torch.tensor([[sprite_of(atlas, word) for word in there]] * TRIES)
        image = Image.fromarray(first_clear(generator, sprites).permute(1, 2, 0).numpy())
        enlarged = image.resize((SAVED, SAVED), Image.Resampling.BICUBIC)
        enlarged.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
        facts[f"{name}.jpg"] = {"title": title, "questions": list(questions), "credit": CREDIT}
    (FOLDER / "scenes.json").write_text(json.dumps(facts, indent=1) + "\n")


def first_clear(generator: SceneGenerator, sprites: torch.Tensor) -> torch.Tensor:
    """The first of many scenes (3, S, S) in which every object is large and well visible."""
    for _ in range(ROUNDS):
        tones = generator.draw_light(sprites.numel()).view(*sprites.shape, 3)
        scenes = generator.compose(Cast(sprites, tones, torch.full(sprites.shape, -1)))
        for index in range(len(sprites)):
            if is_clear(scenes, index, sprites.shape[1]):
                return scenes.images[index]
    raise RuntimeError(f"no clear scene in {ROUNDS * len(sprites)}: draw smaller objects")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
