"""Turn a session into what the page's components show."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from apps.suite.notices import Notice, say_seconds, status_html
from apps.suite.personalize.drawing import draw_result, draw_similarity, write_gallery
from apps.suite.personalize.markup import answers_html, how_html, marked_html, weights_html
from apps.suite.personalize.session import (
    MARK_IT,
    NO_QUERY,
    NO_REFERENCE,
    VARIANTS,
    PersonalizeSession,
    Query,
)
from apps.suite.personalize.work import mean_seconds
from apps.suite.segment.drawing import save_png
from apps.suite.segment.markup import prompts_html, readings_html
from apps.suite.segment.show import show_canvas
from core.overlays import describe


class Shown(NamedTuple):
    """Updates of the tab's components, in the order that the tab lists them as outputs."""

    canvas: Any
    status: Any
    readings: Any
    objects: Any
    weights: Any
    undo: Any
    clear: Any
    new_object: Any
    another: Any
    frame: Any
    mark_frame: Any
    results: Any
    gallery: Any
    panel: Any
    result: Any
    compare: Any
    similarity: Any
    clip: Any
    take_back: Any
    step_row: Any
    answers: Any
    how: Any
    prompts: Any
    presence_threshold: Any
    cancel: Any
    prepare: Any
    files: Any


NOTHING = Shown(*[gr.skip()] * len(Shown._fields))


def show(session: PersonalizeSession) -> Shown:
    """Draw everything that the session's last change can have changed."""
    with session.lock:
        scene, has_result = session.scene, _has_result(session)
        frames = len(session.clip.frames) if session.clip else 0
        corrected = session.query and len(session.query.results.get(session.variant, ())) > 1
        return Shown(
            canvas=show_canvas(session),
            status=status_of(session),
            readings=readings_html(scene, _candidates(session), tab="personalize"),
            objects=marked_html(session),
            weights=weights_html(session),
            undo=gr.update(interactive=len(session.history) > 1),
            clear=gr.update(interactive=bool(scene.prompts or scene.corner or scene.answer)),
            new_object=gr.update(interactive=bool(scene.current or session.references)),
            another=gr.update(interactive=bool(scene.instances)),
            frame=gr.update(visible=frames > 0, maximum=max(frames, 2)),
            mark_frame=gr.update(visible=frames > 0),
            results=gr.update(visible=bool(session.queries or session.clip)),
            gallery=show_gallery(session),
            panel=gr.update(value=session.stage, visible=bool(session.queries)),
            result=show_result(session),
            compare=show_compare(session),
            similarity=show_similarity(session),
            clip=show_clip(session),
            take_back=gr.update(interactive=bool(corrected)),
            step_row=gr.update(visible=bool(session.queries)),
            answers=answers_html(session),
            how=how_html(session) if session.how_open else gr.skip(),
            prompts=_prompts(session),
            presence_threshold=session.choices.presence_threshold,
            cancel=gr.update(interactive=session.running),
            prepare=gr.update(interactive=has_result),
            files=gr.update(value=None, visible=False),
        )


def show_progress(session: PersonalizeSession, notice: Notice) -> Shown:
    """Change the status line, and the gallery as far as it has new results."""
    return NOTHING._replace(
        status=status_html(notice),
        cancel=gr.update(interactive=True),
        gallery=show_gallery(session),
    )


def show_marking(session: PersonalizeSession) -> Shown:
    """Draw the reference's half only: the answer to a click, before the search."""
    with session.lock:
        scene = session.scene
        return NOTHING._replace(
            canvas=show_canvas(session),
            status=status_of(session),
            readings=readings_html(scene, _candidates(session), tab="personalize"),
            objects=marked_html(session),
            prompts=_prompts(session),
            undo=gr.update(interactive=len(session.history) > 1),
            new_object=gr.update(interactive=bool(scene.current)),
        )


def _prompts(session: PersonalizeSession) -> str:
    return prompts_html(session.scene, session.picture.size if session.picture else None)


def _candidates(session: PersonalizeSession) -> list[str]:
    from apps.suite.segment.drawing import draw_candidates

    return draw_candidates(session.picture, session.scene) if session.picture else []


