"""Files that are whole or not there at all, and what to say when the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import SuiteError

PARTIAL = ".partial"
MIB = 2**20


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it, so that a crash leaves the old one."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under another name; it appears at ``path`` when the block has ended well.

    What was there before is replaced. If the block fails, nothing of it is left.
    """
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _flush(partial)
        old = path.with_name(f"{path.name}.old{PARTIAL}")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _flush_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def clear_partial(folder: Path) -> None:
    """Delete what a process that died left half written in a folder."""
    for path in folder.glob(f"*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there was no room for a file."""
    number = getattr(error, "errno", None)
    # safetensors has an exception of its own, which only carries the system's words.
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise SuiteError if a folder's disk has less room than ``needed_bytes``."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise SuiteError(
            f"The training would need {needed_bytes / MIB:.0f} MiB of disk space and "
            f"{free / MIB:.0f} MiB are free: delete old trainings, or keep fewer checkpoints."
        )


def _flush(folder: Path) -> None:
    """Make sure that the files' contents are on the disk before the folder gets its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
