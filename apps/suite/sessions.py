"""What one visitor has on the server, and that it goes when the visitor does."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from apps.suite.notices import Notice

if TYPE_CHECKING:
    from core.engine import CancelToken


MOST_VIEWS = 16  # files of shown pictures: enough for what a slow browser still loads
MOST_THUMBNAILS = 64  # the same for galleries: three of the largest


class Session:
    """A visitor's lock, folder and running job in one tab; tabs add their own things.

    It lives in a `gr.State`, is changed in place under its lock, and is never copied: gradio's
    copy of the initial value becomes a new session for each visitor.
    """

    notice: Notice  # what the status line says; tabs begin with their own

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._folder: Path | None = None
        self._uploads: dict[Path, float] = {}
        self._job: CancelToken | None = None
        self._files = 0
        self._views: deque[Path] = deque()
        self._thumbnails: deque[Path] = deque()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def new_file(self, ending: str) -> Path:
        """Return an unused path in the visitor's own folder, whose name nobody can guess."""
        with self.lock:
            if self._folder is None:
                root = os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()
                self._folder = Path(root, f"visit-{secrets.token_hex(16)}")
                self._folder.mkdir(parents=True, mode=0o700)
            self._files += 1
            return self._folder / f"{self._files}{ending}"

    def new_view(self, ending: str) -> Path:
        """Return an unused path for a picture that is soon replaced; the oldest ones go."""
        return self._replaceable(self._views, MOST_VIEWS, ending)

    def new_thumbnail(self, ending: str) -> Path:
        """The same for one of the many pictures of a gallery."""
        return self._replaceable(self._thumbnails, MOST_THUMBNAILS, ending)

    def _replaceable(self, paths: deque[Path], most: int, ending: str) -> Path:
        with self.lock:
            path = self.new_file(ending)
            paths.append(path)
            while len(paths) > most:
                paths.popleft().unlink(missing_ok=True)
            return path

    def own_upload(self, path: str | Path) -> None:
        """Remember a file that the visitor uploaded, to delete it with the session."""
        path = Path(path)
        with self.lock:
            self._uploads[path] = path.stat().st_mtime

    def begin_job(self) -> CancelToken:
        """Return the token of a new job; the one before is asked to stop."""
        from core.engine import CancelToken  # with torch: not at the page's start

        with self.lock:
            self.cancel_job()
            self._job = CancelToken()
            return self._job

    def job_token(self) -> CancelToken:
        """Return the token of the job that was begun, or of a new one."""
        with self.lock:
            return self._job or self.begin_job()

    def end_job(self, token: CancelToken) -> None:
        """Forget a job that is over, unless another one was begun."""
        with self.lock:
            if self._job is token:
                self._job = None

    def cancel_job(self) -> bool:
        """Ask the running job to stop; False if there is none."""
        with self.lock:
            if self._job is None or self._job.cancelled:
                return False
            self._job.cancel()
            return True

    def close(self) -> None:
        """Stop the job and delete the visitor's pictures, in memory and on disk."""
        self.cancel_job()
        with self.lock:
            self.forget()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
                self._views.clear()
                self._thumbnails.clear()
            for path, modified in self._uploads.items():
                _delete_unless_newer(path, modified)
            self._uploads.clear()

    def forget(self) -> None:
        """Drop what a tab keeps in memory."""


S = TypeVar("S", bound=Session)


class Visitors:
    """Which sessions belong to which browser tab, so that closing it closes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, weakref.WeakSet[Session]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def enter(self, visitor: str | None, session: Session) -> None:
        """Note that the session serves the browser tab with this session hash."""
        if visitor:
            with self._lock:
                self._sessions.setdefault(visitor, weakref.WeakSet()).add(session)

    def find(self, visitor: str | None, kind: type[S]) -> S | None:
        """The session of a kind that a browser tab has; None if it did nothing there yet."""
        with self._lock:
            sessions = list(self._sessions.get(visitor or "", ()))
        return next((session for session in sessions if type(session) is kind), None)

    def leave(self, visitor: str | None) -> None:
        """Close the sessions of a browser tab that was closed or reloaded."""
        with self._lock:
            sessions = self._sessions.pop(visitor or "", weakref.WeakSet())
        for session in list(sessions):
            session.close()


def _delete_unless_newer(path: Path, modified: float) -> None:
    """Delete an upload unless somebody uploaded the same bytes since: gradio names by content."""
    try:
        if path.stat().st_mtime <= modified:
            path.unlink()
    except OSError:
        pass  # gone already, by gradio's own schedule
