"""Ask the model: the only file of the tab that runs core.persam, imported at the first question.

Questions are asked outside of the session's lock, of values taken under it; what was found is
stored with what was asked, so that an answer to a former question is never shown as the present's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.suite.components import READY
from apps.suite.jobs import Progress, run_job
from apps.suite.notices import Notice, notice_of, say_seconds
from apps.suite.personalize.session import (
    NO_OBJECT,
    VARIANTS,
    PersonalizeSession,
    PersonalObject,
    Query,
)
from core.errors import PromptError
from core.prompts import Points

if TYPE_CHECKING:
    from core.engine import CancelToken
    from core.persam.pipeline import PersamResult
    from core.persam.profile import Profile

Objects = list[tuple[int, "Profile"]]  # number and profile


def search(session: PersonalizeSession) -> Iterator[Notice]:
    """Look for all objects in all pictures, or follow them through the clip, as far as needed.

    Yields how far it is; the last notice stays with the session.
    """
    with session.lock:
        has_clip, objects = session.clip is not None, session.objects()
        waiting = bool(session.queries) and any(
            not query.results.get(session.variant) or session.variant not in query.asked
            for query in session.queries
        )
    if not objects:
        return
    yield from _run(session, _follow if has_clip else _search_all, quiet=not waiting)


def learn_only(session: PersonalizeSession) -> Iterator[Notice]:
    """Learn the objects that are marked, for their weights and warnings to be seen."""
    if session.objects():
        yield from _run(session, _learn_all, quiet=True)


def compare(session: PersonalizeSession) -> Iterator[Notice]:
    """Answer the picture in the large frame with both variants."""

    def both(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
        query = session.need_query()
        for variant in VARIANTS:
            objects = learn(session, variant, token)
            _answer(session, query, variant, objects, token)
        return READY

    if session.objects() and session.query is not None:
        yield from _run(session, both, quiet=True)


def answer_corrections(session: PersonalizeSession) -> None:
    """Answer the clicks on results that came in meanwhile; an error becomes the notice."""
    while session.corrections:
        with session.lock:
            query, x, y, label = session.corrections.pop(0)
        try:
            _correct(session, query, Points.parse([[x, y, label]], query.loaded.size))
        except Exception as error:
            session.notice = notice_of(error)


def _correct(session: PersonalizeSession, query: Query, clicks: Points) -> None:
    from core.engine import get_engine
    from core.persam.pipeline import correct

    with session.lock:
        variant, result = session.variant, query.result(session.variant)
        if result is None:
            return
        known = [found.number for trace in result.traces for found in trace.found]
        number = session.active if session.active in known else known[0]
    image = query.loaded.image
    corrected = correct(get_engine(), session.model, image, result, number, clicks)
    with session.lock:
        if query.result(variant) is result:
            query.results[variant].append(corrected)


def learn(session: PersonalizeSession, variant: str, token: CancelToken) -> Objects:
    """Learn what changed since it was learned; number and profile of every object."""
    with session.lock:
        objects, model = session.objects(), session.model
        fit = session.choices.fit(variant)
    return [(item.number, _learn_one(session, item, model, fit, token)) for item in objects]


def _learn_one(
    session: PersonalizeSession, item: PersonalObject, model: str, fit: Any, token: CancelToken
) -> Profile:
    if item.profile is not None:
        return item.profile
    from core.engine import get_engine
    from core.persam.pipeline import learn
    from core.persam.target import Reference

    masks = tuple(mask for _, mask in item.masks)
    known = session.learned.get(item.number)
    if known is not None:
        (known_masks, known_model, known_fit), learned = known
        if (known_masks, known_model) == (masks, model) and (fit is None or known_fit == fit):
            return _named(session, item, learned.profile)
    learned = learn(
        get_engine(),
        model,
        [Reference(marked.picture.image, mask.full()) for marked, mask in item.masks],
        name=item.name,
        fit=fit,
        cancel=token,
    )
    session.learned[item.number] = ((masks, model, fit), learned)
    return learned.profile


def _named(session: PersonalizeSession, item: PersonalObject, profile: Profile) -> Profile:
    """The profile under the object's present name; the same one if that did not change."""
    if profile.name == item.name:
        return profile
    key, learned = session.learned[item.number]
    learned = replace(learned, profile=replace(profile, name=item.name))
    session.learned[item.number] = (key, learned)
    return learned.profile


