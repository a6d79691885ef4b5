"""HTML of the Personalize tab: objects, weights, answers, the way there. All text is escaped.

Buttons and fields carry `data-do`, which static/suite.js sends to the tab's listener.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apps.suite.notices import escape
from apps.suite.personalize.drawing import CARD_SIDE, draw_card, draw_readings, draw_similarity
from apps.suite.personalize.session import VARIANTS, PersonalizeSession, Query
from apps.suite.segment.drawing import data_address, say_score
from apps.suite.segment.markup import CROSS, chip, objects_html
from core.images import fit_within
from core.masks import iou

if TYPE_CHECKING:
    from core.persam.instances import Found
    from core.persam.pipeline import PersamResult, Trace
    from core.persam.scale import Fit

PASSES = {
    "first": "First pass",
    "refinement_1": "Refinement 1",
    "refinement_2": "Refinement 2",
    "correction": "Your correction",
}
READINGS = ("small", "middle", "large")
CURVE_SIZE = (240, 80)  # px


def step_html(number: int, title: str, text: str) -> str:
    """Write the heading of one of the tab's two halves."""
    return (
        f'<div class="step"><span class="step-number">{number}</span><h2>{escape(title)}</h2>'
        f"<p>{escape(text)}</p></div>"
    )


def marked_html(session: PersonalizeSession) -> str:
    """List the present picture's objects, the stored references and the loaded profiles."""
    parts = [objects_html(session.scene)]
    if session.references:
        rows = "".join(
            f'<figure><img src="{_small(reference.picture.view.image)}" alt="{escape(name)}">'
            f'<button type="button" class="icon" data-do="remove-reference" data-index="{index}" '
            f'aria-label="Remove reference {escape(name)}">{CROSS}</button></figure>'
            for index, reference in enumerate(session.references)
            for name in [reference.picture.loaded.stem]
        )
        parts.append(
            '<div class="panel-title">Earlier references '
            f'<span class="count">{len(session.references)}</span></div>'
            f'<div class="references">{rows}</div>'
        )
    loaded = [(item, item.profile) for item in session.objects() if item.profile is not None]
    if loaded:
        rows = "".join(
            f'<figure>{chip(item.number)}<img src="{data_address(profile.thumbnail)}" '
            f'alt="{escape(profile.name)}"><figcaption>{escape(profile.name)}</figcaption>'
            f'<button type="button" class="icon" data-do="remove-profile" data-index="{index}" '
            f'aria-label="Remove profile {escape(profile.name)}">{CROSS}</button></figure>'
            for index, (item, profile) in enumerate(loaded)
        )
        parts.append(
            f'<div class="panel-title">Loaded profiles</div><div class="references">{rows}</div>'
        )
    return "".join(parts)


def weights_html(session: PersonalizeSession) -> str:
    """Show PerSAM-F's learned weights and how the loss fell, object by object."""
    if session.variant != "persam_f":
        return ""
    fits = [
        (item, known[1].fit)
        for item in session.objects()
        if (known := session.learned.get(item.number)) is not None and known[1].fit is not None
    ]
    blocks = "".join(
        f'<div class="fit">{chip(item.number)}{_bars(fit.weights.vector)}{curve_html(fit)}</div>'
        for item, fit in fits
        if fit is not None
    )
    title = '<div class="panel-title">Learned weights of the three readings</div>'
    return title + blocks if blocks else ""


def curve_html(fit: Fit) -> str:
    """Draw the loss of PerSAM-F's steps as a line."""
    loss = (fit.dice + fit.focal).astype(float)
    width, height = CURVE_SIZE
    low, high = float(loss.min()), float(loss.max())
    chosen = np.unique(np.linspace(0, len(loss) - 1, min(len(loss), 120)).round().astype(int))
    places = " ".join(
        f"{4 + (width - 8) * k / max(len(loss) - 1, 1):.1f},"
        f"{4 + (height - 8) * (high - loss[k]) / max(high - low, 1e-9):.1f}"
        for k in chosen
    )
    text = f"Loss {loss[0]:.3f} to {loss[-1]:.3f} in {len(loss)} steps"
    return (
        f'<figure class="curve-box"><svg class="curve" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{text}"><polyline points="{places}" fill="none" stroke="currentColor" '
        f'stroke-width="1.6"/></svg><figcaption>{text}, {fit.seconds:.2f} s</figcaption></figure>'
    )


def answers_html(session: PersonalizeSession) -> str:
    """List what was found in the large picture, or what became of the objects of a clip."""
    if session.followed is not None:
        return _followed_html(session)
    query = session.query
    result = query.result(session.variant) if query else None
    if query is None or result is None:
        return ""
    measured = query.truth is not None
    rows = "".join(
        _answer_row(session, query, result, trace, found)
        for trace in result.traces
        for found in trace.found
    )
    truth = '<th scope="col" class="number">IoU, measured</th>' if measured else ""
    mean = _mean_iou(session) if measured else ""
    return (
        f'<div class="panel-title">In this picture{mean}</div>'
        '<div class="scroll"><table class="objects answers"><thead><tr>'
        '<th scope="col"><span class="sr">Correct</span></th><th scope="col">No.</th>'
        '<th scope="col">Object</th><th scope="col" class="number">Presence</th>'
        '<th scope="col" class="number">Pred. IoU</th><th scope="col" class="number">Area</th>'
        f"{truth}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _answer_row(
    session: PersonalizeSession, query: Query, result: PersamResult, trace: Trace, found: Found
) -> str:
    k, presence = found.number, found.presence
    name = escape(trace.profile.name)
    active = session.active or result.traces[0].found[0].number
    cells = f'<td class="number">{presence.score:.2f}</td>'
    if found.accepted:
        share = 100 * found.mask.mean()
        cells += f'<td class="number">{found.stages[-1].score:.2f}</td>'
        cells += f'<td class="number" title="{found.mask.sum()} px">{share:.1f} %</td>'
    else:
        cells += '<td colspan="2"><span class="absent">not in this picture</span></td>'
    if query.truth is not None:
        cells += f'<td class="number">{100 * _measure(result, query.truth):.1f} %</td>'
    return (
        f'<tr><td><input type="radio" name="active" value="{k}" data-do="activate" '
        f'data-number="{k}" data-focus="active-{k}" aria-label="Correct object {k}"'
        f"{' checked' if k == active else ''}></td><td>{chip(k)}</td><td>{name}</td>{cells}</tr>"
    )


