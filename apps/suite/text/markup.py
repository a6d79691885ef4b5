"""HTML of the Text query tab: chips, legend, what was dropped, steps, maps. All text is escaped.

Buttons and fields carry `data-do`, which static/suite.js sends to the tab's listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apps.suite.notices import escape
from apps.suite.segment.drawing import say_score
from apps.suite.segment.markup import CROSS, chip
from apps.suite.text.drawing import Card, draw_step, draw_word, jpeg_address
from apps.suite.text.session import NO_ANSWER, Found, ListName, TextSession
from core.overlays import hex_color
from core.results import SCORE_KINDS, Dropped
from core.settings import settings

if TYPE_CHECKING:
    from core.car.classifier import Scores
    from core.car.recurrence import Step

TITLES: dict[str, str] = {"words": "Words to look for", "phrases": "Phrases to look for"}


def field_html(name: ListName, placeholder: str) -> str:
    """Write the field that takes new words; it is never written anew, so that typing goes on."""
    label = "New word" if name == "words" else "New background word"
    return (
        f'<div class="word-field"><textarea rows="1" data-words="{name}" '
        f'id="text_{name}_input" aria-label="{label}" placeholder="{escape(placeholder)}" '
        'enterkeyhint="enter" autocomplete="off" autocapitalize="none" spellcheck="false">'
        f'</textarea><button type="button" class="small" data-add="{name}">Add</button></div>'
    )


def words_html(session: TextSession) -> str:
    """Write the words as chips, each with a button that removes it."""
    return _chips(session, "words", TITLES[session.mode], session.words) + "</div>"


def background_html(session: TextSession) -> str:
    """The same for the background words."""
    reset = (
        '<button type="button" class="small" data-do="reset-words" data-list="background" '
        'data-focus="reset-background">Reset to the preset</button></div>'
    )
    return _chips(session, "background", "Background words", session.background) + reset


def _chips(session: TextSession, name: ListName, title: str, words: tuple[str, ...]) -> str:
    items = "".join(
        f'<li class="word">{escape(word)}<button type="button" data-do="remove-word" '
        f'data-list="{name}" data-word="{escape(word)}" data-focus="{name}-{k}" '
        f'data-else="{name}" aria-label="Remove {escape(word)}">{CROSS}</button></li>'
        for k, word in enumerate(words)
    )
    clear = (
        f'<button type="button" class="small" data-do="clear-words" data-list="{name}" '
        f'data-focus="clear-{name}" data-else="{name}">Remove all</button>'
    )
    count = f'<span class="count">{len(words)} of {settings.max_queries}</span>'
    number, text = session.returned.get(name, (0, ""))
    back = f'<i hidden data-back="{number}" data-list="{name}" data-text="{escape(text)}"></i>'
    return (
        f'<div class="words" data-chips="{name}"><div class="panel-title">{title} '
        f"{count if words else ''}{clear if words else ''}</div>"
        f'<ul class="word-chips">{items}</ul>{back if number else ""}'
    )


def answers_html(session: TextSession) -> str:
    """The legend: number on its colour, word, score, presence, area; then what was dropped."""
    found = session.found
    if found is None:
        return ""
    return _legend(found) + _dropped(found.result.segmentation.dropped) + _warnings(found)


def _legend(found: Found) -> str:
    last = found.result.steps[-1]
    kind = SCORE_KINDS[found.result.segmentation.score_kind]
    rows = "".join(
        f"<tr><td>{chip(word.number)}</td><td>{escape(word.label)}</td>"
        f'<td class="number" title="{_mean(last, word.number)}">{say_score(word.score)}</td>'
        f'<td class="number">{_presence(last, word.number)}</td>'
        f'<td class="number" title="{word.mask.area} px">{100 * word.mask.share:.1f} %</td></tr>'
        for word in found.words
    )
    if not rows:
        return ""
    return (
        f'<div class="panel-title">Found <span class="count">{len(found.words)}</span></div>'
        '<div class="scroll"><table class="objects"><thead><tr><th scope="col">No.</th>'
        f'<th scope="col">Word</th><th scope="col" class="number">{kind}</th>'
        '<th scope="col" class="number">Presence</th><th scope="col" class="number">Area</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _mean(step: Step, number: int) -> str:
    """What the score is without the second softmax, whose range hangs on the number of words."""
    if step.scores is None:
        return ""
    return f"mean over the templates {step.scores.template_means[step.live.index(number - 1)]:.2f}"


def _presence(step: Step, number: int) -> str:
    if step.scores is None or step.scores.presence is None:
        return "–"
    return f"{step.scores.presence[step.live.index(number - 1)]:.2f}"


def _dropped(dropped: tuple[Dropped, ...]) -> str:
    rows = "".join(
        f'<tr><td><s>{escape(one.label)}</s></td><td class="number">{_say(one.score)}</td>'
        f"<td>{escape(one.reason)}</td></tr>"
        for one in dropped
    )
    if not rows:
        return ""
    return (
        f'<div class="panel-title">Dropped <span class="count">{len(dropped)}</span></div>'
        '<div class="scroll"><table class="objects dropped"><thead><tr><th scope="col">Word</th>'
        '<th scope="col" class="number">Score</th><th scope="col">Why</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _warnings(found: Found) -> str:
    return "".join(
        f'<p class="note">{escape(text)}</p>' for text in found.result.segmentation.warnings
    )


def steps_html(session: TextSession) -> str:
    """The recurrence: a strip of steps with bars, and the chosen one's pictures."""
    found = session.found
    if found is None:
        return _placeholder()
    steps, index = found.result.steps, session.step
    cards = "".join(_step_card(found, k, k == index) for k in range(len(steps)))
    figures = "".join(_figure(found, index, card) for card in draw_step(found, index))
    hidden = len(steps[index].live) - figures.count("<figure")
    more = f'<p class="note">and {hidden} more words, listed above</p>' if hidden > 0 else ""
    prompts = " and ".join(sorted(found.result.config.visual_prompts)) or "nothing"
    return (
        f'<div class="playback">{_step_button("previous", "Previous", index - 1, index > 0)}'
        f"<b>Step {index + 1} of {len(steps)}</b>"
        f"{_step_button('next', 'Next', index + 1, index + 1 < len(steps))}"
        f"{_play(len(steps))}</div>"
        f'<ol class="strip">{cards}</ol>'
        f'<div class="panel-title">What the classifier saw in step {index + 1}: the map above '
        f"{found.result.config.mask_threshold:.2f}, marked by {escape(prompts)}</div>"
        f'<div class="stages">{figures}</div>{more}'
    )


