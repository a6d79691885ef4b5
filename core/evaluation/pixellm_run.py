"""What ``python -m core.evaluation pixellm`` runs: which questions, ablations and tables."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import Any

import numpy as np

from core.errors import ImageError
from core.evaluation import pixellm, pixellm_layouts, pixellm_published
from core.evaluation.car_layouts import refcoco_column
from core.evaluation.pixellm_data import sticker_talks
from core.pixellm.chat_model import ChatModel

Results = tuple[dict[str, float], dict[str, Any]]

ABLATIONS = ("token_fusion", "scale_fusion")


def run_pixellm(model: ChatModel, args: argparse.Namespace) -> Results:
    """Talks; ``--limit`` counts pictures. Expect 10 minutes on one core."""
    if not args.data:
        return run_stickers(model, args)
    if args.format not in pixellm_layouts.READERS:
        raise ImageError(
            f"Unknown --format {args.format}: use one of {', '.join(pixellm_layouts.READERS)}."
        )
    talks = pixellm_layouts.READERS[args.format](args.data, args.split)
    scores = pixellm.evaluate(model, islice(talks, args.limit))
    figures = known(scores.figures())
    value = figures["giou" if args.format == "reasonseg" else "ciou"]
    beside = pixellm_published.beside(column(args), value)
    return figures, scores.details() | {
        "beside": beside,
        "published": pixellm_published.PUBLISHED,
    }


def run_stickers(model: ChatModel, args: argparse.Namespace) -> Results:
    """Known wordings, unseen ones about the same scenes, the held-out style, and ablations."""
    half = -(-args.limit // 2)
    scores = pixellm.evaluate(model, sticker_talks(args.stickers, args.limit))
    unseen = pixellm.evaluate(
        model, sticker_talks(args.stickers, args.limit, held_out_wording=True)
    )
    held = pixellm.evaluate(model, sticker_talks(args.stickers, half, held_out_style=True))
    figures = known(scores.figures())
    for prefix, other in (("unseen_wording", unseen), ("held_style", held)):
        figures |= {f"{prefix}_{name}": value for name, value in known(other.figures()).items()}
    details = {
        "seen_styles": scores.details(),
        "unseen_wording": unseen.details(),
        "held_out_style": held.details(),
        "published": pixellm_published.PUBLISHED,
    }
    return figures | ablations(model, args, half), details


def ablations(model: ChatModel, args: argparse.Namespace, count: int) -> dict[str, float]:
    """gIoU without parts of the fusion, and with all of them, on the first pictures."""
    fusion = model.network.fusion
    if not fusion.learned:
        return {}

    def giou() -> float:
        return pixellm.evaluate(model, sticker_talks(args.stickers, count)).figures()["giou"]

    figures = {"ablation_all_giou": giou()}
    for part in ABLATIONS:
        with pixellm.ablated(fusion, part):
            figures[f"ablation_no_{part}_giou"] = giou()
    return known(figures)


def column(args: argparse.Namespace) -> str:
    """Column of ``pixellm_published`` of a data set and its split."""
    if args.format == "refcoco":
        name = refcoco_column(args.data, args.split)
        return name.replace("refcoco_plus_unc_", "refcoco_plus_")
    return f"{args.format}_{args.split or 'val'}"


def known(figures: dict[str, float]) -> dict[str, float]:
    """Figures without those of nothing."""
    return {name: value for name, value in figures.items() if not np.isnan(value)}
