"""The tabs of the suite: one line each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from apps.suite.frame import Frame
from apps.suite.services import Services


@dataclass(frozen=True)
class Tab:
    """A tab: `apps.suite.tabs.<name>` has a function `build(frame, services)`."""

    name: str
    title: str

    def build(self, frame: Frame, services: Services) -> None:
        """Lay the tab out in the present Blocks context."""
        importlib.import_module(f"{__name__}.{self.name}").build(frame, services)


TABS = (
    Tab("segment", "Segment"),
    Tab("personalize", "Personalize"),
    Tab("degraded", "Degraded"),
    Tab("text", "Text query"),
    Tab("chat", "Reasoning chat"),
    Tab("dreambooth", "DreamBooth"),
)
