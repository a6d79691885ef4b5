"""What a visitor has in the DreamBooth tab: pictures, a training, a learned subject, drawings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.suite.components import Drawing
from apps.suite.notices import Notice
from apps.suite.segment.scene import Scene
from apps.suite.segment.session import Picture, SegmentSession
from core.dreambooth.config import DreamBoothConfig
from core.dreambooth.subjects import MAX_PICTURES, MIN_PICTURES, SubjectPicture
from core.errors import PromptError, SuiteError
from core.models.catalogue import Entry, catalogue

if TYPE_CHECKING:
    from core.dreambooth.card import LearnedSubject
    from core.dreambooth.serving import Pair, Saved, Standing

NO_PICTURES = (
    f"Drop {MIN_PICTURES} to {MAX_PICTURES} pictures of one thing, in different places, or choose "
    "an example."
)
MARK_IT = "Click the thing in the left picture: it is then looked for in the others."
NO_MODEL = (
    "There is no text-to-image model here yet, so nothing can be trained: make the embedded one "
    "by “python -m core.training diffusion”. Pictures and masks can be tried without it."
)
NO_TRAINING = "There is no training here: press Train first."

# The fields of the closed accordion, by the names of DreamBoothConfig.
FIELDS = (
    "steps",
    "learning_rate",
    "rank",
    "batch_size",
    "seed",
    "sample_steps",
    "checkpoint_steps",
    "prior",
    "prior_pictures",
    "prior_weight",
    "background_weight",
    "dilate",
    "train_text_encoder",
)
METHODS = {"lora": "LoRA", "full": "Full"}


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is to be trained, as the page's fields have it.

    Args:
        preset: a key of PRESETS.
        values: by the names in FIELDS; they begin as the preset's.
    """

    preset: str = "quick"
    class_noun: str = ""
    identifier: str = "sks"
    masked: bool = True
    method: str = "lora"
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_preset(cls, preset: str, model_set: str) -> Wishes:
        """A preset's. Raises PromptError if there is none such."""
        config = DreamBoothConfig.preset(preset, model_set)
        values = {name: getattr(config, name) for name in FIELDS}
        return cls(preset=preset, method=config.method, values=values)

    def config(self, model_set: str) -> DreamBoothConfig:
        """The settings of the training. Raises PromptError if one of them is not possible."""
        loss = "area" if self.masked else "none"
        return DreamBoothConfig.preset(
            self.preset, model_set, mask_loss=loss, method=self.method, **self.values
        )


@dataclass(eq=False)
class Item:
    """One of the subject's pictures.

    Args:
        subject: its mask, scores and decision.
        history: the scenes of what the visitor marks in it, for undo.
        taken: the drawn mask that ``subject`` has, None if it is not a drawn one.
        sought: the marked mask that its own was found by.
    """

    picture: Picture
    subject: SubjectPicture
    history: list[Scene] = field(default_factory=lambda: [Scene()])
    taken: object = None
    sought: object = None


class DreamBoothSession(SegmentSession):
    """One visitor's DreamBooth tab; the picture in the frame is marked as in the Segment tab.

    A training belongs to the queue and not to the session: only its id is here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawing = Drawing(numbers=False)
        self.diffusion = default_diffusion()
        self.wishes = Wishes.of_preset("quick", model_set_of(self.diffusion))
        self.known: list[str] = []  # ids of the visitor's trainings, the newest last
        self.training = ""  # id of the one that is followed; "" for none
        self.standing: Standing | None = None  # how it stood when it was looked at last
        self.learned: LearnedSubject | None = None  # what is drawn with
        self.fill_noun = False  # the noun's field has still to be told of it
        self.fill_prompt = False  # the prompt's field has still to be told of it
        self.learned_id = ""  # of its training; "" for uploaded weights
        self.saved: list[Saved] = []
        self.pairs: list[Pair] = []  # everything drawn, the newest last
        self.newest = 0  # how many of them the last drawing made
        self.files: dict[Pair, str] = {}  # of the pictures in the gallery
        self.seconds_by_preset: dict[str, float] = {}
        self.measured: tuple[DreamBoothConfig, float] | None = None  # settings, their seconds
        self.shown_samples: Any = None
        self.running = False  # work that can be cancelled

    def forget(self) -> None:
        super().forget()
        self.items: list[Item] = []
        self.selected = 0
        self.marked: int | None = None
        self.thumbnails: dict[int, tuple[Any, str]] = {}
        self.notice = Notice("ready", "")

    @property
    def expected(self) -> float | None:
        """Seconds that the wished training takes; None if that was not measured."""
        if self.measured is None:
            return None
        config, seconds = self.measured
        try:
            return seconds if self.wishes.config(model_set_of(self.diffusion)) == config else None
        except PromptError:
            return None

    @property
    def item(self) -> Item | None:
        """The picture in the frame."""
        return self.items[self.selected] if self.items else None

    @property
    def marked_mask(self) -> NDArray[np.bool_] | None:
        """The mask that the others are found by."""
        return None if self.marked is None else self.items[self.marked].subject.mask

    @property
    def undecided(self) -> list[Item]:
        """Pictures that wait for the visitor."""
        return [item for item in self.items if item.subject.decision is None]

    @property
    def unsought(self) -> list[Item]:
        """Those of them that the marked thing was not looked for in yet."""
        mask = self.marked_mask
        return [] if mask is None else [item for item in self.undecided if item.sought is not mask]

    @property
    def used(self) -> list[Item]:
        """Pictures that would be trained on."""
        return [item for item in self.items if item.subject.is_used]

    @property
    def is_prepared(self) -> bool:
        """Whether there are enough pictures, and a decision for each."""
        return not self.undecided and MIN_PICTURES <= len(self.used) <= MAX_PICTURES

    @property
    def entry(self) -> Entry:
        """The text-to-image model. Raises PromptError if there is none."""
        if self.diffusion is None:
            raise PromptError(NO_MODEL)
        return catalogue()[self.diffusion]

    def need_item(self, index: int) -> Item:
        """Return a picture. Raises PromptError if there is none of that index."""
        if not 0 <= index < len(self.items):
            raise PromptError(f"There is no picture {index + 1} any more.")
        return self.items[index]

    def need_training(self) -> str:
        """Return the id of the training. Raises PromptError if there is none."""
        if not self.training:
            raise PromptError(NO_TRAINING)
        return self.training

    def need_learned(self) -> LearnedSubject:
        """Return what is drawn with. Raises SuiteError if nothing was learned yet."""
        if self.learned is None:
            raise SuiteError("There is no learned subject yet: train one, or choose a saved one.")
        return self.learned


def diffusion_models() -> list[Entry]:
    """The catalogue's text-to-image models, the embedded ones first."""
    found = [entry for entry in catalogue().values() if entry.method == "dreambooth"]
    return sorted(found, key=lambda entry: entry.set != "embedded")


def default_diffusion() -> str | None:
    """Id of the first one that is here; None if there is none at all."""
    from apps.suite.models import is_here

    found = diffusion_models()
    here = [entry.id for entry in found if is_here(entry.id)]
    return here[0] if here else None


def model_set_of(model_id: str | None) -> str:
    """The set of a model; the embedded one where there is no model."""
    return "embedded" if model_id is None else catalogue()[model_id].set
