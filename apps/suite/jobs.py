"""Run long work in a thread, so that its listener can say how far it is and be stopped.

`run_job` is the thread, `follow` the whole course of a tab's job: progress, end, error, cancel.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, TypeVar

from apps.suite.notices import Notice, notice_of
from apps.suite.sessions import Session

if TYPE_CHECKING:
    from core.engine import CancelToken

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound=Session)
Progress = Callable[[float, str], None]


def run_job(
    work: Callable[[Progress], T], token: CancelToken
) -> Generator[tuple[float, str], None, T]:
    """Yield (fraction, sentence) while `work` runs in a thread; return its result.

    Closing the generator, as gradio does when the visitor leaves, asks the work to stop.

    Args:
        work: called with a function to report progress to; looks at the token itself.

    Raises:
        Exception: whatever the work raised.
    """
    reports: queue.SimpleQueue[tuple[float, str] | None] = queue.SimpleQueue()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(work(lambda fraction, text: reports.put((fraction, text))))
        except BaseException as error:  # handed to the caller's thread, which raises it
            failure.append(error)
        finally:
            reports.put(None)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        while (report := _newest(reports)) is not None:
            yield report
    except GeneratorExit:
        token.cancel()
        raise
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _newest(reports: queue.SimpleQueue[R | None]) -> R | None:
    """Wait for a report, and skip those that newer ones have outrun: a slow page must not lag.

    The last one is not skipped for the end.
    """
    report = reports.get()
    while report is not None and not reports.empty():
        newer = reports.get()
        if newer is None:
            reports.put(None)
            break
        report = newer
    return report


def _put_notice(session: Session, notice: Notice) -> None:
    session.notice = notice


def _explain(session: Session, error: Exception) -> Notice:
    return notice_of(error)


def follow(
    session: S,
    doing: str,
    work: Callable[[Progress], Notice | None],
    token: CancelToken,
    *,
    keep: Callable[[S, Notice], None] = _put_notice,
    explain: Callable[[S, Exception], Notice | None] = _explain,
    stops_queued: bool = False,
) -> Iterator[Notice]:
    """Yield how far a session's job is; what is to be said at its end stays with the session.

    Nothing is raised: an error or a cancel becomes the session's notice.

    Args:
        doing: begins every sentence, as in "Searching picture 2 of 5…".
        work: as `run_job` takes it; returns what is to be said then, None to leave the notice.
        token: of the job, which is over afterwards.
        keep: what is done with the notice of the end, instead of putting it into the session.
        explain: makes a notice of an error; None leaves the session's.
        stops_queued: a cancel counts for what waits behind the job as well, until `begin_job`.
    """
    try:
        token.raise_if_cancelled()
        notice = yield from _say(run_job(work, token), doing)
        if notice is not None:
            keep(session, notice)
    except Exception as error:
        notice = explain(session, error)
        if notice is not None:
            session.notice = notice
    finally:
        if not (stops_queued and token.cancelled):
            session.end_job(token)


def _say(job: Generator[tuple[float, str], None, T], doing: str) -> Generator[Notice, None, T]:
    while True:
        try:
            fraction, text = next(job)
        except StopIteration as end:
            return end.value
        yield Notice("busy", f"{doing} {text}…", progress=fraction)
