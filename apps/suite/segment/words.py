"""Words as prompts: those of SAM's masks that show them, or CaR's masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from apps.suite.notices import Notice, say_seconds
from apps.suite.segment.answers import Job, everything_config, explain, keep_found, run_job_of
from apps.suite.segment.session import SegmentSession
from core.errors import NothingFound, PromptError
from core.models.catalogue import catalogue
from core.prompts import TextQueries

if TYPE_CHECKING:
    from core.results import Dropped, Segmentation

WAYS = ("masks", "car")
MOST_NAMED = 6  # words that a sentence lists


def find_words(
    session: SegmentSession, text: object, way: object, *values: float | None
) -> Iterator[Notice]:
    """Put the masks of some words in the place of all objects, each with its word.

    Args:
        text: words between commas.
        way: one of WAYS.
        values: of everything mode, in the order of EVERYTHING_FIELDS.
    """

    def search(job: Job) -> Segmentation:
        words = TextQueries.parse(str(text or ""))
        if way not in WAYS:
            raise PromptError(
                f"There is no way {str(way)[:20]!r} to look; use {' or '.join(WAYS)}."
            )
        found = _by_car(job, words) if way == "car" else _by_masks(job, words, values)
        if not len(found):
            raise NothingFound(_say_missing("None of the words is here", found.dropped))
        return found

    def keep(session: SegmentSession, job: Job, found: Segmentation) -> Notice:
        keep_found(session, job, found)
        seen = list(dict.fromkeys(found.labels))
        count = "1 mask" if len(found) == 1 else f"{len(found)} masks"
        took = say_seconds(found.seconds["total"])
        said = f"{count} in {took}: {_quote(seen)}."
        missing = _say_missing(" Not here", found.dropped) if found.dropped else ""
        return Notice("ready", " ".join([said + missing, *found.warnings]))

    return run_job_of(session, "Words", search, keep, explain)


def _by_masks(job: Job, words: TextQueries, values: tuple[float | None, ...]) -> Segmentation:
    from core.car.ranking import search_masks

    everything = everything_config(job.model, values)
    return search_masks(
        job.engine,
        job.model,
        job.picture.image,
        words,
        everything=everything,
        cancel=job.token,
        progress=job.report,
    )


def _by_car(job: Job, words: TextQueries) -> Segmentation:
    from core.car import serving

    model_set = catalogue()[job.model].set
    found = serving.find_words(
        job.engine,
        model_set,
        job.picture.image,
        words,
        cancel=job.token,
        progress=job.report,
    )
    return found.result.segmentation


def _say_missing(start: str, dropped: tuple[Dropped, ...]) -> str:
    """ "Not here: “cat” (0.31)." with the score that each reached, the best first."""
    ranked = sorted(dropped, key=lambda one: -(one.score or 0.0))
    named = [
        f"“{one.label[:30]}”" + ("" if one.score is None else f" ({one.score:.2f})")
        for one in ranked[:MOST_NAMED]
    ]
    more = f" and {len(ranked) - MOST_NAMED} more" if len(ranked) > MOST_NAMED else ""
    return f"{start}: {', '.join(named)}{more}." if named else f"{start}."


def _quote(words: Sequence[str]) -> str:
    shown = ", ".join(f"“{word[:30]}”" for word in words[:MOST_NAMED])
    return shown + (f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else "")
