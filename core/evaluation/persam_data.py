"""A benchmark like PerSeg: one object, a reference picture, and other pictures with and without it.

Either made from held-out sticker objects (the object stays the same drawing; background, scale,
turn, light and distractors of its category change), or read from PerSeg's own folder layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.errors import ImageError
from core.evaluation.data import PICTURE_SUFFIXES, Example
from core.images import load
from core.persam.target import Reference
from core.stickers.atlas import Atlas
from core.stickers.categories import categories
from core.stickers.scenes import Cast, SceneConfig, SceneGenerator

PICTURES = 5  # of each object, and as many without it
DISTRACTORS = 2  # at least, of the same category, in every picture
MIN_VISIBLE = 0.6  # of the object; the reference shows it whole
MIN_REFERENCE_VISIBLE = 0.97
MIN_DISTRACTOR_VISIBLE = 0.3
MIN_AREA = 0.01  # of the picture
TRIES = 8  # scenes per round, of which the fitting ones are kept
MAX_ROUNDS = 100

REFERENCE = SceneConfig(
    min_objects=1, max_objects=1, min_scale=0.45, max_scale=0.75, texture_probability=0
)
TEST = SceneConfig(
    min_objects=3, max_objects=5, min_scale=0.22, max_scale=0.5, texture_probability=0
)


@dataclass(frozen=True, eq=False)
class Subject:
    """One object to personalize.

    Args:
        reference: the picture and mask that are given.
        examples: pictures with the object; each one's single mask (1, H, W) is the truth.
        absent: pictures without it, RGB uint8 (H, W, 3).
        distractors: objects of the same category in each example and absent picture, at least.
    """

    name: str
    category: str
    reference: Reference
    examples: tuple[Example, ...]
    absent: tuple[NDArray[np.uint8], ...] = field(default=())
    distractors: int = 0


def sticker_subjects(
    folder: Path,
    count: int,
    *,
    held_out_style: bool = False,
    training_objects: bool = False,
    seed: int = 2026,
) -> Iterator[Subject]:
    """Yield ``count`` subjects made of held-out sticker objects, at 256 px.

    Args:
        held_out_style: draw all of them in the art style that no model has seen.
        training_objects: use objects of the training split instead, to calibrate on.
    """
    from core.stickers.atlas import load_atlas

    atlas = load_atlas(folder)
    category = categories(folder, atlas)
    yield from make_subjects(
        atlas, category, count, held_out_style, training_objects=training_objects, seed=seed
    )


def make_subjects(
    atlas: Atlas,
    category: dict[str, str],
    count: int,
    held_out_style: bool,
    *,
    training_objects: bool = False,
    only: Collection[str] = (),
    seed: int,
) -> Iterator[Subject]:
    """Compose the subjects from an atlas. See sticker_subjects.

    Args:
        category: by object id.
        only: sprites as "name (style)"; none given: any.
    """
    sprites = atlas.test_sprites(held_out_style=held_out_style)
    if training_objects:
        sprites = atlas.training_sprites()
    indices = [i for i in sprites.tolist() if atlas.infos[i].object_id in category]
    by_category: dict[str, list[int]] = defaultdict(list)
    for i in indices:
        by_category[category[atlas.infos[i].object_id]].append(i)
    random = np.random.default_rng(seed)
    seen: set[str] = set()
    made = 0
    for i in random.permutation(indices).tolist():
        info = atlas.infos[i]
        group = category[info.object_id]
        rivals = [j for j in by_category[group] if atlas.infos[j].object_id != info.object_id]
        others = [j for j in indices if atlas.infos[j].object_id != info.object_id]
        if only and f"{info.name} ({info.style})" not in only:
            continue
        if info.object_id in seen or len({atlas.infos[j].object_id for j in rivals}) < DISTRACTORS:
            continue
        if made == count:
            return
        seen.add(info.object_id)
        made += 1
        yield _subject(atlas, i, group, rivals, others, test_photos=not training_objects)


def _subject(
    atlas: Atlas,
    sprite: int,
    category: str,
    rivals: list[int],
    others: list[int],
    *,
    test_photos: bool,
) -> Subject:
    random = np.random.default_rng(sprite)
    own = torch.tensor([sprite])
    studio, outdoors = (
        SceneGenerator(atlas, own, config=config, seed=sprite, test_photos=test_photos)
        for config in (REFERENCE, TEST)
    )

    def with_object() -> Tensor:
        rows = []
        for _ in range(TRIES):
            row = [*_company(random, rivals, others), sprite]
            random.shuffle(row)
            rows.append(row + [-1] * (TEST.max_objects - len(row)))
        return torch.tensor(rows)

    def without() -> Tensor:
        rows = [_company(random, rivals, others) for _ in range(TRIES)]
        return torch.tensor([row + [-1] * (TEST.max_objects - len(row)) for row in rows])

    (image, mask), *_ = _keep(studio, lambda: own.expand(TRIES, 1), sprite, rivals, 1)
    examples = _keep(outdoors, with_object, sprite, rivals, PICTURES)
    absent = _keep(outdoors, without, None, rivals, PICTURES)
    assert mask is not None
    info = atlas.infos[sprite]
    return Subject(
        name=f"{info.name} ({info.style})",
        category=category,
        reference=Reference(image, mask),
        examples=tuple(
            Example(f"{k:02d}", image, mask[None])
            for k, (image, mask) in enumerate(examples, start=1)
            if mask is not None
        ),
        absent=tuple(image for image, _ in absent),
        distractors=DISTRACTORS,
    )


def _company(random: np.random.Generator, rivals: list[int], others: list[int]) -> list[int]:
    """Two or three objects of the category, and up to one of any."""
    chosen = random.choice(rivals, DISTRACTORS + int(random.integers(2))).tolist()
    return chosen + random.choice(others, int(random.integers(2))).tolist()


def _keep(
    scenes: SceneGenerator,
    plan: Callable[[], Tensor],
    sprite: int | None,
    rivals: list[int],
    count: int,
) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
    """Draw until ``count`` scenes show what they should: pictures, and the object's mask if any."""
    kept: list[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]] = []
    rival = torch.tensor(rivals)
    wanted, visible_enough = (
        (DISTRACTORS, MIN_VISIBLE) if scenes.config is TEST else (0, MIN_REFERENCE_VISIBLE)
    )
    for _ in range(MAX_ROUNDS):
        sprites = plan()
        light = scenes.draw_light(sprites.numel()).view(*sprites.shape, 3)
        batch = scenes.compose(Cast(sprites, light, torch.full_like(sprites, -1)))
        visible = batch.visible_fractions
        company = torch.isin(batch.sprite_indices, rival) & (visible >= MIN_DISTRACTOR_VISIBLE)
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        ids = batch.instance_ids.cpu().numpy()
        for b in (company.sum(dim=1) >= wanted).nonzero().flatten().tolist():
            mask = None
            if sprite is not None:
                k = int((batch.sprite_indices[b] == sprite).nonzero()[0])
                mask = ids[b] == k + 1
                if visible[b, k] < visible_enough or mask.mean() < MIN_AREA:
                    continue
            kept.append((np.ascontiguousarray(images[b]), mask))
            if len(kept) == count:
                return kept
    raise RuntimeError(f"only {len(kept)} of {count} scenes fit in {MAX_ROUNDS} rounds")


