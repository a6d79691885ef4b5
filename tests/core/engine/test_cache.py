import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.cache import EmbeddingCache
from core.errors import Cancelled

KEYS = st.sampled_from("abcdef")


def array(nbytes: int) -> np.ndarray:
    return np.zeros(nbytes, dtype=np.uint8)


def test_the_least_recently_used_value_goes_first():
    cache = EmbeddingCache(max_bytes=30)
    for key in "abc":
        cache.put(key, array(10))
    assert cache.get("a") is not None  # now b is the oldest
    cache.put("d", array(10))
    assert cache.get("b") is None
    assert all(cache.get(key) is not None for key in "acd")
    stats = cache.stats()
    assert (stats.entries, stats.bytes, stats.max_bytes, stats.evictions) == (3, 30, 30, 1)
    assert (stats.hits, stats.misses) == (4, 1)


def test_replacing_a_value_frees_its_bytes():
    cache = EmbeddingCache(max_bytes=30)
    cache.put("a", array(30))
    cache.put("a", array(5))
    cache.put("b", array(25))
    assert cache.stats().bytes == 30 and cache.stats().evictions == 0


def test_a_value_over_the_bound_is_handed_out_but_not_kept():
    cache = EmbeddingCache(max_bytes=10)
    cache.put("small", array(4))
    assert cache.get_or_compute("large", lambda: array(11)).nbytes == 11
    assert cache.get("large") is None and cache.get("small") is not None


def test_sizes_can_be_given():
    cache = EmbeddingCache(max_bytes=10)
    cache.put("a", "text", len)
    assert cache.get_or_compute("b", lambda: "word", len) == "word"
    assert cache.stats().bytes == 8


def test_clear():
    cache = EmbeddingCache(max_bytes=10)
    cache.put("a", array(4))
    cache.clear()
    assert cache.get("a") is None and cache.stats().bytes == 0


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="-1"):
        EmbeddingCache(-1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["get", "put"]), KEYS, st.integers(0, 40)), max_size=60))
def test_it_behaves_like_a_list_in_order_of_use(operations):
    bound = 64
    cache, model = EmbeddingCache(bound), []  # model: (key, size), oldest first
    for operation, key, size in operations:
        kept = dict(model)
        if operation == "get":
            value = cache.get(key)
            assert (None if value is None else value.nbytes) == kept.get(key)
            if key in kept:
                model = [item for item in model if item[0] != key] + [(key, kept[key])]
        else:
            cache.put(key, array(size))
            model = [item for item in model if item[0] != key] + [(key, size)]
            while sum(s for _, s in model) > bound:
                model.pop(0)
        assert cache.stats().bytes == sum(s for _, s in model) <= bound
        assert cache.stats().entries == len(model)


class WaitedFor(threading.Event):
    """An event that tells when somebody starts to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waiting.set()
        return super().wait(timeout)


class TestConcurrentCallers:
    """Callers meet at events; the computation waits until the others have arrived."""

    def test_one_computation_serves_all(self):
        cache = EmbeddingCache(100)
        computing, go_on, calls = threading.Event(), threading.Event(), []

        def compute() -> np.ndarray:
            calls.append(threading.get_ident())
            computing.set()
            assert go_on.wait(10)
            return array(7)

        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(cache.get_or_compute, "key", compute)
            assert computing.wait(10)
            others = [pool.submit(cache.get_or_compute, "key", compute) for _ in range(3)]
            # Another key is not held up by the running computation.
            assert cache.get_or_compute("other", lambda: array(1)).nbytes == 1
            go_on.set()
            assert all(other.result(10) is first.result(10) for other in others)
        assert len(calls) == 1
        assert (cache.stats().misses, cache.stats().hits) == (2, 3)

    def test_many_threads_at_one_barrier(self):
        cache, barrier, calls = EmbeddingCache(1000), threading.Barrier(8), []

        def ask(key: int) -> int:
            barrier.wait(10)
            return cache.get_or_compute(key, lambda: calls.append(key) or array(key)).nbytes

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, [1, 1, 1, 1, 2, 2, 3, 3])) == [1, 1, 1, 1, 2, 2, 3, 3]
        assert sorted(calls) == [1, 2, 3]

    def test_a_failure_is_its_own_callers_alone_and_is_not_kept(self):
        cache = EmbeddingCache(100)
        computing, go_on = threading.Event(), threading.Event()

        def cancelled() -> np.ndarray:
            computing.set()
            assert go_on.wait(10)
            raise Cancelled("Stopped.")

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(cache.get_or_compute, "key", cancelled)
            assert computing.wait(10)
            second = pool.submit(cache.get_or_compute, "key", lambda: array(3))
            go_on.set()
            with pytest.raises(Cancelled):
                first.result(10)
            assert second.result(10).nbytes == 3
        assert cache.stats().entries == 1

    def test_the_waiting_get_a_value_that_is_too_large_to_keep(self):
        cache = EmbeddingCache(1)
        computing, go_on, calls = threading.Event(), threading.Event(), []

        def compute() -> np.ndarray:
            calls.append(1)
            computing.set()
            assert go_on.wait(10)
            return array(50)

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(cache.get_or_compute, "key", compute)
            assert computing.wait(10)
            cache._running["key"].done = waited_for = WaitedFor()
            second = pool.submit(cache.get_or_compute, "key", compute)
            assert waited_for.waiting.wait(10)
            go_on.set()
            assert second.result(10) is first.result(10)
        assert len(calls) == 1

    def test_a_size_that_cannot_be_taken_does_not_block_the_key(self):
        cache = EmbeddingCache(10)
        with pytest.raises(AttributeError):
            cache.get_or_compute("key", lambda: "no nbytes")
        assert cache.get_or_compute("key", lambda: array(2)).nbytes == 2
