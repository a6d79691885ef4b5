"""Refuse floods politely: a token bucket for each visitor and each address."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import gradio as gr
from gradio.context import LocalContext

from core.errors import SuiteError

MOST_KEYS = 2000


class TooManyRequests(SuiteError):
    """A visitor or an address asks faster than the server serves."""


class RateLimiter:
    """Token buckets by key; the keys unused for longest are forgotten.

    Args:
        burst: requests that a new key may make at once.
        per_second: how many of them come back each second.
        clock: returns seconds.
    """

    def __init__(
        self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def check(self, key: str) -> None:
        """Take one token. Raises TooManyRequests if the key's bucket is empty."""
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.get(key, (float(self._burst), now))
            tokens = min(float(self._burst), tokens + (now - then) * self._per_second)
            if tokens < 1:
                raise TooManyRequests(
                    f"That was more than {self._burst} requests at once; "
                    "wait a few seconds and go on."
                )
            self._buckets[key] = (tokens - 1, now)
            self._buckets.move_to_end(key)
            while len(self._buckets) > MOST_KEYS:
                self._buckets.popitem(last=False)


class Doorkeeper:
    """Both limits of a page: a visitor's quick clicks pass, a room behind one address too."""

    def __init__(self) -> None:
        self._visitors = RateLimiter(burst=80, per_second=8)
        self._addresses = RateLimiter(burst=800, per_second=80)

    def check(self) -> gr.Request | None:
        """Let the request that is being served in, and return it (None: a call from Python).

        The address is the connection's: a proxy's header could be anything.

        Raises:
            TooManyRequests: the visitor or the address is over its limit.
        """
        request = LocalContext.request.get(None)
        if request is None:
            return None
        if request.session_hash:
            self._visitors.check(request.session_hash)
        if request.client is not None:
            self._addresses.check(str(request.client.host))
        return request
