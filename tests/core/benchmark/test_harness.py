import itertools
import statistics

import pytest
import torch

from core.benchmark import harness
from core.benchmark.harness import (
    OutputsDiffer,
    Pairs,
    check_close,
    environment,
    measure_pairs,
    peak_memory_mib,
    resident_peak_mib,
)

CPU = torch.device("cpu")


class Clock:
    """A clock that functions push forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def job(clock: Clock, name: str, seconds: float, log: list[str]):
    def run() -> None:
        clock.now += seconds
        log.append(name)

    return run


def measure(reference: float, ours: float, limit: int | None = None) -> tuple[Pairs, list[str]]:
    clock, log = Clock(), []
    pairs = measure_pairs(
        job(clock, "A", reference, log),
        job(clock, "B", ours, log),
        device=CPU,
        limit=limit,
        clock=clock,
    )
    return pairs, log


def test_runs_are_paired_in_swapped_order_after_warming_up():
    pairs, log = measure(2.0, 1.0)
    assert "".join(log) == "AAA" + "BBB" + "ABBAABBAABBAAB"
    assert pairs.ratio == 2.0
    assert len(pairs.ours) == 7


@pytest.mark.parametrize(
    ("seconds", "warm_ups", "pairs"), [(1.0, 3, 7), (6.0, 2, 7), (11.0, 1, 7), (21.0, 1, 3)]
)
def test_slow_runs_are_repeated_less(seconds, warm_ups, pairs):
    result, log = measure(seconds, seconds)
    assert len(result.reference) == pairs
    assert len(log) == 2 * (warm_ups + pairs)


def test_a_limit_takes_fewer_pairs():
    assert len(measure(1.0, 1.0, limit=2)[0].ours) == 2


def test_a_row_has_the_median_of_the_ratios_not_the_ratio_of_the_medians():
    pairs = Pairs(reference=[1.0, 9.0, 4.0], ours=[1.0, 3.0, 4.0], load=(0.5, 0.6))
    row = pairs.row()
    assert row["ratio"] == statistics.median([1.0, 3.0, 1.0])
    assert row["ratio_range"] == [1.0, 3.0]
    assert (row["reference_s"], row["ours_s"], row["pairs"]) == (4.0, 3.0, 3)
    assert row["loaded"] is False


def test_a_loaded_machine_is_said(monkeypatch):
    loads = itertools.chain([0.1], itertools.repeat(99.0))
    monkeypatch.setattr(harness.os, "getloadavg", lambda: (next(loads), 0, 0))
    pairs, _ = measure(1.0, 1.0)
    assert pairs.load == (0.1, 99.0)
    assert pairs.row()["loaded"] is True


def test_outputs_are_checked():
    a = torch.zeros(3)
    assert check_close("logits", a, a + 1e-5, 1e-4) == "max difference 1.0e-05"
    with pytest.raises(OutputsDiffer, match="logits differ by 0.5"):
        check_close("logits", a, a + 0.5, 1e-4)
    with pytest.raises(OutputsDiffer):
        check_close("logits", a, a + torch.nan, 1e-4)


def allocate(mib: str) -> None:
    """Runs in a fresh process: fills memory and lets go of it."""
    assert len(bytearray(b"x") * (int(mib) * 2**20)) == int(mib) * 2**20


def test_peak_memory_is_that_of_a_fresh_process():
    """Not of this one, whatever it holds; and it counts what was freed."""
    ballast = bytearray(b"x") * (600 * 2**20)
    target = "tests.core.benchmark.test_harness:allocate"
    little, much = (peak_memory_mib(target, mib) for mib in ("1", "300"))
    assert 280 < much - little < 320
    assert little < resident_peak_mib()
    assert len(ballast) > 0


def test_environment_is_complete():
    values = environment(CPU)
    assert values.keys() >= {"processor", "cores", "threads", "torch", "device", "date"}
    assert all(values.values())
