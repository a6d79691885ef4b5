"""What a visitor has in the Personalize tab: references, objects, the pictures searched, a clip."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.notices import Notice
from apps.suite.segment.patch import Patch
from apps.suite.segment.scene import Scene
from apps.suite.segment.session import Picture, SegmentSession
from core.errors import PromptError
from core.images import LoadedImage
from core.models.catalogue import catalogue
from core.models.presets import calibrated_threshold
from core.persam.config import FitConfig, PersamConfig

if TYPE_CHECKING:
    from core.persam.clips import Clip
    from core.persam.pipeline import Learned, PersamResult
    from core.persam.profile import Profile
    from core.persam.video import VideoResult

Variant = Literal["persam", "persam_f"]
VARIANTS = {"persam": "PerSAM", "persam_f": "PerSAM-F"}
STAGES = ("result", "compare", "similarity")  # what the large frame can show of a picture

NO_REFERENCE = "Drop a picture of your object into the left frame, or choose an example."
MARK_IT = "Click the object in the left picture, paint it, or upload its mask."
NO_QUERY = "Object learned. Now drop pictures (or a clip) on the right to find it there."
NO_OBJECT = "There is no object yet: mark it in the reference picture on the left first."


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Settings of the method as the page offers them; the defaults are the published ones.

    Args:
        presence_threshold: below it the answer is "not in this picture"; 0: always a mask.
        steps, learning_rate: of PerSAM-F's two weights.
        The others: as in PersamConfig. The first three are PerSAM's alone.
    """

    guided_attention: bool = True
    semantic_prompt: bool = True
    negative_point: bool = True
    refinement_1: bool = True
    refinement_2: bool = True
    guidance_weight: float = 1.0
    points: int = 1
    max_instances: int = 1
    presence_threshold: float = 0.0
    steps: int = 1000
    learning_rate: float = 1e-3

    def config(self, variant: str) -> PersamConfig:
        """The method's configuration for one of the variants."""
        shared: dict[str, Any] = {
            "refinement_1": self.refinement_1,
            "refinement_2": self.refinement_2,
            "points": self.points,
            "max_instances": self.max_instances,
            "presence_threshold": self.presence_threshold or None,
        }
        if variant == "persam_f":
            return PersamConfig.persam_f(**shared)
        return PersamConfig(
            guided_attention=self.guided_attention,
            semantic_prompt=self.semantic_prompt,
            negative_point=self.negative_point,
            guidance_weight=self.guidance_weight,
            **shared,
        )

    def fit(self, variant: str) -> FitConfig | None:
        """How PerSAM-F's weights are learned; None for PerSAM."""
        if variant != "persam_f":
            return None
        return FitConfig(steps=self.steps, learning_rate=self.learning_rate)


@dataclass(frozen=True, eq=False)
class MarkedPicture:
    """A reference picture with its marked objects; clip and frame if it is out of a clip."""

    picture: Picture
    scene: Scene
    frame: tuple[Clip, int] | None = None


@dataclass(frozen=True, eq=False)
class PersonalObject:
    """One object to look for: its masks in the reference pictures, or a loaded profile.

    Args:
        number: its colour and number everywhere on the page.
        masks: with the reference picture that each belongs to.
    """

    number: int
    name: str
    masks: tuple[tuple[MarkedPicture, Patch], ...] = ()
    profile: Profile | None = None


@dataclass(frozen=True, eq=False)
class Query:
    """A picture that is searched.

    Args:
        truth: bool (H, W), uploaded to measure against, if any.
        results: by variant, newest last: corrections can be taken back.
        asked: by variant, what the results answer: objects and settings.
    """

    loaded: LoadedImage
    view: View
    truth: NDArray[np.bool_] | None = None
    results: dict[str, list[PersamResult]] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def result(self, variant: str) -> PersamResult | None:
        found = self.results.get(variant)
        return found[-1] if found else None


def threshold_of(model_id: str) -> float:
    """The presence threshold that a model's card carries; 0, never absent, without one."""
    return calibrated_threshold(catalogue()[model_id]) or 0.0


class PersonalizeSession(SegmentSession):
    """One visitor's Personalize tab. The reference picture is marked as in the Segment tab."""

    def __init__(self) -> None:
        self.variant: Variant = "persam"
        self.threshold_is_own = False  # the visitor moved the threshold away from the model's
        self.how_open = False
        super().__init__()
        self.choices = Choices(presence_threshold=threshold_of(self.model))

    def forget(self) -> None:
        super().forget()
        self.notice = Notice("hint", NO_REFERENCE)
        self.references: tuple[MarkedPicture, ...] = ()  # earlier ones; the present one is on top
        self.profiles: tuple[Profile, ...] = ()  # loaded ones
        self.learned: dict[int, tuple[Any, Learned]] = {}  # with what it was learned from
        self.queries: tuple[Query, ...] = ()
        self.selected = 0
        self.active = 0  # number of the object that correction clicks are for; 0: the first
        self.stage = "result"
        self.clip: Clip | None = None
        self.clip_stem = ""
        # Clicks on results not yet answered: picture, variant, number, x, y, label.
        self.corrections: list[tuple[Query, str, int, float, float, int]] = []
        self.followed: VideoResult | None = None
        self.followed_file: str | None = None
        self.followed_facts: dict[str, Any] = {}
        self.running = False  # a search that can be cancelled
        self.shown_gallery: Any = None
        self.thumbnails: dict[int, tuple[Any, str]] = {}  # by place: what was drawn, and the file
        self.upload = 0  # counts uploads: a slow one does not replace a later one

    def forget_picture(self) -> None:
        super().forget_picture()
        self.frame: tuple[Clip, int] | None = None  # of a clip, if that is the reference picture

    @property
    def all_references(self) -> tuple[MarkedPicture, ...]:
        """The stored reference pictures and the present one."""
        if self.picture is None:
            return self.references
        return (*self.references, MarkedPicture(self.picture, self.scene, self.frame))

    def objects(self) -> tuple[PersonalObject, ...]:
        """All objects to look for, by number; hidden ones are left out."""
        masks: dict[int, list[tuple[MarkedPicture, Patch]]] = {}
        names: dict[int, str] = {}
        last = 0
        for reference in self.all_references:
            for instance in reference.scene.instances:
                last = max(last, instance.number)
                if instance.visible:
                    masks.setdefault(instance.number, []).append((reference, instance.mask))
                    names[instance.number] = instance.label or names.get(instance.number, "")
        found = [
            PersonalObject(k, names[k] or f"object {k}", tuple(parts)) for k, parts in masks.items()
        ]
        found.sort(key=lambda item: item.number)
        loaded = enumerate(self.profiles, start=last + 1)
        return (*found, *(PersonalObject(k, p.name, profile=p) for k, p in loaded))

    def forget_results(self) -> None:
        """Drop what was found; pictures, objects and settings stay."""
        with self.lock:
            for query in self.queries:
                query.results.clear()
                query.asked.clear()
            self.corrections.clear()
            self.followed = self.followed_file = None

    @property
    def query(self) -> Query | None:
        """The picture in the large frame."""
        return self.queries[self.selected] if self.queries else None

    def need_query(self) -> Query:
        """Return the picture in the large frame. Raises PromptError if there is none."""
        if self.query is None:
            raise PromptError("There is no picture to search yet: drop some on the right.")
        return self.query

    def change(self, **values: Any) -> None:
        """Change settings of the method, by the names of `Choices`."""
        self.choices = replace(self.choices, **values)
