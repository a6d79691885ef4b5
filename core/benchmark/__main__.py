"""Measure speed and memory: ``python -m core.benchmark NAME --json FILE``.

Each benchmark is a module of this package with a function ``run(limit) -> Report``.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from core.benchmark.harness import OutputsDiffer
from core.errors import SuiteError
from core.reports import Report

NOT_BENCHMARKS = {"__init__", "__main__", "harness"}


def names() -> list[str]:
    """All benchmarks, by the modules of this package."""
    stems = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return sorted(stem for stem in stems - NOT_BENCHMARKS if not stem.startswith("_"))


def run(name: str, limit: int | None) -> Report:
    return import_module(f"core.benchmark.{name}").run(limit)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.benchmark", description=__doc__)
    parser.add_argument("name", choices=names())
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--limit", type=int, default=None, help="at most so many repeats")
    args = parser.parse_args(arguments)
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit is {args.limit}; it must be at least 1")
    try:
        report = run(args.name, args.limit)
    except (SuiteError, OutputsDiffer) as error:
        parser.exit(1, f"{error}\n")
    print(report.table())
    if args.json:
        report.write(args.json)


if __name__ == "__main__":
    main()
