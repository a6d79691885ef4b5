"""Ask the model: the only file of the tab that runs core.persam, imported at the first question.

Questions are asked outside of the session's lock, of values taken under it; what was found is
stored with what was asked, so that an answer to a former question is never shown as the present's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apps.suite import jobs
from apps.suite.components import READY
from apps.suite.jobs import Progress
from apps.suite.notices import Notice, notice_of, say_seconds
from apps.suite.personalize.drawing import write_followed
from apps.suite.personalize.session import (
    NO_OBJECT,
    VARIANTS,
    PersonalizeSession,
    PersonalObject,
    Query,
)
from core.errors import Cancelled, PromptError
from core.models.catalogue import catalogue
from core.prompts import Points

if TYPE_CHECKING:
    from core.engine import CancelToken
    from core.persam.clips import Clip
    from core.persam.config import PersamConfig
    from core.persam.pipeline import PersamResult
    from core.persam.profile import Profile
    from core.persam.video import VideoObject

MOST_CORRECTIONS = 50  # that can be taken back in one picture

Work = Callable[["PersonalizeSession", "CancelToken", Progress], Notice]


class Question(NamedTuple):
    """What a search asks: taken once, so that the visitor can go on meanwhile.

    Args:
        config: of the method, a PersamConfig.
        objects: number and profile of each.
    """

    model: str
    config: PersamConfig
    objects: list[tuple[int, Profile]]

    @property
    def key(self) -> tuple[Any, ...]:
        """What its answer depends on: not the names."""
        looks = tuple((k, profile.target, profile.scale_weights) for k, profile in self.objects)
        return self.model, self.config, looks


def search(session: PersonalizeSession) -> Iterator[Notice]:
    """Look for all objects in all pictures, or follow them through the clip.

    What is known already is not asked again; answers to other questions go. Yields how far it
    is; the last notice stays with the session.
    """
    with session.lock:
        has_clip, objects = session.clip is not None, session.objects()
        session.learned = {
            k: known for k, known in session.learned.items() if k in {o.number for o in objects}
        }
        if not objects:
            session.forget_results()
            return
    yield from _run(session, _follow if has_clip else _search_all, session.job_token())


def learn_only(session: PersonalizeSession) -> Iterator[Notice]:
    """Learn the objects that are marked, for their weights and warnings to be seen."""
    if session.objects():
        yield from _run(session, _learn_all, session.job_token())


def compare(session: PersonalizeSession) -> Iterator[Notice]:
    """Answer the picture in the large frame with both variants, whatever else is going on."""
    from core.engine import CancelToken

    def both(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
        _answer_both(session, token)
        return READY

    if session.objects() and session.query is not None:
        yield from _run(session, both, CancelToken())


def answer_corrections(session: PersonalizeSession) -> None:
    """Answer the clicks on results that came in meanwhile; an error becomes the notice."""
    while session.corrections:
        with session.lock:
            query, variant, number, x, y, label = session.corrections.pop(0)
        try:
            clicks = Points.parse([[x, y, label]], query.loaded.size)
            _correct(session, query, variant, number, clicks)
        except Exception as error:
            session.notice = notice_of(error)


def _correct(
    session: PersonalizeSession, query: Query, variant: str, number: int, clicks: Points
) -> None:
    from core.engine import get_engine
    from core.persam.pipeline import correct

    result = query.result(variant)
    if result is None:
        return
    image = query.loaded.image
    corrected = correct(get_engine(), session.model, image, result, number, clicks)
    with session.lock:
        if query.result(variant) is result:
            query.results[variant] = [*query.results[variant], corrected][-MOST_CORRECTIONS:]


def ask(session: PersonalizeSession, variant: str, token: CancelToken) -> Question:
    """Learn what changed since it was learned, and say what is to be asked now."""
    with session.lock:
        objects, model = session.objects(), session.model
        fit, config = session.choices.fit(variant), session.choices.config(variant)
    profiles = [(item.number, _learn_one(session, item, model, fit, token)) for item in objects]
    return Question(model, config, profiles)


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
    ask(session, session.variant, token)
    return _learned_notice(session) or READY


def _search_all(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
    with session.lock:
        queries, variant = session.queries, session.variant
    question = ask(session, variant, token)
    with session.lock:
        token.raise_if_cancelled()
        for query in queries:
            _drop_other_answers(query, variant, question)
    for done, query in enumerate(queries):
        token.raise_if_cancelled(f"after {done} of {len(queries)} pictures; those are kept")
        report(done / len(queries), f"picture {done + 1} of {len(queries)}")
        _answer(session, query, variant, question, token)
    if session.stage == "compare":
        _answer_both(session, token)
    return _learned_notice(session) or READY


def _answer_both(session: PersonalizeSession, token: CancelToken) -> None:
    query = session.need_query()
    for variant in VARIANTS:
        _answer(session, query, variant, ask(session, variant, token), token)


def _answer(
    session: PersonalizeSession,
    query: Query,
    variant: str,
    question: Question,
    token: CancelToken,
) -> None:
    """Search one picture, unless its answer is to the same question already."""
    from core.engine import get_engine
    from core.persam.pipeline import find

    names = {number: profile.name for number, profile in question.objects}
    if query.asked.get(variant) == question.key:
        with session.lock:
            found = query.results.get(variant, [])
            query.results[variant] = [_renamed(result, names) for result in found]
        return
    result: PersamResult = find(
        get_engine(),
        question.model,
        query.loaded.image,
        [profile for _, profile in question.objects],
        question.config,
        numbers=list(names),
        cancel=token,
    )
    with session.lock:
        token.raise_if_cancelled()
        query.asked[variant] = question.key
        query.results[variant] = [result]


def _drop_other_answers(query: Query, variant: str, question: Question) -> None:
    """Drop what answers another question, of the other variant as well if objects changed."""
    for name, key in list(query.asked.items()):
        wrong = key != question.key if name == variant else key[0] != question.model
        if wrong:
            query.asked.pop(name)
            query.results.pop(name, None)


def _renamed(result: PersamResult, names: dict[int, str]) -> PersamResult:
    """The same result under the objects' present names."""
    known = {trace.found[0].number: trace.profile.name for trace in result.traces}
    if known == names:
        return result
    traces = tuple(
        replace(trace, profile=replace(trace.profile, name=names[trace.found[0].number]))
        for trace in result.traces
    )
    labels = {found.number: t.profile.name for t in traces for found in t.found}
    new_name = {old: names[number] for number, old in known.items()}
    found = result.segmentation
    segmentation = replace(
        found,
        labels=tuple(labels[number] for number in found.numbers),
        dropped=tuple(replace(d, label=new_name.get(d.label, d.label)) for d in found.dropped),
    )
    return replace(result, traces=traces, segmentation=segmentation)


