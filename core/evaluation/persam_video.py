"""PerSAM in video on clips like DAVIS: motion, occlusion, exits and re-entries.

Made from held-out sticker objects over a photograph: two objects to follow, one of their category
beside them. The first leaves the picture and comes back, the second one is passed behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.evaluation.metrics import bootstrap_interval
from core.evaluation.persam_davis import VideoSequence, score_sequence
from core.persam.video import VideoConfig, VideoObject, track
from core.sam.predictor import Predictor
from core.stickers.atlas import Atlas
from core.stickers.categories import categories

FRAMES = 24
SIZE = (192, 256)  # (H, W)
SWAY = 0.04  # of the picture's width

# DAVIS 2017 val J&F as the SINE paper quotes it; the first version of PerSAM's paper had 0.719.
PUBLISHED = {"data": "DAVIS 2017 val", "persam_f_j_and_f": 0.761}


@dataclass(frozen=True)
class Motion:
    """A path of an object: length, position and turn at a time from 0 to 1.

    Args:
        start, end: (x, y) in fractions of the picture.
        away: the time at which it is farthest out of the picture; None: it stays.
        length: of the drawing, fraction of the picture's width.
        turn: degrees over the whole time.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    away: float | None
    length: float
    turn: float
    phase: float

    def matrix(self, time: float, side: int) -> NDArray[np.float64]:
        """Affine map (2, 3) from the drawing's pixels to the picture's."""
        height, width = SIZE
        x, y = (a + (b - a) * time for a, b in zip(self.start, self.end, strict=True))
        x += SWAY * np.sin(2 * np.pi * time + self.phase)
        if self.away is not None:  # out to the nearer side and back
            x += np.sign(x - 0.5) * 1.2 * np.exp(-(((time - self.away) / 0.13) ** 2))
        scale = self.length * width / side * (1 + 0.15 * np.sin(3 * time + self.phase))
        matrix = np.asarray(
            cv2.getRotationMatrix2D((side / 2, side / 2), self.turn * time, scale), np.float64
        )
        matrix[:, 2] += np.array([x * width - side / 2, y * height - side / 2])
        return matrix


def sticker_clips(
    folder: Path,
    count: int,
    *,
    held_out_style: bool = False,
    training_objects: bool = False,
    seed: int = 2026,
) -> Iterator[VideoSequence]:
    """Yield ``count`` clips of held-out sticker objects; ``folder`` holds the sticker packages.

    Args:
        training_objects: use objects of the training split instead, to choose settings on.
    """
    from core.stickers.atlas import load_atlas

    atlas = load_atlas(folder)
    sprites = atlas.test_sprites(held_out_style=held_out_style)
    if training_objects:
        sprites = atlas.training_sprites()
    category = categories(folder, atlas)
    yield from make_clips(atlas, sprites.tolist(), category, count, seed=seed)


def make_clips(
    atlas: Atlas, sprites: Sequence[int], category: dict[str, str], count: int, *, seed: int
) -> Iterator[VideoSequence]:
    """Compose the clips; ``category`` maps object ids."""
    random = np.random.default_rng(seed)
    by_category: dict[str, list[int]] = defaultdict(list)
    for i in sprites:
        if atlas.infos[i].object_id in category:
            by_category[category[atlas.infos[i].object_id]].append(i)
    photos = atlas.photo_is_test.nonzero().flatten().tolist()
    usable = [
        group
        for group in by_category.values()
        if len({atlas.infos[i].object_id for i in group}) >= 3
    ]
    for n in range(count):
        group = usable[random.integers(len(usable))]
        chosen: list[int] = []
        for i in random.permutation(group).tolist():
            if all(atlas.infos[i].object_id != atlas.infos[j].object_id for j in chosen):
                chosen.append(i)
        photo = atlas.photos[random.choice(photos)].permute(1, 2, 0).numpy()
        yield _clip(atlas, chosen[:3], photo, f"clip {n:02d}", random)


def _clip(
    atlas: Atlas,
    sprites: Sequence[int],
    photo: NDArray[np.uint8],
    name: str,
    random: np.random.Generator,
) -> VideoSequence:
    """Two objects and a third one of their category that nobody follows."""
    height, width = SIZE
    side = atlas.sprites.shape[-1]
    drawings = [atlas.sprites[i].permute(1, 2, 0).numpy().astype(np.float32) for i in sprites]

    def motion(start: float, end: float, row: float, away: float | None) -> Motion:
        return Motion(
            (start, row),
            (end, row + random.uniform(-0.08, 0.08)),
            away,
            random.uniform(0.26, 0.36),
            random.uniform(-35, 35),
            random.uniform(0, 6),
        )

    motions = [
        motion(0.22, 0.3, random.uniform(0.3, 0.45), random.uniform(0.4, 0.6)),
        motion(0.78, 0.45, random.uniform(0.55, 0.7), None),
        motion(0.5, 0.85, random.uniform(0.45, 0.65), None),
    ]
    order = [0, *random.permutation([1, 2]).tolist()]  # the third passes before or behind
    frames, labels = [], []
    pan = random.uniform(0, photo.shape[1] - width, 2)
    for t in np.linspace(0, 1, FRAMES):
        left = int(pan[0] + (pan[1] - pan[0]) * t)
        canvas = photo[:height, left : left + width].astype(np.float32)
        label = np.zeros(SIZE, np.uint8)
        for k in order:
            matrix = motions[k].matrix(float(t), side)
            drawn = cv2.warpAffine(drawings[k], matrix, (width, height), flags=cv2.INTER_LINEAR)
            alpha = drawn[..., 3:] / 255
            canvas = canvas * (1 - alpha) + drawn[..., :3]  # premultiplied
            label[alpha[..., 0] > 0.5] = (1, 2, 0)[k]
        light = 1 + 0.15 * np.sin(4 * t + pan[0])
        noise = random.normal(0, 2, canvas.shape)
        frames.append(np.clip(canvas * light + noise, 0, 255).astype(np.uint8))
        labels.append(label)
    return VideoSequence(name, tuple(frames), np.stack(labels))


def evaluate_video(
    predictor: Predictor, sequences: Iterable[VideoSequence], config: VideoConfig
) -> tuple[dict[str, float], dict[str, Any]]:
    """Follow every object from its first frame; figures are means over objects.

    Returns:
        ``j_and_f`` and the means, recalls and decays of J and F; and the rows of each object.
    """
    rows: dict[str, dict[str, float]] = {}
    for sequence in sequences:
        objects = [
            VideoObject(str(k), sequence.start(k), sequence.labels[sequence.start(k)] == k)
            for k in sequence.objects
        ]
        labels = np.stack(
            [frame.labels for frame in track(predictor, sequence.frames, objects, config)]
        )
        for slot, k in enumerate(sequence.objects, start=1):
            truth = np.where(sequence.labels == k, slot, 0).astype(np.uint8)
            rows[f"{sequence.name}_{k}"] = score_sequence(truth, labels, slot)
    figures = {
        name: float(np.nanmean([row[name] for row in rows.values()]))
        for name in next(iter(rows.values()))
    }
    figures = {"j_and_f": (figures["j_mean"] + figures["f_mean"]) / 2} | figures
    both = [(row["j_mean"] + row["f_mean"]) / 2 for row in rows.values()]
    return figures, {"objects": rows, "interval_95_j_and_f": bootstrap_interval(both)}
