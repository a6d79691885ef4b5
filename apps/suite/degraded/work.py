"""Ask both models: the only file of the tab that reaches core.robustsam, when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apps.suite.degraded.drawing import draw_card
from apps.suite.degraded.session import DegradedSession, Restored
from apps.suite.jobs import Progress, follow
from apps.suite.models import robust_model
from apps.suite.notices import Notice
from core.degradations import COMBINATIONS, DEGRADATIONS, SEVERITIES
from core.errors import NothingFound, PromptError
from core.prompts import Boxes, Points

if TYPE_CHECKING:
    from core.engine import CancelToken
    from core.robustsam.priors import Restoration

Work = Callable[[Progress, Any], Notice | None]

OTHER_PROMPTS = Notice("hint", "That was about other prompts; run it again.")


def read_picture(session: DegradedSession) -> Iterator[Notice]:
    """Encode the picture for both models, ahead of the first click, and guess what is wrong."""
    if session.picture is None:
        return

    def work(report: Progress, token: CancelToken) -> Notice | None:
        from core.degradations.guess import guess
        from core.engine import get_engine
        from core.robustsam.pipeline import encode_robust

        picture = session.picture
        if picture is None:
            return None
        model = robust_model(session.model)
        guesses = tuple(guess(picture.image))
        seconds = encode_robust(get_engine(), model, picture.image, cancel=token, progress=report)
        with session.lock:
            if session.picture is picture:
                session.guesses = guesses
                session.seconds = {"encode": seconds["encode"]}
                if session.notice.kind == "busy":
                    return Notice("ready", " ".join(picture.loaded.notices))
        return None

    yield from _run(session, "Reading", work)


def compare(session: DegradedSession) -> Iterator[Notice]:
    """Answer the present prompts by both models, unless that was done."""
    if session.picture is None or not session.scene.prompts:
        session.forget_answer()
        return
    key = _key(session)
    if session.asked == key:
        return
    session.forget_measured()

    def work(report: Progress, token: CancelToken) -> None:
        from core.engine import get_engine
        from core.robustsam import pipeline

        with session.lock:
            picture, asked = session.need_picture(), _asked(session)
        model = robust_model(session.model)
        engine = get_engine()
        found = pipeline.compare(
            engine, model, picture.image, cancel=token, progress=report, **asked
        )
        with session.lock:
            if session.picture is picture and _key(session) == key:
                session.comparison, session.asked = found, key
                session.seconds = {**session.seconds, "predict": _seconds(found)}
        truth = _truth(session, engine, model, asked)
        with session.lock:
            if truth is not None and session.comparison is found:
                session.ious = found.ious(truth)

    yield from _run(session, "Segmenting", work)


def fill_sheet(session: DegradedSession) -> Iterator[Notice]:
    """Compare both models on every kind at the chosen severity, card by card."""
    severity = session.choice.severity
    session.sheet = ()
    steps = [(name, severity) for name in DEGRADATIONS]
    yield from _sweep(session, steps, "sheet")


def fill_series(session: DegradedSession) -> Iterator[Notice]:
    """Compare both models on the chosen kind at every severity."""
    name = session.choice.name
    if name in COMBINATIONS or session.choice.is_clear:
        session.notice = Notice("warning", "Choose one kind of degradation first.")
        return
    session.series = ()
    yield from _sweep(session, [(name, severity) for severity in SEVERITIES], "series")


def _sweep(session: DegradedSession, steps: list[tuple[str, int]], place: str) -> Iterator[Notice]:
    def work(report: Progress, token: CancelToken) -> Notice:
        from core.engine import get_engine
        from core.robustsam import pipeline

        with session.lock:
            clear, asked = session.need_clear(), _asked(session)
            seed, key = session.choice.seed, _key(session)
        found = pipeline.sweep(
            get_engine(),
            robust_model(session.model),
            clear.loaded.image,
            steps,
            clear.truth,
            seed=seed,
            cancel=token,
            **asked,
        )
        for number, step in enumerate(found, start=1):
            with session.lock:
                if _key(session) != key:
                    return OTHER_PROMPTS
                setattr(session, place, (*getattr(session, place), draw_card(step)))
            report(number / len(steps), f"{number} of {len(steps)}")
        gains = [step.robust_iou - step.sam_iou for step in getattr(session, place)]
        return Notice(
            "ready",
            f"{len(steps)} pictures: RobustSAM is {np.mean(gains):+.2f} IoU from SAM on average, "
            f"{min(gains):+.2f} to {max(gains):+.2f}.",
        )

    session.panel = "all" if place == "sheet" else session.panel
    yield from _run(session, "Comparing", work)


def restore(session: DegradedSession) -> Iterator[Notice]:
    """Deblur the picture without a mask, with SAM's and with RobustSAM's, and measure each."""

    def work(report: Progress, token: CancelToken) -> Notice:
        from core.engine import get_engine
        from core.robustsam.pipeline import union_of
        from core.robustsam.priors import restore_degraded

        with session.lock:
            if missing := session.missing_to_restore():
                raise PromptError(missing)
            clear, degraded, found = session.need_clear(), session.degraded, session.comparison
            asked, key = _asked(session), _key(session)
        assert degraded is not None and found is not None
        answers = {"sam": found.sam, "robustsam": found.robust}
        image, size = clear.loaded.image, clear.loaded.size
        subject = _truth(session, get_engine(), robust_model(session.model), asked)
        if subject is None:
            subject = union_of(found.sam, size) | union_of(found.robust, size)
        smear, results = restore_degraded(
            image,
            degraded,
            {name: one.segmentation.masks if one else None for name, one in answers.items()},
            subject,
            cancel=token,
            progress=report,
        )
        with session.lock:
            if _key(session) != key:
                return OTHER_PROMPTS
            session.restored = Restored(tuple(results), smear.before)
            session.panel = "restored"
        return Notice("ready", _say_restored(results))

    yield from _run(session, "Deblurring", work)


def _say_restored(results: list[Restoration]) -> str:
    blurred, *gains = [one.quality.subject_psnr for one in results]
    plain, sam, robust = (f"{value - blurred:+.2f} dB" for value in gains)
    return f"Around the subject: deblurred {plain}, with SAM's mask {sam}, RobustSAM's {robust}."


def _asked(session: DegradedSession) -> dict[str, Any]:
    """The prompts and options as both models take them."""
    size = session.need_picture().size
    prompts, options = session.scene.prompts, session.options
    return {
        "points": Points.parse([list(point) for point in prompts.points], size),
        "boxes": Boxes.parse([list(box) for box in prompts.boxes], size),
        "multimask": None if options.multimask == "auto" else options.multimask == "on",
        "threshold": options.mask_threshold,
    }


def _key(session: DegradedSession) -> Any:
    """What an answer depends on."""
    truth = None if session.clear is None else id(session.clear.truth)
    return session.picture, session.scene.prompts, session.options, session.model, truth


def _truth(
    session: DegradedSession, engine: Any, model: str, asked: dict[str, Any]
) -> NDArray[np.bool_] | None:
    """What both answers are measured with, in the degraded picture; None if nothing is known.

    An uploaded mask, or what SAM makes of the clear picture where it was degraded here.
    """
    clear, degraded, choice = session.need_clear(), session.degraded, session.choice
    if clear.truth is not None:
        truth = clear.truth
    elif choice.is_clear:
        return None
    else:
        key = (clear, session.scene.prompts, session.options, session.model)
        known, mask = session.clear_answer
        if known != key:
            mask = _clear_mask(engine, model, clear.loaded.image, asked)
            session.clear_answer = (key, mask)
        if mask is None:
            return None
        truth = mask
    return truth if degraded is None else degraded.displace_mask(truth)


def _clear_mask(
    engine: Any, model: str, image: NDArray[np.uint8], asked: dict[str, Any]
) -> NDArray[np.bool_] | None:
    from core.robustsam.pipeline import clear_mask

    try:
        return clear_mask(engine, model, image, **asked)
    except NothingFound:
        return None


def _seconds(found: Any) -> float:
    answers = [one for one in (found.sam, found.robust) if one is not None]
    return max(one.segmentation.seconds["predict"] for one in answers)


def _run(session: DegradedSession, title: str, work: Work) -> Iterator[Notice]:
    token = session.job_token()
    yield from follow(session, f"{title}:", lambda report: work(report, token), token)
