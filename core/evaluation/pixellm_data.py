"""Talks about pictures with true masks: the sticker world's, made as in MUSE (PixelLM, section 4).

Real data are read in ``pixellm_layouts``. Here, the objects are known to the embedded model, which
cannot name what it never saw; the photographs, the renderings and, in the held-out set, the art
style were never trained on. Wordings are those of training or, apart, held-out ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from core.pixellm.conversation import AnswerStyle
from core.stickers.scenes import SceneConfig
from core.stickers.sources import HELD_OUT_STYLE

if TYPE_CHECKING:
    from core.training.pixellm_scenes import Thing

SIZE = 256  # px
MAX_OBJECTS = 5
SCALES = (0.26, 0.7)
SEED = 2029

# How masks of an answer meet the truth: the best one to one pairs (MUSE), all of them together as
# one mask (one thing is asked for), or in order (several are, in order).
Matching = Literal["pairs", "merged", "ordered"]


@dataclass(frozen=True, eq=False)
class Asked:
    """One question with its truth.

    Args:
        kind: of question, for figures by kind.
        truth: bool (N, H, W), the targets; N = 0 if nothing should be marked.
        descriptions: for each target what it may be called, the first one said best.
        nothing: the question asks for something that is not there.
        objects: bool (M, H, W), all that is in the picture; None where that is not known.
        ignored: bool (H, W), pixels that do not count; None: all count.
    """

    kind: str
    question: str
    truth: NDArray[np.bool_]
    descriptions: tuple[tuple[str, ...], ...] = ()
    nothing: bool = False
    objects: NDArray[np.bool_] | None = None
    ignored: NDArray[np.bool_] | None = None
    matching: Matching = "pairs"
    style: AnswerStyle = "as_asked"


@dataclass(frozen=True, eq=False)
class Talk:
    """A picture, RGB uint8 (H, W, 3), and the questions of one conversation about it."""

    image: NDArray[np.uint8]
    asked: tuple[Asked, ...]


def sticker_talks(
    folder: Path,
    count: int,
    *,
    held_out_style: bool = False,
    held_out_wording: bool = False,
    seed: int = SEED,
) -> Iterator[Talk]:
    """Yield a talk of one to three turns about each of ``count`` scenes of 1 to 5 objects.

    The scenes are the same in both wordings.
    """
    from core.stickers.atlas import load_atlas
    from core.training.pixellm_questions import converse
    from core.training.pixellm_scenes import ChatSceneGenerator

    atlas = load_atlas(folder)
    sprites = (
        atlas.select(lambda info: info.style == HELD_OUT_STYLE)
        if held_out_style
        else atlas.training_sprites()
    )
    low, high = SCALES
    config = SceneConfig(size=SIZE, max_objects=MAX_OBJECTS, min_scale=low, max_scale=high)
    generator = ChatSceneGenerator(atlas, sprites, config, seed=seed, test_photos=True)
    draw = random.Random(seed)
    done = 0
    while done < count:
        batch = generator.batch(16)
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        for b, scene in enumerate(batch.scenes):
            if not scene.things or done >= count:
                continue
            done += 1
            things = {thing.number: thing for thing in scene.things}
            masks = {n: batch.masks(b, [n])[0].cpu().numpy() for n in things}
            asked = [
                Asked(
                    kind=exchange.kind,
                    question=exchange.question,
                    truth=_stack([masks[n] for n in exchange.targets], SIZE),
                    descriptions=tuple(descriptions(things[n]) for n in exchange.targets),
                    nothing=exchange.nothing,
                    objects=_stack(list(masks.values()), SIZE),
                )
                for exchange in converse(scene, draw, held_out=held_out_wording)
            ]
            yield Talk(np.ascontiguousarray(images[b]), tuple(asked))


def descriptions(thing: Thing) -> tuple[str, ...]:
    """What a thing may be called."""
    item = thing.item
    return (item.name, *item.synonyms, item.category)


def _stack(masks: list[NDArray[np.bool_]], size: int) -> NDArray[np.bool_]:
    return np.array(masks, bool).reshape(-1, size, size)
