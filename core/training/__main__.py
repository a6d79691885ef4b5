"""Train one embedded model: ``python -m core.training NAME --minutes M --out DIR``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from core.settings import settings
from core.training.run import RunConfig

NAMES = ("sam", "robustsam", "clip", "pixellm", "diffusion")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.training", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=120.0, help="time budget")
    parser.add_argument("--out", type=Path, default=None, help="default: runs/NAME")
    parser.add_argument("--data", type=Path, default=Path(settings.sticker_folder), help="sprites")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--resume", action="store_true", help="continue from --out's checkpoint")
    parser.add_argument("--start-from", type=Path, help="begin with these exported weights")
    parser.add_argument("--seed", type=int, default=RunConfig.seed, help="of scenes and prompts")
    parser.add_argument("--learning-rate", type=float, default=RunConfig.learning_rate)
    parser.add_argument("--matrix-rate", type=float, default=RunConfig.matrix_rate, help="Muon's")
    parser.add_argument("--warmup-steps", type=int, default=RunConfig.warmup_steps)
    args = parser.parse_args(arguments)
    config = RunConfig(
        out=args.out or Path("runs") / args.name,
        minutes=args.minutes,
        device=args.device,
        resume=args.resume,
        start_from=args.start_from,
        seed=args.seed,
        learning_rate=args.learning_rate,
        matrix_rate=args.matrix_rate,
        warmup_steps=args.warmup_steps,
        threads=args.threads,
    )
    path = importlib.import_module(f"core.training.{args.name}").train(config, args.data)
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
