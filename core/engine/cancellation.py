"""Stop work that a visitor no longer wants, between its stages."""

from __future__ import annotations

import threading

from core.errors import Cancelled


class CancelToken:
    """A flag that one thread raises and the working thread looks at between stages."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Ask the work to stop; calling it again, or after the work ended, does nothing."""
        self._event.set()

    def raise_if_cancelled(self, progress: str = "") -> None:
        """Raise Cancelled if the work should stop.

        Args:
            progress: how far the work is, such as "after 3 of 8 iterations", for the message.
        """
        if self.cancelled:
            raise Cancelled(f"Stopped {progress}." if progress else "Stopped at your request.")
