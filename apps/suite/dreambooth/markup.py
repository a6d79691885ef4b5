"""HTML of the DreamBooth tab: cards, training with its curve, samples, pairs, saved subjects.

All text is escaped. Buttons carry `data-do`, which static/suite.js sends to the tab's listener,
or `data-fill`, the field that their text goes into; `data-training` is kept in the address.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from apps.suite.dreambooth.drawing import cards, pair_addresses, sample_address
from apps.suite.dreambooth.session import DreamBoothSession, Item
from apps.suite.notices import escape, say_seconds
from apps.suite.segment.markup import CROSS

if TYPE_CHECKING:
    from core.dreambooth.serving import Point, SampleFiles, Standing

CURVE_SIZE = (560, 170)  # px
MARGIN = (40, 8, 8, 20)  # of the curve: left, top, right, bottom
MOST_POINTS = 280
MOST_ROUNDS = 12  # of samples on the page, the first one always

DECISIONS = (("accept", "Accept"), ("whole", "Whole"), ("exclude", "Leave out"))
STATES = {
    "waiting": "In the queue",
    "running": "Training",
    "paused": "Paused",
    "finished": "Learned",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
SOURCES = {"persam_f": "PerSAM-F", "persam": "PerSAM"}
PROMPTS = (
    "a photo of {}",
    "a photo of {} on grass",
    "a photo of {} on a beach",
    "a photo of {} in the snow",
    "a photo of {} on a wooden floor",
)


def cards_html(session: DreamBoothSession) -> str:
    """Show every picture with its mask, score, warnings and what can be decided."""
    if not session.items:
        return ""
    addresses = cards(session)
    figures = "".join(
        _card(session, index, item, address)
        for index, (item, address) in enumerate(zip(session.items, addresses, strict=True))
    )
    waits = [item for item in session.undecided if item.subject.mask is not None]
    button = (
        '<button type="button" class="small" data-do="accept-all" data-focus="accept-all">'
        "Accept all good ones</button>"
        if waits
        else ""
    )
    return (
        f'<div class="panel-title">Pictures <span class="count">{len(session.items)}</span>'
        f'{button}</div><div class="cards">{figures}</div>'
    )


def _card(session: DreamBoothSession, index: int, item: Item, address: str) -> str:
    subject = item.subject
    name = escape(subject.stem)
    chosen = " chosen" if index == session.selected else ""
    out = " out" if subject.decision == "exclude" else ""
    warnings = "".join(f'<p class="warn">{escape(text)}</p>' for text in subject.warnings)
    buttons = "".join(
        f'<button type="button" class="small" data-do="{name_}" data-index="{index}" '
        f'data-focus="{name_}-{index}" aria-pressed="{str(subject.decision == name_).lower()}"'
        f"{_disabled(name_, item)}>{title}</button>"
        for name_, title in DECISIONS
    )
    return (
        f'<figure class="card{chosen}{out}"><button type="button" class="look" data-do="select" '
        f'data-index="{index}" data-focus="select-{index}" aria-label="Show {name} in the frame '
        f'to mark or redraw it"><img src="{address}" alt=""></button>'
        f'<button type="button" class="icon" data-do="remove" data-index="{index}" '
        f'data-focus="remove-{index}" aria-label="Remove {name}">{CROSS}</button>'
        f"<figcaption><b>{name}</b><span>{escape(_say_mask(session, index, item))}</span>"
        f'{warnings}</figcaption><div class="decide">{buttons}</div></figure>'
    )


def _disabled(decision: str, item: Item) -> str:
    has_mask = item.subject.mask is not None and bool(item.subject.mask.any())
    drawn = item.subject.decision == "redraw"
    return " disabled" if decision == "accept" and (not has_mask or drawn) else ""


def _say_mask(session: DreamBoothSession, index: int, item: Item) -> str:
    subject = item.subject
    share = f"{100 * subject.area_share:.1f} %"
    if subject.decision == "exclude":
        return "left out"
    if subject.decision == "whole":
        return "all of it counts"
    if index == session.marked:
        return f"marked by you, {share}"
    if subject.source == "drawn":
        return f"drawn by you, {share}"
    if subject.mask is None:
        return "no mask yet"
    score = "–" if subject.score is None else f"{subject.score:.2f}"
    presence = "–" if subject.presence is None else f"{subject.presence:.2f}"
    way = SOURCES.get(subject.source, subject.source)
    return f"{way}, {share} · predicted IoU {score} · presence {presence}"


def expected_html(session: DreamBoothSession) -> str:
    """Say how long the present settings take, and what the training will do."""
    if session.diffusion is None:
        return '<p class="note">How long it takes is known once there is a model.</p>'
    if session.expected is None:
        return '<p class="note">Expected time: –</p>'
    values = session.wishes.values
    prior = f" and {values['prior_pictures']} pictures of the class" if values["prior"] else ""
    return (
        f'<p class="note">Expected time on this device: <b>about {say_about(session.expected)}</b> '
        f"for {values['steps']} steps{escape(prior)}; other work at the same time slows it down."
        "</p>"
    )


def say_about(seconds: float) -> str:
    """An estimate in words: 5 s, 40 s, 3 min, 2 h."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"