def perseg_subjects(folder: Path) -> Iterator[Subject]:
    """Read PerSeg: ``Images/<object>/NN.jpg`` and ``Annotations/<object>/NN.png``.

    The first picture is the reference. Pictures and masks are paired by name; a mask is all that
    is not black. Beyond PerSeg: ``Absent/<object>/*``, if there, are pictures without the object.

    Raises:
        ImageError: the folders are missing, or a picture has no mask.
    """
    objects = sorted(p for p in (folder / "Images").glob("*") if p.is_dir())
    if not objects:
        raise ImageError(f"{folder} has no Images/ with a folder for each object (PerSeg).")
    for path in objects:
        pairs = [
            (p.stem, load(p).image, _annotation(folder / "Annotations" / path.name, p.stem))
            for p in sorted(path.iterdir())
            if p.suffix.lower() in PICTURE_SUFFIXES
        ]
        if len(pairs) < 2:
            raise ImageError(f"{path.name} has {len(pairs)} pictures: two or more are needed.")
        (_, image, mask), *rest = pairs
        examples = tuple(Example(stem, image, mask[None]) for stem, image, mask in rest)
        without = sorted((folder / "Absent" / path.name).glob("*"))
        absent = tuple(load(p).image for p in without if p.suffix.lower() in PICTURE_SUFFIXES)
        yield Subject(path.name, "", Reference(image, mask), examples, absent)


def _annotation(folder: Path, stem: str) -> NDArray[np.bool_]:
    path = folder / f"{stem}.png"
    if not path.is_file():
        raise ImageError(f"{path.name} is missing in {folder.name}: every picture needs a mask.")
    with Image.open(path) as picture:
        values = np.atleast_3d(
            np.asarray(picture if picture.mode == "P" else picture.convert("RGB"))
        )
    return np.max(values, axis=2) > 0
