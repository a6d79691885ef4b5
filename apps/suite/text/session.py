"""What a visitor has in the Text query tab: the words, the picture, and what was found in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.notices import Notice
from apps.suite.segment.patch import Patch, stack
from apps.suite.segment.session import SegmentSession
from core.car.choices import CLIPS, OWN, config_of
from core.car.config import CarConfig
from core.errors import NothingFound
from core.models.catalogue import catalogue

if TYPE_CHECKING:
    from core.car.recurrence import Step
    from core.car.results import CarResult
    from core.car.serving import TextAnswer
    from core.engine import CancelToken

ListName = Literal["words", "background"]
Stage = Literal["picture", "crf", "sam"]

MODES = {"words": "Find all words", "phrases": "One phrase each"}
PANELS = ("result", "steps", "maps", "compare")
PAIRS: dict[Stage, str] = {
    "picture": "Picture | result",
    "crf": "Without | with CRF",
    "sam": "Before | after SAM",
}
NO_PICTURE = "Drop a picture into the frame, or choose an example."
NO_WORDS = "There is no word yet: type one and press Enter, or choose a ready list."
NO_ANSWER = "Nothing was looked for yet: press Find."


class Asked(NamedTuple):
    """The settings as the page's fields hold them, in the order of the fields."""

    preset: str
    eta: float
    theta: float
    box: float
    presence_on: bool
    presence: float
    prompts: list[str]
    recurrence: bool
    refine: bool
    crf: bool
    sam: bool
    iom: float
    iou: float

    @classmethod
    def of(cls, preset: str, model_set: str) -> Asked:
        """What a preset sets the fields to."""
        config = config_of(preset, model_set)
        return cls(
            preset=preset,
            eta=config.mask_threshold,
            theta=config.confidence_threshold,
            box=config.box_threshold,
            presence_on=config.presence_threshold is not None,
            presence=config.presence_threshold or CarConfig().presence_threshold or 0.0,
            prompts=list(config.visual_prompts),
            recurrence=config.recurrence,
            refine=config.refine,
            crf=config.use_crf,
            sam=False,
            iom=config.sam.iom_threshold,
            iou=config.sam.iou_threshold,
        )


@dataclass(frozen=True)
class FoundWord:
    """One word with its mask.

    Args:
        number: place among the distinct words, from 1; its colour follows from it.
        score: CLIP similarity of the last step.
        mask, shown: at the picture's size, and as the browser shows it.
    """

    number: int
    label: str
    score: float
    mask: Patch
    shown: Patch


@dataclass(frozen=True, eq=False)
class Found:
    """An answer as a session keeps it: masks cut out, maps in half precision.

    Args:
        words: those that stayed and have pixels.
        result: without masks; take its steps from ``step``.
        before: shown masks by number, before the CRF and before SAM, where those were used.
    """

    words: tuple[FoundWord, ...]
    result: CarResult
    before: dict[Stage, dict[int, Patch]] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: TextAnswer, view: View) -> Found:
        """Reduce an answer to what the page shows of it."""
        result = answer.result
        found = result.segmentation
        rows = zip(found.numbers, found.labels, found.scores, found.masks, strict=True)
        words = tuple(
            FoundWord(k, label, float(score), Patch.of(mask), Patch.of(view.mask(mask)))
            for k, label, score, mask in rows
        )
        before: dict[Stage, dict[int, Patch]] = {}
        if answer.without_crf is not None:
            numbers = [word + 1 for word in result.steps[-1].kept]
            before["crf"] = _patches(numbers, answer.without_crf, view)
        if answer.before_sam is not None:
            before["sam"] = _patches(answer.before_sam.numbers, answer.before_sam.masks, view)
        steps = tuple(_with_maps(step, np.float16) for step in result.steps)
        kept = replace(result, segmentation=found.select([]), steps=steps)
        return cls(words, kept, before)

    def step(self, index: int) -> Step:
        """One step of the recurrence, from 0, with maps to compute with."""
        return _with_maps(self.result.steps[index], np.float32)

    def whole(self) -> CarResult:
        """The result with its masks, as files are made of it."""
        segmentation = self.result.segmentation
        segmentation = replace(
            segmentation,
            masks=stack([word.mask for word in self.words], segmentation.size),
            labels=tuple(word.label for word in self.words),
            scores=np.array([word.score for word in self.words], np.float32),
            ids=tuple(word.number for word in self.words),
        )
        steps = tuple(self.step(index) for index in range(len(self.result.steps)))
        return replace(self.result, segmentation=segmentation, steps=steps)


class TextSession(SegmentSession):
    """One visitor's Text query tab. A new picture keeps the words; a new word keeps the answer."""

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()
        self.preset = OWN
        self.own_background: tuple[str, ...] | None = None  # None: the preset's
        self.former: tuple[str, ...] = ()  # what a ready list or an example took the place of
        # Text that goes back into the field of a list; the number tells a new one from a shown one.
        self.returned: dict[ListName, tuple[int, str]] = {}
        self.returns = 0
        self.mode = "words"
        super().__init__()
        self.use_models(self.model)

    def forget(self) -> None:
        super().forget()
        self.panel = "result"

    def forget_picture(self) -> None:
        super().forget_picture()
        self.notice = Notice("hint", NO_PICTURE)
        self.found: Found | None = None
        self.step = 0  # of the recurrence, that is looked at
        self.map_word = 0  # whose maps are looked at, as an index of all words
        self.pair: Stage = "picture"
        self.waiting: CancelToken | None = None  # of what Find asked for and is not done

    def use_models(self, sam: str) -> None:
        """Ask the CLIPs that belong to a SAM of the catalogue, which is the one to snap to."""
        self.sam = sam
        self.model = CLIPS[catalogue()[sam].set][0]

    @property
    def model_set(self) -> str:
        """Whose CLIPs are asked."""
        return catalogue()[self.model].set

    @property
    def background(self) -> tuple[str, ...]:
        """The background words: the visitor's own, or the preset's."""
        if self.own_background is not None:
            return self.own_background
        return config_of(self.preset, self.model_set).background_queries

    def need_found(self) -> Found:
        """Return the answer. Raises NothingFound if there is none."""
        if self.found is None:
            raise NothingFound(NO_ANSWER)
        return self.found


def _with_maps(step: Step, kind: type[np.floating]) -> Step:
    """A step with its maps as another type."""
    cams, boxes, maps = (np.asarray(values, kind) for values in (step.cams, step.boxes, step.maps))
    return replace(step, cams=cams, boxes=boxes, maps=maps)  # type: ignore[arg-type]


def _patches(
    numbers: tuple[int, ...] | list[int], masks: NDArray[np.bool_], view: View
) -> dict[int, Patch]:
    height, width = view.image.shape[:2]
    return {
        k: Patch.of(_fit(mask, (height, width)) if mask.shape != view.size else view.mask(mask))
        for k, mask in zip(numbers, masks, strict=True)
    }


def _fit(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    rows = np.arange(size[0]) * mask.shape[0] // size[0]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    return mask[rows][:, columns]
