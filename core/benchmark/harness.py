"""How every benchmark measures: ours against a reference, in pairs, after checking the outputs.

Both sides run in one process with the same weights, inputs, data type and threads, A B, B A,
A B, …; a claim is the median of the ratios of the pairs. Peak memory is read in a fresh process
for each side, because a process's high-water mark never falls.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from core.engine.device import MIB, synchronize, usable_cores

ROOT = Path(__file__).resolve().parents[2]

PAIRS = 7
SLOW_PAIRS = 3  # where a run takes longer than SLOW_SECONDS
SLOW_SECONDS = 20.0
WARM_UPS = 3
WARM_UP_SECONDS = 10.0  # no further warm-up once they took this long


class OutputsDiffer(Exception):
    """Ours does not compute what the reference computes; a timing would mean nothing."""


@dataclass(frozen=True)
class Pairs:
    """Seconds of paired runs, and the load of the machine around them."""

    reference: list[float]
    ours: list[float]
    load: tuple[float, float] = field(default=(0.0, 0.0))

    @property
    def ratios(self) -> list[float]:
        """Reference over ours, of each pair: above 1 ours is faster."""
        return [a / b for a, b in zip(self.reference, self.ours, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def row(self) -> dict[str, Any]:
        """What a report says of it; "loaded" means that other jobs took part."""
        return {
            "reference_s": statistics.median(self.reference),
            "ours_s": statistics.median(self.ours),
            "ratio": self.ratio,
            "ratio_range": [min(self.ratios), max(self.ratios)],
            "pairs": len(self.ours),
            "load_before_after": list(self.load),
            "loaded": max(self.load) > usable_cores(),
            "raw_s": {"reference": self.reference, "ours": self.ours},
        }


def measure_pairs(
    reference: Callable[[], Any],
    ours: Callable[[], Any],
    *,
    device: torch.device,
    limit: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Pairs:
    """Time two functions in pairs, swapping the order every other pair.

    Args:
        limit: at most so many pairs, for a quick look.
        clock: returns seconds.
    """

    def timed(function: Callable[[], Any]) -> float:
        synchronize(device)
        start = clock()
        function()
        synchronize(device)
        return clock() - start

    before = os.getloadavg()[0]
    slowest = max(_warm_up(timed, reference), _warm_up(timed, ours))
    count = SLOW_PAIRS if slowest > SLOW_SECONDS else PAIRS
    seconds: dict[str, list[float]] = {"reference": [], "ours": []}
    order = [("reference", reference), ("ours", ours)]
    for _ in range(min(count, limit or count)):
        for name, function in order:
            seconds[name].append(timed(function))
        order.reverse()
    return Pairs(**seconds, load=(before, os.getloadavg()[0]))


def _warm_up(timed: Callable[[Callable[[], Any]], float], function: Callable[[], Any]) -> float:
    """Run until warm; returns the fastest run's seconds."""
    seconds: list[float] = []
    while len(seconds) < WARM_UPS and sum(seconds) < WARM_UP_SECONDS:
        seconds.append(timed(function))
    return min(seconds)


def check_close(name: str, ours: torch.Tensor, reference: torch.Tensor, tolerance: float) -> str:
    """Say how far two outputs are apart. Raises OutputsDiffer beyond the tolerance."""
    difference = float((ours - reference).abs().max())
    if not difference <= tolerance:
        raise OutputsDiffer(f"{name} differ by {difference:.2g}; {tolerance:g} is allowed")
    return f"max difference {difference:.1e}"


def peak_memory_mib(target: str, *arguments: str) -> float:
    """Peak memory of a function in a fresh process, MiB.

    Args:
        target: "package.module:function", called with the arguments.

    Returns:
        The GPU's peak if the function used one, else the process's resident high-water mark.
    """
    code = f"from core.benchmark.harness import report_peak; report_peak({target!r}, *{arguments})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(run.stdout.split()[-1])


def report_peak(target: str, *arguments: str) -> None:
    """Call a function and print the peak memory of this process, MiB."""
    module, _, name = target.partition(":")
    getattr(import_module(module), name)(*arguments)
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        print(torch.cuda.max_memory_allocated() / MIB)
    else:
        print(resident_peak_mib())


def resident_peak_mib() -> float:
    """This process's resident high-water mark, MiB.

    On Linux not by getrusage: its figure begins with that of the parent, across exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024  # kB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def environment(device: torch.device) -> dict[str, Any]:
    """What a timing depends on besides the code."""
    import platform

    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"
