"""Make the Personalize tab's examples, and the small held-out set that PerSAM is tested on.

``python tests/data/make_personal.py data/stickers`` writes ``assets/examples/personal`` (objects
chosen by their names alone) and ``personal`` beside this file in PerSeg's layout, with pictures of
each object's surroundings without it in ``Absent``: the first subjects of a seed that nothing else
uses. Art: Fluent emoji (MIT), Twemoji (CC BY 4.0), OpenMoji (CC BY-SA 4.0), over photographs named
in the sticker world's sources. Run it from the project's root.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from core.evaluation.persam_data import Subject, make_subjects
from core.evaluation.persam_video import make_clips
from core.persam.clips import write_clip
from core.stickers.atlas import Atlas, load_atlas
from core.stickers.categories import categories

SEED = 77
TESTED = 10
EXAMPLES = ("teapot (fluent_3d)", "motor scooter (fluent_3d)", "rooster (fluent_3d)")
CREDIT = "Fluent emoji by Microsoft, MIT, over photographs credited in the model card"
FRAME_RATE = 8.0
CLIP_OBJECT = "Flamingo"  # what the seed's first clip begins with


def write_set(folder: Path, subject: Subject) -> None:
    """A reference with its mask, the pictures with the object, and one without it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_jpeg(folder / "reference.jpg", subject.reference.image)
    save_mask(folder / "reference_mask.png", subject.reference.mask)
    pictures = [example.image for example in subject.examples] + [subject.absent[0]]
    for number, image in enumerate(pictures, start=1):
        save_jpeg(folder / f"{number:02d}.jpg", image)


def write_clip_set(folder: Path, atlas: Atlas, category: dict[str, str]) -> None:
    """The first frame of a clip with the mask of its first object, and the clip."""
    sprites = [i for i in atlas.test_sprites().tolist() if atlas.infos[i].style == "fluent_3d"]
    clip = next(make_clips(atlas, sprites, category, 1, seed=SEED))
    folder.mkdir(parents=True, exist_ok=True)
    save_jpeg(folder / "reference.jpg", clip.frames[0])
    save_mask(folder / "reference_mask.png", clip.labels[0] == 1)
    write_clip(folder / "clip.mp4", clip.frames, FRAME_RATE)


def write_tested(folder: Path, subjects: list[Subject]) -> None:
    """PerSeg's folders, and ``Absent`` beside them."""
    for number, subject in enumerate(subjects):
        name = f"{number:02d}"
        for kind in ("Images", "Annotations", "Absent"):
            (folder / kind / name).mkdir(parents=True, exist_ok=True)
        pairs = [(subject.reference.image, subject.reference.mask)]
        pairs += [(example.image, example.masks[0]) for example in subject.examples]
        for k, (image, mask) in enumerate(pairs):
            save_jpeg(folder / "Images" / name / f"{k:02d}.jpg", image)
            save_mask(folder / "Annotations" / name / f"{k:02d}.png", mask)
        for k, image in enumerate(subject.absent, start=1):
            save_jpeg(folder / "Absent" / name / f"{k:02d}.jpg", image)


def save_jpeg(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, quality=92)


def save_mask(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(path, optimize=True)


def main(stickers: Path) -> None:
    atlas = load_atlas(stickers)
    category = categories(stickers, atlas)
    examples = Path("assets/examples/personal")
    facts = {}
    chosen = make_subjects(atlas, category, len(EXAMPLES), False, only=EXAMPLES, seed=SEED)
    for subject in sorted(chosen, key=lambda subject: EXAMPLES.index(subject.name)):
        title = subject.name.partition(" (")[0].capitalize()
        name = title.lower().replace(" ", "_")
        write_set(examples / name, subject)
        facts[name] = {"title": title, "object": title, "credit": CREDIT}
    write_clip_set(examples / "clip", atlas, category)
    facts["clip"] = {"title": "A clip", "object": CLIP_OBJECT, "credit": CREDIT}
    (examples / "sets.json").write_text(json.dumps(facts, indent=1) + "\n")
    tested = make_subjects(atlas, category, TESTED, False, seed=SEED)
    write_tested(Path(__file__).parent / "personal", list(tested))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