def _has_result(session: PersonalizeSession) -> bool:
    if session.clip is not None:
        return session.followed is not None
    return any(query.result(session.variant) for query in session.queries)


def status_of(session: PersonalizeSession) -> str:
    """Write the session's notice, or what there is to say when nothing went wrong."""
    notice = session.notice
    return status_html(notice if notice.text else _say_state(session))


def _say_state(session: PersonalizeSession) -> Notice:
    if not session.objects():
        return Notice("ready", NO_REFERENCE if session.picture is None else MARK_IT)
    if session.clip is not None:
        again = "Followed; press Find to do it again."
        first = "Press Find to follow the object."
        return Notice("ready", first if session.followed is None else again)
    if not session.queries:
        return Notice("ready", NO_QUERY)
    results = [query.result(session.variant) for query in session.queries]
    done = [result for result in results if result is not None]
    if not done:
        return Notice("ready", "Press Find.")
    hits = sum(bool(len(result.segmentation)) for result in done)
    text = (
        f"{VARIANTS[session.variant]}: found in {hits} of {len(done)} pictures, "
        f"{say_seconds(mean_seconds(session))} each."
    )
    if hits == len(done):
        return Notice("ready", f"{text} Click in the large picture to correct it.")
    absent = [result for result in done if not len(result.segmentation)]
    best = max(trace.found[0].presence.score for result in absent for trace in result.traces)
    text += f" The best presence score elsewhere is {best:.2f}."
    return Notice("ready", text, action="anyway", label="Show the best place anyway")


def show_gallery(session: PersonalizeSession) -> Any:
    """Write the thumbnails anew if anything in them changed."""
    wanted = (
        tuple(id(query.result(session.variant)) for query in session.queries),
        session.queries,
        session.drawing,
        session.clip,
        session.followed,
    )
    selected = session.selected if session.queries else None
    if wanted == session.shown_gallery:
        return gr.update(selected_index=selected)
    session.shown_gallery = wanted
    if not session.queries and session.clip is None:
        return gr.update(value=None, visible=False)
    return gr.update(value=write_gallery(session), selected_index=selected, visible=True)


def show_result(session: PersonalizeSession) -> Any:
    """Draw the chosen picture with what was found in it."""
    query = session.query
    if query is None or session.stage != "result":
        return gr.update(visible=False)
    result = query.result(session.variant)
    drawn = draw_result(query.view, result, session.drawing)
    return gr.update(
        value=save_png(session, drawn), visible=True, alt_text=_alt_text(query, result)
    )


def _alt_text(query: Query, result: Any) -> str:
    if result is None:
        return f"The picture {query.loaded.stem}, not searched yet."
    absent = [f"{dropped.label}: {dropped.reason}" for dropped in result.segmentation.dropped]
    return " ".join([describe(result.segmentation), *absent])


def show_compare(session: PersonalizeSession) -> Any:
    """Draw PerSAM's and PerSAM-F's answer for the slider, if it is what the visitor looks at."""
    query = session.query
    if query is None or session.stage != "compare":
        return gr.update(visible=False)
    pair = []
    for variant in VARIANTS:
        drawn = draw_result(query.view, query.result(variant), session.drawing, clicks=False)
        pair.append(save_png(session, np.ascontiguousarray(drawn[:, :, :3])))
    return gr.update(value=tuple(pair), visible=True)


def show_similarity(session: PersonalizeSession) -> Any:
    """Draw the similarity map of the active object, if it is what the visitor looks at."""
    query = session.query
    if query is None or session.stage != "similarity":
        return gr.update(visible=False)
    result = query.result(session.variant)
    if result is None:
        return gr.update(value=None, visible=True)
    numbers = [trace.found[0].number for trace in result.traces]
    index = numbers.index(session.active) if session.active in numbers else 0
    trace = result.traces[index]
    drawn = draw_similarity(query.view, trace, trace.found[0])
    return gr.update(value=save_png(session, drawn), visible=True)


def show_clip(session: PersonalizeSession) -> Any:
    """Show the clip with what was followed in it."""
    file = session.followed_file if session.clip is not None else None
    return gr.update(value=file, visible=file is not None)
