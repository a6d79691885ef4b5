"""Ask the model: the only file of the tab that reaches core.sam, imported at the first question.

Everything is asked outside the session's lock, of values taken under it, so that clicks are taken
while the model works; the answer is stored with the scene that asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from apps.suite.components import READY
from apps.suite.jobs import Progress, follow
from apps.suite.notices import Notice, notice_of, say_seconds
from apps.suite.segment import scene as scenes
from apps.suite.segment.patch import Patch
from apps.suite.segment.scene import Answer, Instance, Prompts, Scene
from apps.suite.segment.session import Options, Picture, SegmentSession
from core.errors import NothingFound
from core.models.catalogue import catalogue
from core.models.presets import EverythingConfig, ProposalConfig
from core.prompts import Boxes, MaskPrompt, Points

if TYPE_CHECKING:
    from core.engine import CancelToken
    from core.results import Segmentation
    from core.sam.pipeline import SamResult

T = TypeVar("T")

MOST_PROPOSALS = 100  # on the page; the endpoint returns all
MOST_ANYWAY = 20  # masks shown although they passed no threshold

# The settings of everything mode that the page offers, in the order of its fields.
EVERYTHING_FIELDS = (
    "points_per_side",
    "pred_iou_thresh",
    "stability_score_thresh",
    "box_nms_thresh",
    "crop_n_layers",
    "min_mask_region_area",
)
_WHOLE = {"points_per_side", "crop_n_layers", "min_mask_region_area"}


def read_picture(session: SegmentSession) -> None:
    """Encode the picture ahead of the first click; what goes wrong becomes the notice."""
    picture = session.picture
    if picture is None:
        return
    try:
        from core.engine import get_engine
        from core.sam.pipeline import encode

        seconds = encode(get_engine(), session.model, picture.image)
    except Exception as error:
        session.notice = notice_of(error)
        return
    with session.lock:
        session.seconds = {"encode": seconds["encode"]}
        if session.notice.kind == "busy":
            notices = " ".join(picture.loaded.notices)
            session.notice = Notice("ready", notices) if notices else READY


def answer_prompts(session: SegmentSession) -> None:
    """Answer the present prompts, unless that was done; an error becomes the notice."""
    with session.lock:
        asked, picture, options = session.scene, session.picture, session.options
    if picture is None or asked.is_answered or not asked.prompts:
        return
    try:
        answer = _ask(session.model, picture, asked, options)
    except Exception as error:
        session.notice = notice_of(error)
        return
    with session.lock:
        session.put_answer(answer, asked)
        session.method, session.found_model = "sam", ""
        session.seconds = {**session.seconds, **answer.seconds}


def _ask(model_id: str, picture: Picture, asked: Scene, options: Options) -> Answer:
    from core.engine import get_engine
    from core.sam.pipeline import segment

    prompts = asked.prompts
    result = segment(
        get_engine(),
        model_id,
        picture.image,
        points=Points.parse([list(point) for point in prompts.points], picture.size),
        boxes=Boxes.parse([list(box) for box in prompts.boxes], picture.size),
        mask_input=_former_mask(asked) if options.feed_back else None,
        multimask=_several_readings(options),
        threshold=options.mask_threshold,
    )
    return _answer(result, prompts, picture)


def _several_readings(options: Options) -> bool | None:
    """None: three masks where one point or box could mean several things, else one."""
    return None if options.multimask == "auto" else options.multimask == "on"


def _former_mask(asked: Scene) -> NDArray[np.float32] | MaskPrompt | None:
    """The mask that the new points correct, as logits (1, 4g, 4g) or as it was drawn by hand.

    None for another object.
    """
    former = asked.answer
    if former is None or asked.prompts.is_batch or not asked.prompts.extends(former.prompts):
        return None
    if former.is_drawn:
        return MaskPrompt(former.masks[0].full())
    return former.low_res_logits[[former.chosen]]


def _answer(result: SamResult, prompts: Prompts, picture: Picture) -> Answer:
    # A batch has one mask for each box; a single prompt all its readings.
    is_single = result.candidates is not None
    found = result.segmentation if result.candidates is None else result.candidates
    return Answer(
        prompts=prompts,
        masks=tuple(Patch.of(mask) for mask in found.masks),
        shown=tuple(Patch.of(picture.view.mask(mask)) for mask in found.masks),
        scores=found.scores,
        low_res_logits=result.low_res_logits[0] if is_single else result.mask_input,
        chosen=int(result.chosen[0]) if is_single else 0,
        warnings=result.segmentation.warnings,
        seconds={"predict": result.segmentation.seconds["predict"]},
    )


def everything_values(config: EverythingConfig) -> tuple[float, ...]:
    """The values of a configuration in the order of the page's fields."""
    return tuple(getattr(config, name) for name in EVERYTHING_FIELDS)


def find_everything(session: SegmentSession, *values: float | None) -> Iterator[Notice]:
    """Put everything that a grid of points finds in the place of all objects.

    Args:
        values: in the order of EVERYTHING_FIELDS.
    """

    def search(job: Job) -> Segmentation:
        return _search_everything(job, everything_config(job.model, values))

    return run_job_of(session, "Everything", search, keep_found, _offer_anyway)


