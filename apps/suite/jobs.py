"""Run long work in a thread, so that its listener can say how far it is and be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from core.engine import CancelToken

T = TypeVar("T")
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
        while (report := reports.get()) is not None:
            yield report
    except GeneratorExit:
        token.cancel()
        raise
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