def training_html(session: DreamBoothSession) -> str:
    """Show how the training stands: state, step, time, loss with its curve."""
    standing = session.standing
    if standing is None:
        return f'<div data-training="{escape(session.training)}"></div>'
    status, steps = standing.status, standing.config.steps
    share = standing.step / steps
    phase = status.phase
    if phase is not None and status.state == "running":
        share = phase.fraction
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in _facts(standing)
    )
    busy = " busy" if status.state == "running" else ""
    return (
        f'<div class="training" data-training="{escape(status.id)}" '
        f'data-state="{status.state}"><div class="training-head"><span class="state{busy}">'
        f"{STATES[status.state]}</span><b>{escape(standing.subject.name)}</b>"
        f"<span>{escape(_say_what(standing))}</span></div>"
        f'<div class="meter" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="{escape(_say_what(standing))}">'
        f'<span style="width:{100 * share:.1f}%"></span></div><dl class="figures">{facts}</dl>'
        f"{curve_html(standing.curve, steps)}</div>"
    )


def _say_what(standing: Standing) -> str:
    status = standing.status
    if status.state == "waiting":
        before = "1 training comes" if status.place == 1 else f"{status.place} trainings come"
        return f"{before} first; the page may be closed meanwhile." if status.place else "next"
    if status.error:
        return status.error
    kept = f"its last checkpoint, of step {status.checkpoint}, is kept" if status.checkpoint else ""
    if status.state == "interrupted":
        return f"The server was stopped meanwhile; {kept or 'nothing was trained yet'}. Go on?"
    if status.state == "stopped":
        return f"Stopped at step {standing.step}; {kept or 'nothing was trained yet'}."
    if status.phase is not None:
        return status.phase.message
    return ""


def _facts(standing: Standing) -> list[tuple[str, str]]:
    step, config = standing.status.step, standing.config
    last = standing.curve[-1] if standing.curve else None
    facts = [("Step", f"{standing.step} of {config.steps}")]
    if step is not None and step.seconds:
        facts.append(("Elapsed", say_seconds(step.seconds)))
    if step is not None and not standing.has_ended:
        facts.append(("Remaining", say_seconds(step.remaining)))
    if last is not None:
        facts += [("Loss", f"{last.loss:.3f}"), ("Smoothed", f"{last.smoothed:.3f}")]
    loss = "masked" if config.mask_loss != "none" else "not masked"
    facts.append(("Method", f"{'LoRA' if config.method == 'lora' else 'full'}, {loss}"))
    if step is not None and step.memory_mib:
        facts.append(("GPU memory", f"{step.memory_mib} MiB"))
    return facts


