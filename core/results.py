"""The one result type of all methods: masks with scores, what was dropped and why, timings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What a score means, as the pages say it; "llm_none" carries no score at all.
SCORE_KINDS = {
    "predicted_iou": "predicted IoU",
    "stability": "stability",
    "clip_similarity": "CLIP similarity",
    "persam_iou": "PerSAM IoU",
    "llm_none": "no score",
}


@dataclass(frozen=True)
class Dropped:
    """Something looked for and left out, with the score it reached (None: none) and why."""

    label: str
    score: float | None
    reason: str


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a method found in one picture; masks, labels, scores and ids are aligned.

    Args:
        method: "sam", "sam_everything", "persam", …: names files and records.
        model: catalogue id of the model.
        model_set: "embedded" or "full".
        size: (H, W) of the original picture.
        masks: bool (N, H, W) at the original size.
        labels: N names, "" where the method names nothing.
        scores: float32 (N,), in [0, 1] or not-a-number where there is none.
        score_kind: a key of `SCORE_KINDS`.
        dropped: what was looked for and is not among the masks.
        warnings: sentences for the visitor.
        parameters: what it takes to run the same again, as JSON values.
        seed: of the random numbers, None if none were drawn.
        seconds: by stage: encode, predict, total.
        ids: N numbers that stay with an instance when others are hidden or the order changes; its
            colour and its number on the picture follow from it. 1 to N if not given.

    Raises:
        ValueError: the parts do not fit together.
    """

    method: str
    model: str
    model_set: str
    size: tuple[int, int]
    masks: NDArray[np.bool_]
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    score_kind: str = "predicted_iou"
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.masks.dtype != bool or self.masks.shape[1:] != tuple(self.size):
            raise ValueError(
                f"masks are {self.masks.dtype} {self.masks.shape}, not bool (N, {self.size})"
            )
        if self.score_kind not in SCORE_KINDS:
            raise ValueError(f"score_kind {self.score_kind!r} is not in {list(SCORE_KINDS)}")
        if self.ids is None:
            object.__setattr__(self, "ids", tuple(range(1, len(self.masks) + 1)))
        lengths = {len(part) for part in (self.masks, self.labels, self.scores, self.numbers)}
        if len(lengths) > 1 or len(set(self.numbers)) < len(self.masks):
            raise ValueError(
                f"{len(self.masks)} masks, {len(self.labels)} labels, {len(self.scores)} scores "
                f"and ids {self.ids} do not fit together"
            )

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def numbers(self) -> tuple[int, ...]:
        """`ids`, never None."""
        return self.ids or ()

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each mask, (N,)."""
        return np.array([np.count_nonzero(mask) for mask in self.masks], dtype=np.int64)

    def best(self) -> "Segmentation":
        """Keep the instance of the highest score, the first where none has one."""
        if len(self) == 0:
            return self
        return self.select([int(np.argmax(np.nan_to_num(self.scores, nan=-np.inf)))])

    def sorted_by_area(self) -> "Segmentation":
        """Order the instances from the largest to the smallest."""
        return self.select(np.argsort(-self.areas, kind="stable").tolist())

    def select(self, indices: Sequence[int]) -> "Segmentation":
        """Keep the instances at `indices`, in that order, with their ids."""
        chosen = list(indices)
        return replace(
            self,
            masks=self.masks[chosen],
            labels=tuple(self.labels[index] for index in chosen),
            scores=self.scores[chosen],
            ids=tuple(self.numbers[index] for index in chosen),
        )
