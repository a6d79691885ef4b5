"""HTML of the chat tab: questions, answers with their phrases, suggestions. All text is escaped.

A phrase is a button of its mask's colour. ``data-numbers`` are the masks that it means, for
static/suite.js: a click shows them alone, a pointer over it as long as it stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from apps.suite.chat.drawing import draw_scales
from apps.suite.chat.examples import GENERAL
from apps.suite.chat.session import ChatSession, Look, Said, SaidMask, Told
from apps.suite.notices import escape
from apps.suite.segment.markup import chip
from apps.suite.text.drawing import jpeg_address
from core.overlays import hex_color, palette, text_color

MOST_MAPS = 4  # masks whose maps are shown
EMPTY = (
    "Ask what is in the picture, what something could be used for, or where a thing is. Words of "
    "the answer carry the colour and the number of their mask."
)


def log_html(session: ChatSession) -> str:
    """Write the finished turns, and a question that got no answer."""
    items = [_told(session, index, told) for index, told in enumerate(session.turns)]
    if failed := session.failed:
        items.append(
            f'{_question(failed.question)}<li class="said failed"><p class="note">'
            f'{escape(failed.reason)}</p><button type="button" class="small" data-do="ask" '
            f'data-text="{escape(failed.question)}" data-focus="again">Ask again</button></li>'
        )
    if items:
        return f'<ol class="talk">{"".join(items)}</ol>'
    return "" if session.live else f'<p class="placeholder">{escape(EMPTY)}</p>'


def live_html(session: ChatSession) -> str:
    """Write the question that is being answered, and its answer so far."""
    said = session.live
    if said is None:
        return ""
    text = _answer(said, len(session.turns), session.alone)
    return (
        f'<ol class="talk" aria-live="off">{_question(said.question)}<li class="said live">'
        f'<p class="answer">{text}<span class="caret" aria-hidden="true"></span></p></li></ol>'
    )


def suggestions_html(session: ChatSession) -> str:
    """Write questions to press: those of the example, otherwise general ones."""
    if session.picture is None:
        return ""
    asked = {told.said.question for told in session.turns}
    if session.live:
        asked.add(session.live.question)
    buttons = "".join(
        f'<button type="button" class="small" data-do="ask" data-text="{escape(text)}">'
        f"{escape(text)}</button>"
        for text in session.questions or GENERAL
        if text not in asked
    )
    return f'<div class="suggestions" aria-label="Suggested questions">{buttons}</div>'


def inside_html(session: ChatSession) -> str:
    """Write the chosen answer with every token shown, and the maps of its masks at each scale."""
    if not session.turns:
        return '<p class="note">There is no answer yet.</p>'
    result = session.turns[session.chosen].result
    size = result.segmentation.size
    figures = "".join(
        f'<figure class="stage"><img src="{jpeg_address(picture)}" alt=""><figcaption>'
        f"{chip(target.number)} scale {scale}</figcaption></figure>"
        for target in result.targets[:MOST_MAPS]
        for scale, picture in enumerate(draw_scales(target, size), start=1)
    )
    return (
        f'<div class="panel-title">Answer {session.chosen + 1} as it was written</div>'
        f'<pre class="raw">{escape(result.answer.raw)}</pre><div class="stages">{figures}</div>'
    )


def _question(text: str) -> str:
    return f'<li class="asked"><p><span class="sr">You asked: </span>{escape(text)}</p></li>'


def _told(session: ChatSession, index: int, told: Told) -> str:
    said = told.said
    chosen = index == session.chosen and session.live is None
    warnings = [*told.result.segmentation.warnings]
    warnings += [_say_empty(one) for one in said.masks if one.mask is None]
    notes = "".join(f'<p class="note">{escape(text)}</p>' for text in warnings)
    text = _answer(said, index, session.alone) or '<i class="absent">no words</i>'
    return (
        f'{_question(said.question)}<li class="said{" chosen" if chosen else ""}">'
        f'<p class="answer"><span class="sr">Answer: </span>{text}</p>{notes}'
        f"{_choose(said, index, chosen)}</li>"
    )


def _say_empty(mask: SaidMask) -> str:
    return f"Mask {mask.number} has no pixel: a lower mask threshold may show it."


def _choose(said: Said, index: int, chosen: bool) -> str:
    """A button that shows all masks of a turn again."""
    count = len(said.shown)
    if not count:
        return ""
    text = f"{'Its' if chosen else 'Show its'} {count} mask{'s' if count > 1 else ''}"
    return (
        f'<button type="button" class="small turn" data-do="turn" data-turn="{index}" '
        f'data-focus="turn-{index}" aria-pressed="{str(chosen).lower()}">{text}</button>'
    )


def _answer(said: Said, turn: int, alone: Look | None) -> str:
    """The text, its phrases as buttons, and chips for masks without a phrase."""
    masks = {one.number: one for one in said.masks}
    spoken = {number for span in said.spans for number in span.targets}
    marks: list[tuple[int, int, list[SaidMask]]] = []
    for span in said.spans:
        meant = [masks[number] for number in span.targets if number in masks]
        marks.append((span.start, span.end, meant))
    for one in said.masks:
        if one.number not in spoken:
            place = min(one.position, len(said.text))
            marks.append((place, place, [one]))
    parts, done = [], 0
    for start, end, meant in sorted(marks, key=lambda mark: mark[:2]):
        parts.append(escape(said.text[done:start]))
        parts.append(_phrase(said.text[start:end], meant, turn, alone))
        done = end
    return "".join([*parts, escape(said.text[done:])])


def _phrase(text: str, meant: list[SaidMask], turn: int, alone: Look | None) -> str:
    """One button for all masks of a phrase, and one for each where there are several."""
    filled = [one for one in meant if one.mask is not None]
    if not filled:
        return escape(text)
    if len(filled) == 1:
        return _button(text, filled, turn, alone)
    chips = "".join(_button("", [one], turn, alone) for one in filled)
    return f'<span class="several">{_button(text, filled, turn, alone)}{chips}</span>'


def _button(text: str, masks: list[SaidMask], turn: int, alone: Look | None) -> str:
    numbers = tuple(one.number for one in masks)
    first = palette(numbers[0])
    ink = "#{:02x}{:02x}{:02x}".format(*text_color(first))
    listed = ",".join(map(str, numbers))
    number = f"<b>{numbers[0]}</b>" if len(numbers) == 1 else ""
    pressed = str(alone == (turn, numbers)).lower()
    return (
        f'<button type="button" class="phrase{"" if text else " bare"}" data-do="alone" '
        f'data-turn="{turn}" data-numbers="{listed}" data-focus="phrase-{listed}" '
        f'aria-pressed="{pressed}" aria-label="{escape(_label(text, masks))}" '
        f'style="--mark:{hex_color(numbers[0])};--ink:{ink}">{escape(text)}{number}</button>'
    )


def _label(text: str, masks: Iterable[SaidMask]) -> str:
    """'the red cup: mask 3, 4.2 % of the picture'."""
    said = "; ".join(
        f"mask {one.number}, {100 * one.mask.share:.1f} % of the picture"
        for one in masks
        if one.mask is not None
    )
    return f"{text}: {said}" if text else said