def curve_html(curve: Sequence[Point], steps: int) -> str:
    """Draw the loss of each step faintly, its running mean as a line, with numbers at the axes."""
    values = [one.loss for one in curve if math.isfinite(one.loss)]
    if len(values) < 2:
        return ""
    width, height = CURVE_SIZE
    left, top, right, bottom = MARGIN
    low, high = 0.0, max(values)
    chosen = curve[:: max(1, len(curve) // MOST_POINTS)]

    def place(step: int, loss: float) -> str:
        x = left + (width - left - right) * step / max(steps, 1)
        y = top + (height - top - bottom) * (high - loss) / max(high - low, 1e-9)
        return f"{x:.1f},{y:.1f}"

    raw = " ".join(place(one.step, one.loss) for one in chosen)
    mean = " ".join(place(one.step, one.smoothed) for one in chosen)
    last = curve[-1]
    text = (
        f"Loss from {curve[0].loss:.3f} at step {curve[0].step} to {last.smoothed:.3f} (smoothed) "
        f"at step {last.step}"
    )
    base = height - bottom
    return (
        f'<figure class="loss"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{text}">'
        f'<path class="axis" d="M{left} {top}V{base}H{width - right}"/>'
        f'<text x="{left - 5}" y="{top + 8}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{left - 5}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{left}" y="{height - 5}">0</text>'
        f'<text x="{width - right}" y="{height - 5}" text-anchor="end">step {steps}</text>'
        f'<polyline class="raw" points="{raw}"/><polyline class="mean" points="{mean}"/></svg>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def samples_html(standing: Standing | None) -> str:
    """Show the sample pictures as a time line: a row for each prompt, a column for each round."""
    if standing is None or not standing.samples:
        return ""
    rounds = _thinned(standing.samples)
    prompts = [standing.subject.fill(text) for text in standing.config.sample_prompts]
    head = "".join(f'<th scope="col">step {one.step}</th>' for one in rounds)
    rows = "".join(
        f'<tr><th scope="row">{escape(prompt)}</th>'
        + "".join(_sample(one, k, prompt) for one in rounds)
        + "</tr>"
        for k, prompt in enumerate(prompts)
    )
    return (
        '<div class="panel-title">Samples, always from the same seeds</div>'
        f'<div class="scroll"><table class="samples"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _thinned(rounds: Sequence[SampleFiles]) -> Sequence[SampleFiles]:
    """The first and the last ones, if there are many."""
    if len(rounds) <= MOST_ROUNDS:
        return rounds
    return [rounds[0], *rounds[1 - MOST_ROUNDS :]]


def _sample(one: SampleFiles, k: int, prompt: str) -> str:
    address = sample_address(one.files[k]) if k < len(one.files) else ""
    if not address:
        return "<td></td>"
    return f'<td><img src="{address}" alt="{escape(prompt)}, after step {one.step}"></td>'


def words_html(session: DreamBoothSession) -> str:
    """Offer prompts to begin with."""
    learned = session.learned
    if learned is None:
        return ""
    buttons = "".join(
        f'<button type="button" class="small" data-fill="dreambooth_prompt" '
        f'data-text="{escape(prompt)}">'
        f"{escape(prompt)}</button>"
        for prompt in map(learned.subject.fill, PROMPTS)
    )
    return f'<div class="suggestions">{buttons}</div>'


def pairs_html(session: DreamBoothSession) -> str:
    """Show what was drawn last, before and after training side by side."""
    pairs = session.pairs[-session.newest :] if session.newest else []
    if not pairs:
        return ""
    figures = ""
    for pair in pairs:
        before, after = pair_addresses(pair)
        prompt = escape(pair.prompt)
        first = (
            f'<img src="{before}" alt="Before training, seed {pair.seed}: {prompt}">'
            if before
            else ""
        )
        names = "<span>before</span><span>after</span>" if before else "<span>after</span>"
        figures += (
            f'<figure class="pair{"" if before else " single"}"><div>{first}<img src="{after}" '
            f'alt="After training, seed {pair.seed}: {prompt}"></div><figcaption>{names}'
            f"<b>seed {pair.seed}</b></figcaption></figure>"
        )
    title = f'<div class="panel-title">{escape(pairs[0].prompt)}</div>'
    return f'{title}<div class="pairs">{figures}</div>'


def learned_html(session: DreamBoothSession) -> str:
    """Say what is drawn with."""
    learned = session.learned
    if learned is None:
        return ""
    figures = learned.figures
    loss = "" if figures.loss is None else f", loss {figures.loss:.3f}"
    masked = "masked" if learned.config.mask_loss != "none" else "not masked"
    return (
        f'<p class="note">Subject: <b>{escape(learned.subject.name)}</b>, learned in '
        f"{figures.steps} steps and {say_seconds(figures.seconds)} on {escape(figures.device)} "
        f"({learned.config.method}, {masked}{loss}).</p>"
    )


def saved_html(session: DreamBoothSession) -> str:
    """List the learned subjects to pick again."""
    if not session.saved:
        return ""
    rows = "".join(
        f'<figure class="{"chosen" if one.id == session.learned_id else ""}"><button '
        f'type="button" data-do="open-saved" data-id="{one.id}" data-focus="saved-{one.id}">'
        f"{_picture(sample_address(one.picture) if one.picture else '')}"
        f"<span>{escape(one.learned.subject.name)}</span></button>"
        f'<button type="button" class="icon" data-do="delete-saved" data-id="{one.id}" '
        f'aria-label="Delete {escape(one.learned.subject.name)}">{CROSS}</button></figure>'
        for one in session.saved
    )
    return (
        f'<div class="panel-title">Saved subjects <span class="count">{len(session.saved)}</span>'
        f'</div><div class="references saved">{rows}</div>'
    )


def _picture(address: str) -> str:
    return f'<img src="{address}" alt="">' if address else ""
