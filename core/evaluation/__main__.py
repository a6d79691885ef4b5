"""Measure one method's quality: ``python -m core.evaluation NAME --json FILE``.

By default on the sticker world's held-out objects; ``--data DIR --format FORMAT`` takes a real
data set instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from core.errors import SuiteError
from core.evaluation.data import Example, folder_examples, sticker_examples
from core.reports import Report
from core.sam.predictor import Predictor
from core.settings import settings

STICKER_DATA = "sticker world, held-out objects, 256 px"

# A protocol: (predictor, args) -> figures, details.
Protocol = Callable[[Predictor, argparse.Namespace], tuple[dict[str, float], dict[str, Any]]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.evaluation", description=__doc__)
    parser.add_argument("name", choices=PROTOCOLS)
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--model", default="sam_embedded", help="catalogue id")
    parser.add_argument("--data", type=Path, help="folder of a real data set")
    parser.add_argument("--format", help="of --data: coco, or labels (images/ and masks/)")
    parser.add_argument(
        "--stickers", type=Path, default=Path(settings.sticker_folder), help="sprites"
    )
    parser.add_argument("--limit", type=int, default=None, help="take only so many pictures")
    args = parser.parse_args(arguments)
    try:
        report = run(args)
    except SuiteError as error:
        parser.exit(2, f"{error}\n")
    print(report.table())
    if args.json:
        report.write(args.json)


def run(args: argparse.Namespace) -> Report:
    """Run one protocol on one SAM of the catalogue."""
    from core.engine import get_engine

    engine = get_engine()
    protocol, default_count = PROTOCOLS[args.name]
    limited = args.limit is not None
    args.limit = args.limit or (None if args.data else default_count)
    with engine.model(args.model) as sam:
        figures, details = protocol(Predictor(sam, model_id=args.model), args)
    details |= {"pictures": args.limit or "all", "limited": limited}
    data = args.data.name if args.data else STICKER_DATA
    return Report(args.name, [args.model], data, str(engine.device), figures, details)


def _examples(args: argparse.Namespace, *, held_out_style: bool = False) -> Iterator[Example]:
    if args.data:
        return islice(folder_examples(args.data, args.format), args.limit)
    return sticker_examples(args.stickers, args.limit, held_out_style=held_out_style)


def _sam(predictor: Predictor, args: argparse.Namespace) -> tuple[dict[str, float], dict[str, Any]]:
    """Clicks and boxes; the sticker world in its seen styles and in the held-out one."""
    from core.evaluation.sam import evaluate

    scores = evaluate(predictor, _examples(args))
    if args.data:
        return scores.figures(), scores.details()
    held = evaluate(predictor, _examples(args, held_out_style=True))
    figures = scores.figures() | {f"held_style_{k}": v for k, v in held.figures().items()}
    return figures, {"seen_styles": scores.details(), "held_out_style": held.details()}


def _edges(
    predictor: Predictor, args: argparse.Namespace
) -> tuple[dict[str, float], dict[str, Any]]:
    from core.evaluation.edges import evaluate_edges

    published = {"data": "BSDS500", "sam_vit_h_ods": 0.768, "sobel_ods": 0.539, "canny_ods": 0.600}
    return evaluate_edges(predictor, _examples(args)), {"published": published}


def _proposals(
    predictor: Predictor, args: argparse.Namespace
) -> tuple[dict[str, float], dict[str, Any]]:
    from core.evaluation.proposals import evaluate_proposals
    from core.sam.proposals import ProposalConfig

    embedded = args.model == "sam_embedded"
    config = ProposalConfig.embedded() if embedded else ProposalConfig()
    published = {"data": "LVIS v1 val", "sam_vit_h_average_recall_1000": 0.593}
    return evaluate_proposals(predictor, _examples(args), config), {"published": published}


PROTOCOLS: dict[str, tuple[Protocol, int]] = {
    "sam": (_sam, 500),
    "edges": (_edges, 100),
    "proposals": (_proposals, 100),
}


if __name__ == "__main__":
    main()
