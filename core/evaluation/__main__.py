"""Measure one method's quality: ``python -m core.evaluation NAME --json FILE``.

By default on the sticker world's held-out objects; ``--data DIR --format FORMAT`` takes a real
data set instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import SuiteError
from core.reports import Report

NAMES = ("sam",)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.evaluation", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--model", default=None, help="catalogue id (default: the embedded one)")
    parser.add_argument("--data", type=Path, help="folder of a real data set")
    parser.add_argument(
        "--stickers", type=Path, default=Path("data/stickers"), help="sprite folder"
    )
    parser.add_argument("--format", help="of --data: coco, or labels (images/ and masks/)")
    parser.add_argument("--limit", type=int, default=None, help="take only so many pictures")
    args = parser.parse_args(arguments)
    try:
        report = run_sam(args)
    except SuiteError as error:
        parser.exit(2, f"{error}\n")
    print(report.table())
    if args.json:
        report.write(args.json)


def run_sam(args: argparse.Namespace) -> Report:
    """Evaluate a SAM of the catalogue; the sticker world is scored in seen and held-out style."""
    from core.engine import get_engine
    from core.evaluation.data import Example, folder_examples, sticker_examples
    from core.evaluation.sam import evaluate
    from core.sam.predictor import Predictor

    engine = get_engine()
    model_id = args.model or "sam_embedded"
    count = args.limit or 500
    figures: dict[str, float] = {}
    details: dict[str, Any] = {"pictures": count, "limited": args.limit is not None}
    with engine.model(model_id) as sam:
        predictor = Predictor(sam, model_id=model_id)
        if args.data:
            examples: Iterator[Example] = islice(
                folder_examples(args.data, args.format), args.limit
            )
        else:
            examples = sticker_examples(args.stickers, count)
        scores = evaluate(predictor, examples)
        figures |= scores.figures()
        details["all" if args.data else "seen_styles"] = scores.details()
        if not args.data:
            held = evaluate(predictor, sticker_examples(args.stickers, count, held_out_style=True))
            figures |= {f"held_style_{k}": v for k, v in held.figures().items()}
            details["held_out_style"] = held.details()
    data = args.data.name if args.data else "sticker world, held-out objects, 256 px"
    return Report("sam", [model_id], data, str(engine.device), figures, details)


if __name__ == "__main__":
    main()
