"""Measure one method's quality: ``python -m core.evaluation NAME --json FILE``.

By default on the sticker world's held-out objects; ``--data DIR --format FORMAT`` takes a real
data set instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.degradations import DEGRADATIONS
from core.errors import ImageError, ModelUnavailable, SuiteError
from core.evaluation.data import Example, folder_examples, sticker_examples
from core.evaluation.layouts import LAYOUTS, REAL_DEGRADATIONS
from core.models.catalogue import Entry, catalogue
from core.reports import Report
from core.sam.predictor import Predictor
from core.settings import settings

if TYPE_CHECKING:
    from core.clip.model import ClipModel
    from core.dreambooth.model import DiffusionModel
    from core.pixellm.chat_model import ChatModel
    from core.robustsam.predictor import RobustPredictor

STICKER_DATA = "sticker world, held-out objects, 256 px"
KNOWN_DATA = "sticker world, known objects in unseen renderings"

TAUGHT_DATA = "sticker world, taught objects and backdrops, unseen seeds"

Results = tuple[dict[str, float], dict[str, Any]]  # figures, details


def _as_predictor(entry: Entry, sam: Any) -> Predictor:
    return Predictor(sam, model_id=entry.id)


def _as_clip(entry: Entry, clip: Any) -> ClipModel:
    from core.clip.build import with_tokenizer

    return with_tokenizer(entry, clip)


def _as_chat(entry: Entry, network: Any) -> ChatModel:
    from core.pixellm.build import with_tokenizer

    return with_tokenizer(entry, network)


def _as_it_is(_: Entry, model: Any) -> Any:
    return model


@dataclass(frozen=True)
class Protocol:
    """One benchmark.

    Args:
        measure: called with the model, as ``hand_over`` makes it, and the arguments.
        count: pictures, or what it counts in their place, of a whole run on the sticker world.
        model: catalogue id by default.
        table: makes a table for the terminal of the report's details.
        hand_over: makes of a catalogue entry and its module what the method takes.
        data: what a run without ``--data`` is measured on.
    """

    measure: Callable[[Any, argparse.Namespace], Results]
    count: int
    model: str = "sam_embedded"
    table: Callable[[dict[str, Any]], str] | None = None
    hand_over: Callable[[Entry, Any], Any] = _as_predictor
    data: str = STICKER_DATA


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m core.evaluation", description=__doc__)
    parser.add_argument("name", choices=PROTOCOLS)
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument(
        "--card", action="store_true", help="write the figures into the embedded model's card"
    )
    parser.add_argument("--model", help="catalogue id; the protocol's own model by default")
    parser.add_argument("--data", type=Path, help="folder of a real data set")
    parser.add_argument(
        "--format",
        help="of --data: coco, labels (images/ and masks/), perseg, davis, for RobustSAM "
        f"{', '.join(LAYOUTS)}, for CaR voc, context, coco_object, coco_stuff, ade20k, "
        "refcoco, ref_davis, for PixelLM muse, reasonseg, refcoco, multi_refcoco, or for "
        "DreamBooth dreambooth",
    )
    parser.add_argument("--split", help="car, pixellm: of --data, such as testA or google/val")
    parser.add_argument("--classifier", help="car: catalogue id of the CLIP that scores")
    parser.add_argument("--sam", help="car: catalogue id of a SAM, to snap masks of --data to")
    parser.add_argument(
        "--parity",
        action="store_true",
        help="car: run --data as the published code does, its deviations included",
    )
    parser.add_argument(
        "--published-masks",
        action="store_true",
        help="robustsam: masks stay where they were if a degradation moves the pixels",
    )
    parser.add_argument(
        "--stickers", type=Path, default=Path(settings.sticker_folder), help="sprites"
    )
    parser.add_argument(
        "--limit", type=int, default=None, help="take only so many pictures (or objects)"
    )
    args = parser.parse_args(arguments)
    args.model = args.model or PROTOCOLS[args.name].model
    if args.card and (args.limit or args.data):
        parser.error("--card takes the figures of a whole run on the sticker world only")
    try:
        report = run(args)
    except SuiteError as error:
        parser.exit(2, f"{error}\n")
    print(report.table())
    if table := PROTOCOLS[args.name].table:
        print(table(report.details))
    if args.json:
        report.write(args.json)
    if args.card:
        write_card(catalogue()[args.model], report)


def write_card(entry: Entry, report: Report) -> None:
    """Put a report's figures into the JSON card beside an embedded model's weights.

    The presence threshold is a setting of the model as well: PerSAM reads it from the card.
    """
    card = entry.read_card()
    if entry.card is None or not card:
        raise SystemExit(f"{entry.id} has no card: only embedded models have one.")
    figures = {name: round(value, 3) for name, value in report.figures.items()}
    card["figures"] = {**card.get("figures", {}), report.name: figures}
    if "presence_threshold" in figures:
        card["presence_threshold"] = figures["presence_threshold"]
    entry.card.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def run(args: argparse.Namespace) -> Report:
    """Run one protocol on one model of the catalogue."""
    from core.engine import get_engine

    engine = get_engine()
    protocol = PROTOCOLS[args.name]
    limited = args.limit is not None
    args.limit = args.limit or (None if args.data else protocol.count)
    entry = engine.entry(args.model)
    with engine.model(args.model) as module:
        figures, details = protocol.measure(protocol.hand_over(entry, module), args)
    details |= {"pictures": args.limit or "all", "limited": limited}
    data = args.data.name if args.data else protocol.data
    return Report(args.name, [args.model], data, str(engine.device), figures, details)


def _examples(args: argparse.Namespace, *, held_out_style: bool = False) -> Iterator[Example]:
    if args.data:
        return islice(folder_examples(args.data, args.format), args.limit)
    return sticker_examples(args.stickers, args.limit, held_out_style=held_out_style)


def _sam(predictor: Predictor, args: argparse.Namespace) -> Results:
    """Clicks and boxes; the sticker world in its seen styles and in the held-out one."""
    from core.evaluation.sam import evaluate

    scores = evaluate(predictor, _examples(args))
    if args.data:
        return scores.figures(), scores.details()
    held = evaluate(predictor, _examples(args, held_out_style=True))
    figures = scores.figures() | {f"held_style_{k}": v for k, v in held.figures().items()}
    return figures, {"seen_styles": scores.details(), "held_out_style": held.details()}


def _edges(predictor: Predictor, args: argparse.Namespace) -> Results:
    from core.evaluation.edges import evaluate_edges

    published = {"data": "BSDS500", "sam_vit_h_ods": 0.768, "sobel_ods": 0.539, "canny_ods": 0.600}
    return evaluate_edges(predictor, _examples(args)), {"published": published}


def _proposals(predictor: Predictor, args: argparse.Namespace) -> Results:
    from core.evaluation.proposals import evaluate_proposals
    from core.sam.proposals import ProposalConfig

    embedded = args.model == "sam_embedded"
    config = ProposalConfig.embedded() if embedded else ProposalConfig()
    published = {"data": "LVIS v1 val", "sam_vit_h_average_recall_1000": 0.593}
    return evaluate_proposals(predictor, _examples(args), config), {"published": published}


def _persam(predictor: Predictor, args: argparse.Namespace) -> Results:
    """One object in other pictures; ``--limit`` counts objects. Expect 10 minutes on one core."""
    from core.evaluation.persam import PUBLISHED, evaluate, presence_figures
    from core.evaluation.persam_data import perseg_subjects, sticker_subjects
    from core.persam.config import PERSEG_MASK_VALUE

    if args.data:
        if args.format not in (None, "perseg"):
            raise ImageError(f"Unknown --format {args.format}: this protocol reads perseg.")
        subjects = islice(perseg_subjects(args.data), args.limit)
        scores = evaluate(predictor, subjects, mask_value=PERSEG_MASK_VALUE)
        return scores.figures(), scores.details() | {"published": PUBLISHED}
    scores = evaluate(predictor, sticker_subjects(args.stickers, args.limit))
    held = evaluate(
        predictor, sticker_subjects(args.stickers, args.limit, held_out_style=True), ablations=False
    )
    calibration = evaluate(
        predictor,
        sticker_subjects(args.stickers, args.limit, training_objects=True),
        ablations=False,
    )
    figures = scores.figures() | presence_figures(scores, calibration)
    figures |= {
        f"held_style_{name}": value
        for name, value in (held.figures() | presence_figures(held, calibration)).items()
        if name != "presence_threshold"
    }
    details = {"seen_styles": scores.details(), "held_out_style": held.details()}
    return figures, details | {"published": PUBLISHED}


def _persam_video(predictor: Predictor, args: argparse.Namespace) -> Results:
    """Objects through clips; ``--limit`` counts clips. The bar is PerSAM-F's J&F."""
    from core.evaluation.persam_davis import davis_sequences
    from core.evaluation.persam_video import PUBLISHED, evaluate_video, sticker_clips
    from core.persam.video import VideoConfig

    if args.data and args.format not in (None, "davis"):
        raise ImageError(f"Unknown --format {args.format}: this protocol reads davis.")
    figures: dict[str, float] = {}
    details: dict[str, Any] = {"published": PUBLISHED}
    entry = catalogue()[args.model]
    for name, learned in (("video", True), ("video_persam", False)):
        config = VideoConfig.for_model(entry, learned=learned)
        clips = (
            islice(davis_sequences(args.data), args.limit)
            if args.data
            else sticker_clips(args.stickers, args.limit)
        )
        values, details[name] = evaluate_video(predictor, clips, config)
        figures |= {f"{name}_{key}": value for key, value in values.items()}
    return figures, details