def _measure(result: PersamResult, truth: NDArray[np.bool_]) -> float:
    """IoU of everything that was found with a true mask (H, W)."""
    return iou(np.asarray(result.segmentation.masks.any(axis=0), bool), truth)


def _mean_iou(session: PersonalizeSession) -> str:
    values = []
    for query in session.queries:
        result = query.result(session.variant)
        if query.truth is None or result is None:
            continue
        values.append(_measure(result, query.truth))
    if not values:
        return ""
    return (
        f' <span class="count">mean IoU of {len(values)}: {100 * float(np.mean(values)):.1f} %'
        "</span>"
    )


def _followed_html(session: PersonalizeSession) -> str:
    followed = session.followed
    assert followed is not None
    rows = "".join(
        f"<tr><td>{chip(k)}</td><td>{escape(name)}</td>"
        f'<td class="number">{seen} of {len(followed.frames)}</td></tr>'
        for k, name in zip(followed.numbers, followed.names, strict=True)
        for seen in [sum(bool((frame.labels == k).any()) for frame in followed.frames)]
    )
    return (
        '<div class="panel-title">In this clip</div><div class="scroll"><table class="objects">'
        '<thead><tr><th scope="col">No.</th><th scope="col">Object</th>'
        '<th scope="col" class="number">Frames in sight</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def how_html(session: PersonalizeSession) -> str:
    """Show how each object of the large picture was found, pass by pass."""
    query = session.query
    result = query.result(session.variant) if query else None
    if query is None or result is None:
        what = "Clips show the masks only." if session.clip else "Nothing was searched yet."
        return f'<p class="note">{what}</p>'
    return "".join(
        _found_html(session, query, trace, found, result.config.presence_threshold)
        for trace in result.traces
        for found in trace.found
    )


def _found_html(
    session: PersonalizeSession, query: Query, trace: Trace, found: Found, threshold: float | None
) -> str:
    k, view = found.number, query.view
    similarity = fit_within(draw_similarity(view, trace, found), CARD_SIDE)
    grid = trace.similarity.grid
    cards = [
        _card(
            similarity,
            f"Cosine with the object, {float(grid.min()):.2f} to {float(grid.max()):.2f}; "
            "+ the most similar place, − the least",
        )
    ]
    for stage in found.stages:
        chosen = "weighted sum" if stage.chosen is None else f"predicted IoU {stage.score:.2f}"
        title = PASSES.get(stage.name, stage.name)
        cards.append(_card(draw_card(view, stage.mask, k, stage.box), f"{title}, {chosen}"))
    readings = [stage for stage in found.stages if len(stage.scores) > 1]
    if readings:  # PerSAM-F weighs those of the first pass
        stage = readings[0] if readings[0].chosen is None else readings[-1]
        for index, picture in enumerate(draw_readings(view, stage, k)):
            taken = ", taken" if index == stage.chosen else ""
            cards.append(
                _card(
                    picture,
                    f"{PASSES.get(stage.name, stage.name)}, {READINGS[index % 3]} reading, "
                    f"{say_score(float(stage.scores[index]))}{taken}",
                )
            )
    return (
        f'<div class="panel-title">{chip(k)} {escape(trace.profile.name)}, '
        f"{VARIANTS[session.variant]}</div>{_presence_html(found, threshold)}"
        f'<div class="stages">{"".join(cards)}</div>'
    )


def _presence_html(found: Found, threshold: float | None) -> str:
    presence = found.presence
    if found.stages[-1].name == "correction":
        verdict = "you said where it is"
    elif threshold:
        here = "here" if found.accepted else "not here"
        verdict = f"the threshold is {threshold:.2f}, so it is {here}"
    else:
        verdict = "there is no threshold, so every picture gets a mask"
    whole = "–" if presence.pooled < 0 else f"{presence.pooled:.2f}"
    return (
        f'<p class="note">Presence {presence.score:.2f}, the mean of the best place\'s similarity '
        f"({presence.peak:.2f}) and the whole mask's ({whole}); {escape(verdict)}. Predicted IoU "
        f"{presence.predicted_iou:.2f}; first and last pass agree to {presence.agreement:.2f} "
        "(IoU).</p>"
    )


def _card(picture: NDArray[np.uint8], caption: str) -> str:
    return (
        f'<figure class="stage"><img src="{data_address(picture)}" alt="">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _bars(weights: Sequence[float] | NDArray[np.float32]) -> str:
    rows = "".join(
        f'<div class="bar-row"><span>{name}</span><i style="width:{_width(value):.0f}%"></i>'
        f"<b>{float(value):.2f}</b></div>"
        for name, value in zip(READINGS, weights, strict=True)
    )
    return f'<div class="bars">{rows}</div>'


def _width(value: float) -> float:
    return 0.0 if math.isnan(value) else 60 * min(max(float(value), 0.0), 1.2)


def _small(picture: NDArray[np.uint8]) -> str:
    return data_address(fit_within(picture, 96))