def find_anything(session: SegmentSession, *values: float | None) -> Iterator[Notice]:
    """Everything mode when nothing passed its two thresholds: the best there is without them."""

    def search(job: Job) -> Segmentation:
        config = everything_config(job.model, values)
        config = replace(config, pred_iou_thresh=0.0, stability_score_thresh=0.0)
        found = _search_everything(job, config)
        best = np.sort(np.argsort(-found.scores, kind="stable")[:MOST_ANYWAY])  # largest first
        return replace(
            found,
            masks=found.masks[best],
            scores=found.scores[best],
            labels=tuple(found.labels[k] for k in best),
            ids=None,
        )

    def keep(session: SegmentSession, job: Job, found: Segmentation) -> Notice:
        keep_found(session, job, found)
        worst, best = float(found.scores.min()), float(found.scores.max())
        return Notice(
            "ready",
            f"The best {len(found)} masks, below the thresholds: predicted IoU {worst:.2f} to "
            f"{best:.2f}.",
        )

    return run_job_of(session, "Everything", search, keep, _offer_anyway)


def everything_config(model: str, values: tuple[float | None, ...]) -> EverythingConfig:
    """Read the page's fields; an emptied one has the model's own value."""
    given = {
        name: int(value) if name in _WHOLE else float(value)
        for name, value in zip(EVERYTHING_FIELDS, values, strict=True)
        if value is not None
    }
    return replace(EverythingConfig.of_set(catalogue()[model].set), **given)  # type: ignore[arg-type]


def _search_everything(job: Job, config: EverythingConfig) -> Segmentation:
    from core.sam.pipeline import segment_all

    return segment_all(
        job.engine, job.model, job.picture.image, config, cancel=job.token, progress=job.report
    )


def find_proposals(session: SegmentSession) -> Iterator[Notice]:
    """Put the best object proposals in the place of all objects."""

    def search(job: Job) -> Segmentation:
        from core.sam.pipeline import find_proposals

        preset = ProposalConfig.of_set(catalogue()[job.model].set)
        config = replace(preset, max_proposals=MOST_PROPOSALS)
        return find_proposals(
            job.engine, job.model, job.picture.image, config, cancel=job.token, progress=job.report
        )

    def keep(session: SegmentSession, job: Job, found: Segmentation) -> Notice:
        keep_found(session, job, found)
        took = say_seconds(found.seconds["predict"])
        return Notice("ready", f"The {len(found)} best proposals in {took}, the best first.")

    return run_job_of(session, "Proposals", search, keep)


def find_edges(session: SegmentSession) -> Iterator[Notice]:
    """Draw the edges that the masks of the whole picture agree on, and show them."""

    def search(job: Job) -> Any:
        from core.sam.pipeline import find_edges

        return find_edges(
            job.engine, job.model, job.picture.image, cancel=job.token, progress=job.report
        )

    def keep(session: SegmentSession, job: Job, found: Any) -> Notice:
        session.edges = found.edges
        session.panel = "edges"
        session.seconds = {**session.seconds, "predict": found.seconds["predict"]}
        return Notice("ready", f"Edges in {say_seconds(found.seconds['predict'])}.")

    return run_job_of(session, "Edges", search, keep)


class Job(NamedTuple):
    """What long work is given: taken once, so that the visitor can go on meanwhile."""

    engine: Any
    model: str
    picture: Picture
    token: CancelToken
    report: Progress


def explain(session: SegmentSession, error: Exception) -> Notice:
    """What a job's error says."""
    return notice_of(error)


def run_job_of(
    session: SegmentSession,
    title: str,
    search: Callable[[Job], T],
    keep: Callable[[SegmentSession, Job, T], Notice],
    explain: Callable[[SegmentSession, Exception], Notice] = explain,
) -> Iterator[Notice]:
    """Search in a job, and keep what was found if nobody stopped it meanwhile."""
    token = session.job_token()

    def work(report: Progress) -> Notice:
        from core.engine import get_engine

        with session.lock:
            job = Job(get_engine(), session.model, session.need_picture(), token, report)
        found = search(job)
        with session.lock:
            token.raise_if_cancelled()
            return keep(session, job, found)

    yield from follow(session, f"{title}:", work, token, explain=explain, stops_queued=True)


def _offer_anyway(session: SegmentSession, error: Exception) -> Notice:
    """The same, with what everything mode can do when nothing passes its thresholds."""
    notice = notice_of(error)
    if isinstance(error, NothingFound):
        return replace(notice, action="anyway", label="Show what there is anyway")
    return notice


def keep_found(session: SegmentSession, job: Job, found: Segmentation) -> Notice:
    """Put what was found in the place of all objects."""
    view = job.picture.view
    instances = [
        Instance(
            k,
            Patch.of(mask),
            Patch.of(view.mask(mask)),
            float(score),
            label=label,
            score_kind=found.score_kind,
        )
        for k, (mask, score, label) in enumerate(
            zip(found.masks, found.scores, found.labels, strict=True), start=1
        )
    ]
    session.put(scenes.with_found(session.scene, instances))
    session.method, session.found_model = found.method, found.model
    session.found_parameters = dict(found.parameters)
    session.seconds = {**session.seconds, "predict": found.seconds["predict"]}
    session.panel = "masks"
    took = say_seconds(found.seconds["predict"])
    return Notice("ready", f"{len(instances)} masks in {took}, sorted by size.")