def _robustsam(predictor: Predictor, args: argparse.Namespace) -> Results:
    """SAM and RobustSAM on degraded pictures. Expect 10 minutes on one core."""
    from core.benchmark.robustsam import added_parameters, added_time_share
    from core.evaluation.robustsam import Plan, evaluate
    from core.evaluation.robustsam_published import PUBLISHED

    unseen = _unseen_kinds(args.model)
    with _both_paths(predictor, args.model) as (sam, robust):
        own = {
            "added_parameters": float(added_parameters(robust.sam)),
            "added_time_share": added_time_share(sam, robust),
        }
        move = not args.published_masks
        if args.data:
            kinds = () if args.format in REAL_DEGRADATIONS else DEGRADATIONS
            plan = Plan(kinds=kinds, severities=(None,), move_masks=move, published_jpeg=True)
            scores = evaluate(sam, robust, _examples(args), plan)
            figures = scores.figures(unseen) | scores.published_average() | own
            return figures, scores.details(unseen) | {"published": PUBLISHED}
        scores = evaluate(sam, robust, _examples(args), Plan(move_masks=move))
        quick = Plan(severities=(3, 4, 5), move_masks=move, three=False, restored=False)
        half = islice(_examples(args, held_out_style=True), -(-args.limit // 2))
        held = evaluate(sam, robust, half, quick)
    figures = scores.figures(unseen) | own
    figures |= {f"held_style_{name}": value for name, value in held.figures(unseen).items()}
    details = {
        "seen_styles": scores.details(unseen),
        "held_out_style": held.details(unseen),
        "masks_follow_the_pixels": move,
        "compared_with": sam.model_id,
        "published": PUBLISHED,
    }
    return figures, details


def _robustsam_table(details: dict[str, Any]) -> str:
    """Kinds by severities, of the data set or of every part of the sticker world."""
    from core.evaluation.robustsam import gain_table

    parts = {"data set": details} | {
        key.replace("_", " "): details.get(key, {}) for key in ("seen_styles", "held_out_style")
    }
    return "\n".join(
        f"{name}: {gain_table(part['table'])}" for name, part in parts.items() if "table" in part
    )


def _robustsam_prior(predictor: Predictor, args: argparse.Namespace) -> Results:
    """Masks as a prior of deblurring: none, SAM's, RobustSAM's, and the true ones."""
    from core.evaluation.robustsam_prior import evaluate_prior
    from core.evaluation.robustsam_published import PRIOR

    with _both_paths(predictor, args.model) as (sam, robust):
        scores = evaluate_prior(sam, robust, _examples(args))
    return scores.figures(), scores.details() | {"published": PRIOR}


@contextmanager
def _both_paths(predictor: Predictor, model_id: str) -> Iterator[tuple[Predictor, RobustPredictor]]:
    """The SAM that a RobustSAM is compared with, and itself; one encoding serves both if it can.

    Raises ModelUnavailable if the model is no RobustSAM.
    """
    from core.engine import get_engine
    from core.engine.cache import EmbeddingCache
    from core.engine.device import MIB
    from core.robustsam.build import compared_sam
    from core.robustsam.pipeline import SharedEncoding
    from core.robustsam.predictor import RobustPredictor

    engine = get_engine()
    entry = engine.entry(model_id)
    if entry.method != "robustsam":
        raise ModelUnavailable(f"{model_id} has no robust path: choose a RobustSAM.")
    robust = RobustPredictor(predictor.sam, model_id=model_id, cache=EmbeddingCache(64 * MIB))
    sam_id = compared_sam(entry)
    with engine.model(sam_id) as sam:
        yield SharedEncoding(sam, model_id=sam_id, source=robust), robust


def _unseen_kinds(model_id: str) -> tuple[str, ...]:
    """Degradations that a model was never trained on: the published models saw all of them."""
    from core.training.robust_pairs import UNSEEN

    return UNSEEN if catalogue()[model_id].set == "embedded" else ()


def _clip(model: ClipModel, args: argparse.Namespace) -> Results:
    from core.evaluation.car_run import run_clip

    return run_clip(model, args)


def _car(model: ClipModel, args: argparse.Namespace) -> Results:
    from core.evaluation.car_run import run_car

    return run_car(model, args)


def _car_table(details: dict[str, Any]) -> str:
    """Published figures, of a data set beside ours."""
    from core.evaluation.car_published import semantic_table, table

    return table(details["beside"]) if "beside" in details else semantic_table()


def _pixellm(model: ChatModel, args: argparse.Namespace) -> Results:
    from core.evaluation.pixellm_run import run_pixellm

    return run_pixellm(model, args)


def _pixellm_table(details: dict[str, Any]) -> str:
    """Published figures, of a data set beside ours."""
    from core.evaluation.pixellm_published import all_tables, table

    return table(details["beside"]) if "beside" in details else all_tables()


def _diffusion(model: DiffusionModel, args: argparse.Namespace) -> Results:
    from core.evaluation.diffusion import run_diffusion

    return run_diffusion(model, args)


def _dreambooth(model: DiffusionModel, args: argparse.Namespace) -> Results:
    from core.evaluation.dreambooth_run import run_dreambooth

    return run_dreambooth(model, args)


def _dreambooth_table(details: dict[str, Any]) -> str:
    """Published figures, ours beside them if they were measured alike."""
    from core.evaluation.dreambooth_published import table

    return table(details.get("beside"))


PROTOCOLS: dict[str, Protocol] = {
    "sam": Protocol(_sam, 500),
    "edges": Protocol(_edges, 100),
    "proposals": Protocol(_proposals, 100),
    "persam": Protocol(_persam, 40),
    "persam-video": Protocol(_persam_video, 12),
    "robustsam": Protocol(_robustsam, 40, "robustsam_embedded", _robustsam_table),
    "robustsam-prior": Protocol(_robustsam_prior, 60, "robustsam_embedded"),
    "clip": Protocol(_clip, 4, "clip_embedded", hand_over=_as_clip, data=KNOWN_DATA),
    "car": Protocol(_car, 100, "clip_embedded", _car_table, _as_clip, KNOWN_DATA),
    "pixellm": Protocol(_pixellm, 150, "pixellm_embedded", _pixellm_table, _as_chat, KNOWN_DATA),
    "diffusion": Protocol(
        _diffusion, 600, "diffusion_embedded", hand_over=_as_it_is, data=TAUGHT_DATA
    ),
    "dreambooth": Protocol(
        _dreambooth,
        12,
        "diffusion_embedded",
        _dreambooth_table,
        _as_it_is,
        "sticker world, held-out objects as subjects",
    ),
}


if __name__ == "__main__":
    main()
