"""The state of a segmentation in progress: prompts, their answer, and the objects kept so far.

A scene is never changed: each edit makes the next one, so that undo is taking the last one off
the list. Coordinates are pixels of the original picture, x then y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from apps.suite.segment.patch import Patch, union
from core.errors import PromptError
from core.prompts import Boxes, Points

MOST_LABEL_CHARS = 60

Point = tuple[float, float, int]  # x, y, 1 foreground or 0 background
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Prompts:
    """The points and boxes of the object that is being worked on."""

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.points or self.boxes)

    @property
    def is_batch(self) -> bool:
        """Several boxes: each one is an object of its own."""
        return len(self.boxes) > 1

    def extends(self, other: Prompts) -> bool:
        """Whether these are the other's prompts with points added: a correction of its mask."""
        return self.boxes == other.boxes and self.points[: len(other.points)] == other.points


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said to some prompts.

    Args:
        masks: C candidates of one object, or one mask for each box of a batch.
        shown: the same at the size of the browser's picture.
        scores: (C,), predicted IoU.
        low_res_logits: float32 (C, 4g, 4g), to hand back with the next point; none (0, 0, 0) of a
            mask that was drawn by hand.
        chosen: index of the candidate in use; of no meaning in a batch.
        warnings: sentences for the visitor.
        seconds: by stage.
    """

    prompts: Prompts
    masks: tuple[Patch, ...]
    shown: tuple[Patch, ...]
    scores: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]
    chosen: int = 0
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_drawn(self) -> bool:
        """Whether somebody drew the mask, rather than the model."""
        return len(self.low_res_logits) == 0

    @property
    def indices(self) -> tuple[int, ...]:
        """Of the masks that are objects now: all of a batch, else the chosen one."""
        return tuple(range(len(self.masks))) if self.prompts.is_batch else (self.chosen,)


@dataclass(frozen=True, eq=False)
class Instance:
    """One object in the list. `number` gives its colour and stays with it."""

    number: int
    mask: Patch  # at the original size
    shown: Patch  # at the size of the browser's picture
    score: float
    label: str = ""
    visible: bool = True
    score_kind: str = "predicted_iou"
    prompts: Prompts = Prompts()  # that made it; none for what was found without any


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that undo brings back."""

    prompts: Prompts = Prompts()
    corner: tuple[float, float] | None = None  # the first click of a box
    answer: Answer | None = None
    kept: tuple[Instance, ...] = ()
    names: dict[int, str] = field(default_factory=dict)  # of objects still being worked on
    hidden: frozenset[int] = frozenset()
    next_number: int = 1

    @property
    def current(self) -> tuple[Instance, ...]:
        """The objects of the answer: not yet kept, numbered from `next_number`."""
        if self.answer is None:
            return ()
        answer = self.answer
        return tuple(
            Instance(
                number=number,
                mask=answer.masks[index],
                shown=answer.shown[index],
                score=float(answer.scores[index]),
                label=self.names.get(number, ""),
                visible=number not in self.hidden,
                prompts=answer.prompts,
            )
            for number, index in enumerate(answer.indices, start=self.next_number)
        )

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All objects: those kept, then those being worked on."""
        return (*self.kept, *self.current)

    @property
    def is_answered(self) -> bool:
        """Whether the answer, or that there is none, belongs to the prompts."""
        answered = self.answer.prompts if self.answer else Prompts()
        return answered == self.prompts


def add_points(scene: Scene, points: Iterable[Point], size: tuple[int, int]) -> Scene:
    """Add clicks to the object. Raises PromptError over the limit."""
    return with_prompts(
        scene, replace(scene.prompts, points=(*scene.prompts.points, *points)), size
    )


def add_corner(scene: Scene, x: float, y: float, size: tuple[int, int]) -> Scene:
    """Set the first corner of a box, or make the box if it is the second.

    Raises:
        PromptError: the box has no area; the first corner stays.
    """
    if scene.corner is None:
        return replace(scene, corner=(x, y))
    x0, y0 = scene.corner
    if abs(x - x0) < 1 or abs(y - y0) < 1:
        raise PromptError(
            f"The box is {abs(x - x0):.0f}×{abs(y - y0):.0f} pixels and has no area; "
            "click its opposite corner."
        )
    return add_box(scene, (x0, y0, x, y), size)


def add_box(scene: Scene, box: Box, size: tuple[int, int]) -> Scene:
    """Add a box around an object. Raises PromptError if it has no area, or over the limit."""
    prompts = replace(scene.prompts, boxes=(*scene.prompts.boxes, box))
    return replace(with_prompts(scene, prompts, size), corner=None)


def with_prompts(scene: Scene, prompts: Prompts, size: tuple[int, int]) -> Scene:
    """Put other prompts in the place of the scene's, clipped to the picture of size (H, W).

    Raises:
        PromptError: too many, not finite, or a box without area.
    """
    points = Points.parse([list(point) for point in prompts.points], size)
    boxes = Boxes.parse([list(box) for box in prompts.boxes], size)
    clean = Prompts(
        points=tuple(
            (round(float(x), 2), round(float(y), 2), int(label))
            for (x, y), label in zip(points.coords, points.labels, strict=True)
        ),
        boxes=tuple(tuple(round(float(v), 2) for v in box) for box in boxes.xyxy),  # type: ignore[misc]
    )
    return replace(scene, prompts=clean, answer=scene.answer if clean else None)


def with_mask(scene: Scene, mask: Patch, shown: Patch) -> Scene:
    """Put a mask drawn by hand in the place of the object's; an empty one takes it away.

    Its points and boxes stay, for the model to go on from both. Objects of several boxes are kept
    first, and the mask is the next one.
    """
    if scene.prompts.is_batch and scene.current:
        scene = keep_current(scene)
    if not mask.area:
        return replace(scene, answer=None)
    answer = Answer(
        prompts=scene.prompts,
        masks=(mask,),
        shown=(shown,),
        scores=np.full(1, np.nan, np.float32),
        low_res_logits=np.zeros((0, 0, 0), np.float32),
    )
    return replace(scene, answer=answer)


def choose(scene: Scene, index: int) -> Scene:
    """Take another candidate of the answer. Raises PromptError if there is none of that index."""
    answer = scene.answer
    if answer is None or answer.prompts.is_batch or not 0 <= index < len(answer.masks):
        raise PromptError(f"There is no reading {index + 1} to choose; click an object first.")
    return replace(scene, answer=replace(answer, chosen=index))


def keep_current(scene: Scene) -> Scene:
    """Keep the objects being worked on and start the next one.

    Raises:
        PromptError: there is nothing to keep.
    """
    current = scene.current
    if not current:
        raise PromptError("There is no mask to keep yet; click an object in the picture first.")
    return Scene(kept=(*scene.kept, *current), next_number=current[-1].number + 1)


def clear_prompts(scene: Scene) -> Scene:
    """Drop the object being worked on; the kept ones stay."""
    return Scene(kept=scene.kept, next_number=scene.next_number)


def with_found(scene: Scene, found: Iterable[Instance]) -> Scene:
    """Put what was found in the whole picture in the place of all objects, numbered from 1."""
    kept = tuple(replace(instance, number=k) for k, instance in enumerate(found, start=1))
    return Scene(kept=kept, next_number=len(kept) + 1)


def rename(scene: Scene, number: int, label: str) -> Scene:
    """Name an object; white space is collapsed. Raises PromptError if there is no such object."""
    label = " ".join(label.split())[:MOST_LABEL_CHARS]
    if number in {instance.number for instance in scene.current}:
        return replace(scene, names={**scene.names, number: label})
    return _change_kept(scene, number, lambda instance: replace(instance, label=label))


def toggle_visible(scene: Scene, number: int) -> Scene:
    """Hide an object or show it again. Raises PromptError if there is no such object."""
    if number in {instance.number for instance in scene.current}:
        return replace(scene, hidden=scene.hidden ^ {number})
    return _change_kept(scene, number, lambda one: replace(one, visible=not one.visible))


def delete(scene: Scene, number: int) -> Scene:
    """Remove an object; of those being worked on, with their prompts.

    Raises:
        PromptError: there is no such object.
    """
    if number in {instance.number for instance in scene.current}:
        if not scene.prompts.is_batch:
            return clear_prompts(scene)
        others = tuple(one for one in scene.current if one.number != number)
        return Scene(kept=(*scene.kept, *others), next_number=scene.current[-1].number + 1)
    return _change_kept(scene, number, lambda instance: None)


def merge(scene: Scene, numbers: Iterable[int]) -> Scene:
    """Unite objects into the one of the smallest number; those being worked on are kept first.

    Raises:
        PromptError: fewer than two of them exist.
    """
    wanted = set(numbers)
    if wanted & {instance.number for instance in scene.current}:
        scene = keep_current(scene)
    parts = [instance for instance in scene.kept if instance.number in wanted]
    if len(parts) < 2:
        raise PromptError("Select at least two objects in the list to merge them.")
    first = min(parts, key=lambda instance: instance.number)
    united = replace(
        first,
        mask=union([part.mask for part in parts]),
        shown=union([part.shown for part in parts]),
        score=math.nan,  # nobody predicted the union's
        label=first.label or next((part.label for part in parts if part.label), ""),
        visible=True,
    )
    gone = wanted - {first.number}
    kept = tuple(
        united if instance.number == first.number else instance
        for instance in scene.kept
        if instance.number not in gone
    )
    return replace(scene, kept=kept)


def _change_kept(scene: Scene, number: int, change: Callable[[Instance], Instance | None]) -> Scene:
    if number not in {instance.number for instance in scene.kept}:
        raise PromptError(f"There is no object {number} in the list any more.")
    changed = (
        change(instance) if instance.number == number else instance for instance in scene.kept
    )
    return replace(scene, kept=tuple(instance for instance in changed if instance is not None))
