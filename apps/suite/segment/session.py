"""What a visitor has in the Segment tab: the picture, the scenes for undo, how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.components import Drawing
from apps.suite.models import default_model
from apps.suite.notices import Notice
from apps.suite.segment.scene import Answer, Scene
from apps.suite.sessions import Session
from core.errors import PromptError
from core.images import LoadedImage

MOST_UNDO = 50

NO_PICTURE = "There is no picture yet: drop one into the frame, or choose an example."
FIRST_CLICK = "Click an object in the picture."


@dataclass(frozen=True)
class Options:
    """Choices that change what the model is asked."""

    multimask: str = "auto"  # "auto": three readings while there is one point or box
    mask_threshold: float = 0.0
    feed_back: bool = True  # the last low-resolution logits go in with the next point
    scribble_points: int = 8


@dataclass(frozen=True, eq=False)
class Picture:
    """A visitor's picture, with the copy that the browser shows."""

    loaded: LoadedImage
    view: View

    @property
    def image(self) -> NDArray[np.uint8]:
        return self.loaded.image

    @property
    def size(self) -> tuple[int, int]:
        return self.loaded.size


class SegmentSession(Session):
    """One visitor's Segment tab. Change it under its lock."""

    def __init__(self) -> None:
        super().__init__()
        self.drawing = Drawing()
        self.options = Options()
        self.model = default_model()
        self.panel = "masks"  # what the frame shows: "masks", "compare" or "edges"
        self.maps_open = False
        # What the frame was last drawn from; () when it is empty, None when it is not known.
        self.on_canvas: tuple[Any, ...] | None = ()
        self.forget()

    def forget(self) -> None:
        self.forget_picture()

    def forget_picture(self) -> None:
        """Drop the picture and everything that was found in it."""
        self.picture: Picture | None = None
        self.history: list[Scene] = [Scene()]
        self.edges: NDArray[np.float32] | None = None
        self.method = "sam"
        self.found_model = ""  # of the present objects, where it is not the tab's own
        self.found_parameters: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.notice = Notice("hint", NO_PICTURE)

    @property
    def scene(self) -> Scene:
        return self.history[-1]

    def put(self, scene: Scene) -> None:
        """Make a scene the present one; the one before can be brought back by `undo`."""
        with self.lock:
            self.history = [*self.history, scene][-MOST_UNDO:]

    def undo(self) -> None:
        """Go back one step. Raises PromptError at the first one."""
        with self.lock:
            if len(self.history) < 2:
                raise PromptError("There is nothing to undo.")
            self.history = self.history[:-1]

    def put_answer(self, answer: Answer | None, asked: Scene) -> None:
        """Store an answer with the scene that asked, unless that one was undone meanwhile."""
        with self.lock:
            self.history = [
                replace(scene, answer=answer) if scene is asked else scene for scene in self.history
            ]

    def need_picture(self) -> Picture:
        """Return the picture. Raises PromptError if there is none."""
        if self.picture is None:
            raise PromptError(NO_PICTURE)
        return self.picture
