"""Scenes with words for text queries: which of many are in the picture, and where; phrases.

The sticker world's are made here, real ones read in ``car_layouts``. Here, all objects are known to
the embedded CLIP, which cannot name what it never saw; the photographs, the renderings and, in the
held-out set, the art style were never trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.evaluation.persam_davis import VideoSequence
from core.stickers.colours import COLOURS
from core.stickers.objects import ObjectType
from core.stickers.scenes import SceneConfig
from core.stickers.sources import HELD_OUT_STYLE

SIZE = 256  # px
CANDIDATES = 20
MAX_OBJECTS = 5
MIN_AREA = 0.01  # of the picture, for an object to be asked for
SEED = 2027
IGNORED = 255


@dataclass(frozen=True, eq=False)
class WordScene:
    """One picture and the words that are asked of it.

    Args:
        image: RGB uint8 (H, W, 3).
        words: candidates, in a drawn order.
        labels: (H, W), 0 background, k + 1 where ``words[k]`` is; IGNORED where pixels do not
            count: too little of an object is visible to be asked for, or nobody labelled it.
    """

    image: NDArray[np.uint8]
    words: tuple[str, ...]
    labels: NDArray[np.uint8]

    @property
    def true_words(self) -> tuple[str, ...]:
        """Those that are in the picture."""
        numbers = set(np.unique(self.labels).tolist()) - {0, IGNORED}
        return tuple(word for k, word in enumerate(self.words) if k + 1 in numbers)


@dataclass(frozen=True, eq=False)
class PhraseScene:
    """One picture, phrases that all mean one object in it, and that object's mask (H, W)."""

    image: NDArray[np.uint8]
    phrases: tuple[str, ...]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PhraseClip:
    """A clip, and phrases for its objects.

    Args:
        phrases: by annotator, then by the object's number.
    """

    sequence: VideoSequence
    phrases: Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, eq=False)
class _Scene:
    """A drawn scene.

    Args:
        objects: those to be asked for, with their colours (None: no one colour) and masks.
        small: names of those that are too small for it.
        hidden: (H, W), where any others are.
    """

    image: NDArray[np.uint8]
    objects: list[tuple[ObjectType, str | None, NDArray[np.bool_]]]
    small: frozenset[str]
    hidden: NDArray[np.bool_]


def word_scenes(
    folder: Path, count: int, *, held_out_style: bool = False, seed: int = SEED
) -> Iterator[WordScene]:
    """Yield ``count`` scenes of 1 to 5 objects, with 20 candidate words each."""
    from core.training.clip_scenes import known_objects

    draw = random.Random(seed)
    everything = [item.name for item in known_objects()]
    for scene in _scenes(folder, count, held_out_style=held_out_style, seed=seed):
        true = list(dict.fromkeys(item.name for item, _, _ in scene.objects))
        absent = [name for name in everything if name not in scene.small.union(true)]
        others = draw.sample(absent, CANDIDATES)
        words = [*true, *others[: CANDIDATES - len(true)]]
        draw.shuffle(words)
        labels = np.where(scene.hidden, IGNORED, 0).astype(np.uint8)
        for item, _, mask in scene.objects:
            labels[mask] = words.index(item.name) + 1
        yield WordScene(scene.image, tuple(words), labels)


def phrase_scenes(
    folder: Path, count: int, *, held_out_style: bool = False, seed: int = SEED + 1
) -> Iterator[PhraseScene]:
    """Yield ``count`` scenes with a phrase of colour and kind that means exactly one object."""
    draw = random.Random(seed)
    found = 0
    for scene in _scenes(folder, None, held_out_style=held_out_style, seed=seed):
        choices = [
            (phrase, mask)
            for item, colour, mask in scene.objects
            if colour is not None
            for phrase in (f"the {colour} {item.category}", f"the {colour} {item.name}")
            if _is_unique(phrase, scene)
        ]
        if len(scene.objects) < 2 or not choices:
            continue
        phrase, mask = draw.choice(choices)
        yield PhraseScene(scene.image, (phrase,), mask)
        found += 1
        if found == count:
            return


def _is_unique(phrase: str, scene: _Scene) -> bool:
    """Whether a phrase means one object of the scene; one of no clear colour might be meant."""
    meant = 0
    for item, colour, _ in scene.objects:
        colours = COLOURS if colour is None else (colour,)
        phrases = {f"the {c} {noun}" for c in colours for noun in (item.category, item.name)}
        meant += phrase in phrases
    return meant == 1


def _scenes(
    folder: Path, count: int | None, *, held_out_style: bool, seed: int
) -> Iterator[_Scene]:
    from core.stickers.atlas import load_atlas
    from core.training.clip_scenes import LabelledSceneGenerator, known_objects

    atlas = load_atlas(folder)
    sprites = (
        atlas.select(lambda info: info.style == HELD_OUT_STYLE)
        if held_out_style
        else atlas.training_sprites()
    )
    config = SceneConfig(size=SIZE, max_objects=MAX_OBJECTS, min_scale=0.2, max_scale=0.6)
    generator = LabelledSceneGenerator(atlas, sprites, config, seed=seed, test_photos=True)
    objects, done = known_objects(), 0
    while count is None or done < count:
        batch = generator.batch(16)
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        rows = zip(
            images,
            batch.instance_ids.cpu().numpy(),
            batch.classes.tolist(),
            batch.colours.tolist(),
            strict=True,
        )
        for image, ids, classes, colours in rows:
            visible = [
                (objects[row], COLOURS[colour] if colour >= 0 else None, ids == k + 1)
                for k, (row, colour) in enumerate(zip(classes, colours, strict=True))
                if row >= 0
            ]
            shown = [one for one in visible if one[2].mean() >= MIN_AREA]
            if not shown or (count is not None and done >= count):
                continue
            done += 1
            small = frozenset(item.name for item, _, mask in visible if mask.mean() < MIN_AREA)
            seen = np.any([mask for _, _, mask in shown], axis=0)
            yield _Scene(np.ascontiguousarray(image), shown, small, (ids > 0) & ~seen)
