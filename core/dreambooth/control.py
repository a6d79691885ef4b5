"""Stop a training, or hold it for a while, from another thread."""

from __future__ import annotations

import threading

from core.engine.cancellation import CancelToken


class Control(CancelToken):
    """What a visitor can do to a running training; looked at between its steps."""

    def __init__(self) -> None:
        super().__init__()
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    @property
    def paused(self) -> bool:
        return not self._may_go_on.is_set()

    def pause(self) -> None:
        """Hold the work after the step that it is at."""
        self._may_go_on.clear()

    def go_on(self) -> None:
        """End a pause."""
        self._may_go_on.set()

    def cancel(self) -> None:
        """Stop the work, also when it is paused."""
        super().cancel()
        self._may_go_on.set()

    def wait_while_paused(self) -> None:
        """Return when there is no pause, or when the work is to stop."""
        self._may_go_on.wait()
