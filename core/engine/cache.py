"""Keep results that are dear to compute, such as image embeddings, within a bound of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

V = TypeVar("V")


@dataclass(frozen=True)
class CacheStats:
    """State of a cache: contents, bound, and how it was used since it was made."""

    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int
    evictions: int


class _Computation:
    """A value on its way; ``done`` is set when it is there, or when its computation failed."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.succeeded = False
        self.value: Any = None


def nbytes_of(value: Any) -> int:
    return value.nbytes


class EmbeddingCache:
    """A least-recently-used cache bounded in bytes, for threads.

    Values are shared between callers and must not be changed. A value larger than the bound is
    handed to its callers but not kept.

    Args:
        max_bytes: bound of the sizes of all values together.

    Raises:
        ValueError: the bound is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}; it must not be negative")
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._running: dict[Hashable, _Computation] = {}
        self._bytes = self._hits = self._misses = self._evictions = 0

    def get(self, key: Hashable) -> Any | None:
        """Return the value, which becomes the most recently used one, or None."""
        with self._lock:
            value = self._lookup(key)
            self._count(hit=value is not None)
            return value

    def put(self, key: Hashable, value: V, size_of: Callable[[V], int] = nbytes_of) -> None:
        """Keep a value in place of one of the same key; the least recently used ones go."""
        nbytes = size_of(value)
        with self._lock:
            self._store(key, value, nbytes)

    def get_or_compute(
        self, key: Hashable, compute: Callable[[], V], size_of: Callable[[V], int] = nbytes_of
    ) -> V:
        """Return the kept value, or compute and keep it.

        Callers that ask for one key at the same time share one computation. If it fails, its own
        caller gets the exception and the next one computes again: a visitor who cancels does not
        cancel the others.

        Args:
            compute: called without a lock held; must not ask for the same key.
            size_of: bytes of a value.
        """
        while True:
            with self._lock:
                if (value := self._lookup(key)) is not None:
                    self._count(hit=True)
                    return value
                running = self._running.get(key)
                if running is None:
                    mine = self._running[key] = _Computation()
                    self._count(hit=False)
                    break
            running.done.wait()
            if running.succeeded:
                with self._lock:
                    self._count(hit=True)
                return running.value
        return self._compute(key, mine, compute, size_of)

    def clear(self) -> None:
        """Forget all values; figures of use go on."""
        with self._lock:
            self._items.clear()
            self._bytes = 0

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                entries=len(self._items),
                bytes=self._bytes,
                max_bytes=self._max_bytes,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            )

    def _compute(
        self,
        key: Hashable,
        mine: _Computation,
        compute: Callable[[], V],
        size_of: Callable[[V], int],
    ) -> V:
        try:
            value = compute()
            nbytes = size_of(value)
            with self._lock:
                self._store(key, value, nbytes)
            mine.value, mine.succeeded = value, True
            return value
        finally:
            with self._lock:
                del self._running[key]
            mine.done.set()

    def _lookup(self, key: Hashable) -> Any | None:
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def _count(self, *, hit: bool) -> None:
        self._hits += hit
        self._misses += not hit

    def _store(self, key: Hashable, value: Any, nbytes: int) -> None:
        self._remove(key)
        if nbytes > self._max_bytes:
            return
        while self._bytes + nbytes > self._max_bytes:
            self._remove(next(iter(self._items)))
            self._evictions += 1
        self._items[key] = (value, nbytes)
        self._bytes += nbytes

    def _remove(self, key: Hashable) -> None:
        _, nbytes = self._items.pop(key, (None, 0))
        self._bytes -= nbytes
