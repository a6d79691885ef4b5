"""Make the small held-out sets that tests score the shipped weights on.

``python tests/data/make_held_out.py data/stickers`` writes ``held_out/seen_styles`` and
``held_out/held_style`` in the layout of ``core.evaluation --format labels``. The scenes are the
first ones of a seed that nothing else uses; art: Fluent emoji (MIT), Twemoji (CC BY 4.0),
OpenMoji (CC BY-SA 4.0), Noto emoji (OFL 1.1), over photographs named in the sticker world's
sources. Run it from the project's root.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from core.evaluation.data import sticker_examples

SEED = 77
COUNTS = {"seen_styles": 30, "held_style": 15}


def main(stickers: Path) -> None:
    for name, count in COUNTS.items():
        folder = Path(__file__).parent / "held_out" / name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        examples = sticker_examples(stickers, count, held_out_style=name == "held_style", seed=SEED)
        for i, example in enumerate(examples):
            labels = np.zeros(example.image.shape[:2], np.uint8)
            for k, mask in enumerate(example.masks, start=1):
                labels[mask] = k
            Image.fromarray(example.image).save(folder / "images" / f"{i:02d}.jpg", quality=95)
            Image.fromarray(labels).save(folder / "masks" / f"{i:02d}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
