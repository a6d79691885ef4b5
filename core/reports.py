"""The JSON that every evaluation and benchmark writes, and its table on the terminal."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def current_commit() -> str:
    """The commit of the working tree, with "+changes" if it differs; "unknown" without git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Report:
    """Figures of one run: flat names, fractions 0 to 1, seconds, MiB, speed-ups as reference
    over ours. ``details`` holds what a reader needs to judge them."""

    name: str
    models: list[str]
    data: str
    device: str
    figures: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    commit: str = field(default_factory=current_commit)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def table(self) -> str:
        """One line a figure, under a line that says what was measured."""
        width = max(map(len, self.figures), default=0)
        rows = [f"  {name:<{width}}  {value:8.3f}" for name, value in self.figures.items()]
        head = f"{self.name}: {', '.join(self.models)} on {self.data} ({self.device})"
        return "\n".join([head, *rows])