def _step_button(name: str, text: str, index: int, enabled: bool) -> str:
    return (
        f'<button type="button" class="small" id="text_{name}" data-do="step" '
        f'data-index="{index}" data-focus="step-{name}"{"" if enabled else " disabled"}>'
        f"{text}</button>"
    )


def _play(count: int) -> str:
    if count < 2:
        return ""
    return (
        '<button type="button" class="small" data-play="text_next" data-focus="step-play" '
        'aria-pressed="false">Play</button>'
    )


def _step_card(found: Found, index: int, chosen: bool) -> str:
    step, words = found.result.steps[index], found.result.queries.words
    dropped = sum(reason is not None for reason in step.reasons)
    rows = "".join(
        f'<li{_title(words[word], step.reasons[row])}><span class="word-name">'
        f"{_struck(words[word], step.reasons[row] is not None)}</span>"
        f"{_bar(step.scores, row, word + 1)}</li>"
        for row, word in enumerate(step.live)
    )
    return (
        f'<li class="step-card{" chosen" if chosen else ""}"><button type="button" data-do="step" '
        f'data-index="{index}" data-focus="step-{index}" aria-pressed="{str(chosen).lower()}">'
        f"<b>Step {index + 1}</b> {len(step.live)} word{'' if len(step.live) == 1 else 's'}, "
        f"{dropped} dropped</button><ul>{rows}</ul></li>"
    )


def _title(word: str, reason: str | None) -> str:
    if reason is None:
        return f' title="{escape(word)}"'
    return f' class="gone" title="{escape(f"{word}: {reason}")}"'


def _struck(word: str, dropped: bool) -> str:
    text = escape(word)
    return f'<s>{text}</s><span class="sr"> dropped</span>' if dropped else text


def _bar(scores: Scores | None, row: int, number: int) -> str:
    if scores is None:
        return "<b>–</b>"
    score = float(scores.own[row])
    return (
        f'<span class="track"><i style="width:{100 * score:.0f}%;background:{hex_color(number)}">'
        f"</i></span><b>{score:.2f}</b>"
    )


def _figure(found: Found, index: int, card: Card) -> str:
    step = found.result.steps[index]
    number, reason = step.live[card.row] + 1, step.reasons[card.row]
    word = escape(found.result.queries.words[number - 1])
    parts = _scores_of(step, card.row)
    parts.append(f"dropped: {escape(reason)}" if reason else "kept")
    return (
        f'<figure class="stage pair"><img src="{jpeg_address(card.marked)}" alt="">'
        f'<img src="{jpeg_address(card.heat)}" alt=""><figcaption>{chip(number)} '
        f"{f'<s>{word}</s>' if reason else word}<small>{'; '.join(parts)}</small></figcaption>"
        "</figure>"
    )


def _scores_of(step: Step, row: int) -> list[str]:
    scores = step.scores
    if scores is None:
        return []
    parts = [f"score {scores.own[row]:.2f}", f"mean of templates {scores.template_means[row]:.2f}"]
    if scores.presence is not None:
        parts.append(f"presence {scores.presence[row]:.2f}")
    return parts


def maps_html(session: TextSession) -> str:
    """One word's maps in the last step that had it, and the words to choose from."""
    found = session.found
    if found is None:
        return _placeholder()
    word, words = session.map_word, found.result.queries.words
    index = max(k for k, step in enumerate(found.result.steps) if word in step.live)
    row = found.result.steps[index].live.index(word)
    kept = set(found.result.steps[-1].kept)
    choices = "".join(
        f'<button type="button" class="small word-choice" data-do="map" data-index="{k}" '
        f'data-focus="map-{k}" aria-pressed="{str(k == word).lower()}">{chip(k + 1)} '
        f"{escape(name) if k in kept else f'<s>{escape(name)}</s>'}</button>"
        for k, name in enumerate(words)
    )
    titles = (
        "gradCAM: where the picture answers to the word",
        "Refined by attention: the proposal",
        f"Above η = {found.result.config.mask_threshold:.2f}",
        "What the classifier saw",
    )
    figures = "".join(
        _picture(picture, title)
        for picture, title in zip(draw_word(found, index, row), titles, strict=True)
    )
    facts = "; ".join(_scores_of(found.result.steps[index], row))
    return (
        f'<div class="word-choices">{choices}</div>'
        f'<p class="note">Step {index + 1} of {len(found.result.steps)}, the last one with this '
        f'word. {escape(facts)}</p><div class="four maps">{figures}</div>'
    )


def _picture(picture: NDArray[np.uint8], title: str) -> str:
    return (
        f'<figure><img src="{jpeg_address(picture)}" alt="">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def _placeholder() -> str:
    return f'<p class="placeholder">{escape(NO_ANSWER)}</p>'


def _say(score: float | None) -> str:
    return "–" if score is None else say_score(score)