def _follow(session: PersonalizeSession, token: CancelToken, report: Progress) -> Notice:
    """Follow the objects through the clip; the frames that were done stay after a cancel."""
    from core.engine import get_engine
    from core.persam.video import VideoConfig, follow

    with session.lock:
        clip, objects, variant = session.clip, session.objects(), session.variant
    assert clip is not None
    question = ask(session, variant, token)
    profiles = dict(question.objects)
    config = VideoConfig.for_model(catalogue()[question.model], learned=variant == "persam_f")
    if question.config.presence_threshold:
        config = replace(config, presence_threshold=question.config.presence_threshold)
    result = follow(
        get_engine(),
        question.model,
        clip.frames,
        [_followed(item, clip, profiles[item.number]) for item in objects],
        config,
        numbers=[item.number for item in objects],
        cancel=token,
        progress=lambda fraction, text: report(fraction, text.lower()),
    )
    with session.lock:
        if session.clip is not clip:
            return READY
        session.followed, session.followed_file = result, None
        session.followed_facts = {
            "model": question.model,
            "parameters": {"variant": variant, **asdict(config)},
        }
    write_followed(session)
    took, done = say_seconds(result.seconds["total"]), len(result.frames)
    if result.complete:
        return Notice("ready", f"{done} frames in {took}.")
    return Notice("hint", f"Stopped after {done} of {len(clip.frames)} frames; those are kept.")


def _followed(item: PersonalObject, clip: Clip, profile: Profile) -> VideoObject:
    """An object with its mask in the first frame of the clip that it is marked in, if any."""
    from core.persam.video import VideoObject

    marked = [
        (reference.frame[1], mask)
        for reference, mask in item.masks
        if reference.frame is not None and reference.frame[0] is clip
    ]
    if not marked:
        return VideoObject(item.name, profile=profile)
    start, mask = min(marked, key=lambda pair: pair[0])
    return VideoObject(item.name, start, mask.full(), profile)


def _learned_notice(session: PersonalizeSession) -> Notice | None:
    """What learning had to say about the objects, if anything."""
    texts = dict.fromkeys(
        text
        for item in session.objects()
        if item.number in session.learned
        for text in session.learned[item.number][1].warnings
    )
    return Notice("warning", " ".join(texts)) if texts else None


def _run(session: PersonalizeSession, work: Work, token: CancelToken) -> Iterator[Notice]:
    def search(report: Progress) -> Notice:
        if not session.objects():
            raise PromptError(NO_OBJECT)
        return work(session, token, report)

    yield from jobs.follow(session, "Searching", search, token, keep=_finish, explain=_explain)


def _explain(session: PersonalizeSession, error: Exception) -> Notice | None:
    """Say what went wrong; a search that was stopped hides no warning of what stopped it."""
    if isinstance(error, Cancelled) and session.notice.kind not in ("busy", "ready"):
        return None
    return notice_of(error)


def _finish(session: PersonalizeSession, notice: Notice) -> None:
    """Leave the work's notice, but keep what the listener before had to say."""
    with session.lock:
        said = session.notice.text if session.notice.kind != "busy" else ""
        if said and notice.text:
            session.notice = Notice("warning", f"{said} {notice.text}")
        elif not said:
            session.notice = notice


def mean_seconds(session: PersonalizeSession) -> float:
    """Mean time per searched picture; not-a-number before there is one."""
    seconds = [
        result.segmentation.seconds["total"]
        for query in session.queries
        if (result := query.result(session.variant)) is not None
    ]
    return float(np.mean(seconds)) if seconds else float("nan")