def _learn_all(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
    learn(session, session.variant, token)
    return _learned_notice(session) or READY


def _search_all(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
    variant = session.variant
    objects = learn(session, variant, token)
    queries = session.queries
    for done, query in enumerate(queries):
        token.raise_if_cancelled(f"after {done} of {len(queries)} pictures; those are kept")
        report(done / len(queries), f"picture {done + 1} of {len(queries)}")
        _answer(session, query, variant, objects, token)
    return _learned_notice(session) or READY


def _answer(
    session: PersonalizeSession, query: Query, variant: str, objects: Objects, token: CancelToken
) -> None:
    """Search one picture, unless its answer is to the same question already."""
    from core.engine import get_engine
    from core.persam.pipeline import find

    config = session.choices.config(variant)
    question = (session.model, config, tuple((k, profile) for k, profile in objects))
    if query.asked.get(variant) == question:
        return
    result: PersamResult = find(
        get_engine(),
        session.model,
        query.loaded.image,
        [profile for _, profile in objects],
        config,
        numbers=[number for number, _ in objects],
        cancel=token,
    )
    with session.lock:
        query.asked[variant] = question
        query.results[variant] = [result]


def _follow(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
    """Follow the objects through the clip; the frames that were done stay after a cancel."""
    from core.engine import get_engine
    from core.persam.video import VideoConfig, VideoObject, follow

    clip = session.clip
    assert clip is not None
    with session.lock:
        objects, variant = session.objects(), session.variant
    profiles = dict(learn(session, variant, token))
    followed = []
    for item in objects:
        in_clip = [(marked, mask) for marked, mask in item.masks if marked.frame is not None]
        if in_clip:
            marked, mask = min(in_clip, key=lambda pair: pair[0].frame or 0)
            followed.append(VideoObject(item.name, marked.frame or 0, mask.full()))
        else:
            followed.append(VideoObject(item.name, profile=profiles[item.number]))
    config = VideoConfig.persam_f() if variant == "persam_f" else VideoConfig()
    result = follow(
        get_engine(),
        session.model,
        clip.frames,
        followed,
        config,
        cancel=token,
        progress=lambda fraction, text: report(fraction, text.lower()),
    )
    with session.lock:
        session.followed = result
        session.followed_numbers = tuple(item.number for item in objects)
        session.followed_file = None
    took = say_seconds(result.seconds["total"])
    done = len(result.frames)
    if result.complete:
        return Notice("ready", f"{done} frames in {took}.")
    return Notice("hint", f"Stopped after {done} of {len(clip.frames)} frames; those are kept.")


def _learned_notice(session: PersonalizeSession) -> Notice | None:
    """What learning had to say about the objects, if anything."""
    texts = dict.fromkeys(
        text
        for item in session.objects()
        if item.number in session.learned
        for text in session.learned[item.number][1].warnings
    )
    return Notice("warning", " ".join(texts)) if texts else None


def _run(
    session: PersonalizeSession,
    work: Callable[[PersonalizeSession, CancelToken, Progress], Notice],
    *,
    quiet: bool = False,
) -> Iterator[Notice]:
    """Run work in a thread; yield how far it is, and leave the last notice with the session."""
    try:
        with session.lock:
            if not session.objects():
                raise PromptError(NO_OBJECT)
            token = session.job_token()
        token.raise_if_cancelled()
        job = run_job(lambda report: work(session, token, report), token)
        if not quiet:
            yield Notice("busy", "Learning the object…")
        while True:
            try:
                fraction, text = next(job)
            except StopIteration as end:
                _finish(session, end.value)
                return
            yield Notice("busy", f"Searching {text}…", progress=fraction)
    except Exception as error:
        session.notice = notice_of(error)


def _finish(session: PersonalizeSession, notice: Notice) -> None:
    """Leave the notice, unless the listener before left one that matters."""
    with session.lock:
        if notice is not READY or session.notice.kind in ("busy", "ready"):
            kept = session.notice if session.notice.kind == "ready" and notice is READY else notice
            session.notice = kept


def mean_seconds(session: PersonalizeSession) -> float:
    """Mean time per searched picture; not-a-number before there is one."""
    seconds = [
        result.segmentation.seconds["total"]
        for query in session.queries
        if (result := query.result(session.variant)) is not None
    ]
    return float(np.mean(seconds)) if seconds else float("nan")
