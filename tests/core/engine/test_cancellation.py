import threading

import pytest

from core.engine.cancellation import CancelToken
from core.errors import Cancelled


def test_work_goes_on_until_it_is_cancelled():
    token = CancelToken()
    token.raise_if_cancelled()
    assert not token.cancelled
    token.cancel()
    token.cancel()
    assert token.cancelled
    with pytest.raises(Cancelled, match="^Stopped at your request.$"):
        token.raise_if_cancelled()


def test_the_message_says_how_far_the_work_came():
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled, match="^Stopped after 3 of 8 crops.$"):
        token.raise_if_cancelled("after 3 of 8 crops")


def test_another_thread_can_cancel():
    token, started, stopped_at = CancelToken(), threading.Event(), []

    def work() -> None:
        for step in range(10**9):
            started.set()
            try:
                token.raise_if_cancelled()
            except Cancelled:
                stopped_at.append(step)
                return

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    token.cancel()
    thread.join(10)
    assert not thread.is_alive() and stopped_at
