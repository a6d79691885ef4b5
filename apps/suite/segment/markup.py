"""HTML of the Segment tab: readings, object list, table of prompts. All text is escaped.

Buttons and fields carry `data-do`, which static/suite.js sends to the tab's listener.
"""

from __future__ import annotations

from collections.abc import Sequence

from apps.suite.notices import escape
from apps.suite.segment.drawing import say_score
from apps.suite.segment.scene import MOST_LABEL_CHARS, Instance, Scene
from core.overlays import hex_color, palette, text_color
from core.results import SCORE_KINDS

MOST_ROWS = 100
SHORT_KINDS = {"predicted_iou": "Pred. IoU", "clip_similarity": "CLIP"}

_EYE = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M2 12s3.6-6.5 10-6.5S22 12 22 12s-3.6 '
    '6.5-10 6.5S2 12 2 12z"/><circle cx="12" cy="12" r="2.8"/>{slash}</svg>'
)
_SLASH = '<path d="M4 20 20 4"/>'
CROSS = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M6 6l12 12M18 6 6 18"/></svg>'


def readings_html(scene: Scene, thumbnails: list[str], *, tab: str = "segment") -> str:
    """Show the candidates of an ambiguous prompt as pictures to choose from.

    Args:
        tab: starts the buttons' ids.
    """
    answer = scene.answer
    if answer is None or answer.prompts.is_batch or len(thumbnails) < 2:
        return ""
    figures = "".join(
        f'<button type="button" class="reading" data-do="choose" data-index="{index}" '
        f'data-focus="choose-{index}" id="{tab}_reading_{index + 1}" '
        f'aria-pressed="{str(index == answer.chosen).lower()}" '
        f'aria-label="Reading {index + 1}, predicted IoU {score}"><img src="{address}" alt="">'
        f'<span class="caption"><kbd>{index + 1}</kbd> <span class="words">predicted IoU </span>'
        f"<b>{score}</b></span></button>"
        for index, address in enumerate(thumbnails)
        for score in [say_score(float(answer.scores[index]))]
    )
    return f'<div class="panel-title">Readings</div><div class="readings">{figures}</div>'


def objects_html(scene: Scene) -> str:
    """List the objects: colour and number, name, score, area, and what can be done with each."""
    instances = scene.instances
    if not instances:
        return ""
    current = {instance.number for instance in scene.current}
    rows = "".join(
        _object_row(instance, instance.number in current) for instance in instances[:MOST_ROWS]
    )
    more = len(instances) - MOST_ROWS
    note = f'<p class="note">and {more} more, all in the downloads</p>' if more > 0 else ""
    head = (
        '<tr><th scope="col"><span class="sr">Select</span></th><th scope="col">No.</th>'
        f'<th scope="col">Name</th><th scope="col" class="number">{_score_title(instances)}</th>'
        '<th scope="col" class="number">Area</th><th scope="col"><span class="sr">Edit</span></th>'
        "</tr>"
    )
    merge = (
        '<button type="button" class="small" data-do="merge">Merge selected</button>'
        if len(instances) > 1
        else ""
    )
    return (
        f'<div class="panel-title">Objects <span class="count">{len(instances)}</span>{merge}</div>'
        f'<div class="scroll"><table class="objects"><thead>{head}</thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _score_title(instances: Sequence[Instance]) -> str:
    kinds = {instance.score_kind for instance in instances}
    return SHORT_KINDS.get(kinds.pop(), "Score") if len(kinds) == 1 else "Score"


def _object_row(instance: Instance, is_current: bool) -> str:
    k = instance.number
    share = 100 * instance.mask.share
    name = escape(instance.label)
    state = " current" if is_current else ""
    hide = "Hide" if instance.visible else "Show"
    eye = _EYE.format(slash="" if instance.visible else _SLASH)
    return (
        f'<tr class="{"" if instance.visible else "hidden-object"}{state}">'
        f'<td><input type="checkbox" data-select="{k}" data-focus="select-{k}" '
        f'aria-label="Select object {k}"></td>'
        f"<td>{chip(k)}</td>"
        f'<td><input type="text" class="name" value="{name}" placeholder="Object {k}" '
        f'maxlength="{MOST_LABEL_CHARS}" data-do="rename" data-number="{k}" '
        f'data-focus="rename-{k}" aria-label="Name of object {k}"></td>'
        f'<td class="number"><span title="{SCORE_KINDS[instance.score_kind]}">'
        f"{say_score(instance.score)}</span></td>"
        f'<td class="number" title="{instance.mask.area} px">{share:.1f} %</td>'
        f'<td class="actions"><button type="button" class="icon" data-do="toggle" '
        f'data-number="{k}" data-focus="toggle-{k}" aria-label="{hide} object {k}">{eye}</button>'
        f'<button type="button" class="icon" data-do="delete" data-number="{k}" '
        f'data-focus="delete-{k}" aria-label="Delete object {k}">{CROSS}</button></td></tr>'
    )


def chip(k: int) -> str:
    """An object's number on its colour."""
    text = "#{:02x}{:02x}{:02x}".format(*text_color(palette(k)))
    return f'<span class="chip" style="background:{hex_color(k)};color:{text}">{k}</span>'


def prompts_html(scene: Scene, size: tuple[int, int] | None) -> str:
    """Write points and boxes as tables of numbers that can be edited without a mouse."""
    if size is None:
        return '<p class="note">Choose a picture first.</p>'
    height, width = size
    points = "".join(
        f'<tr><th scope="row">{row + 1}</th>{_number("point", row, "x", x, width - 1)}'
        f"{_number('point', row, 'y', y, height - 1)}<td>{_label_field(row, label)}</td>"
        f"<td>{_remove('point', row)}</td></tr>"
        for row, (x, y, label) in enumerate(scene.prompts.points)
    )
    boxes = "".join(
        f'<tr><th scope="row">{row + 1}</th>'
        + "".join(
            _number("box", row, name, value, width if name[0] == "x" else height)
            for name, value in zip(("x0", "y0", "x1", "y1"), box, strict=True)
        )
        + f"<td>{_remove('box', row)}</td></tr>"
        for row, box in enumerate(scene.prompts.boxes)
    )
    points_table = _table("Points", ("x", "y", "is"), points)
    return (
        f'<p class="note">Pixels of the original picture ({width}×{height}), origin at the top '
        "left; the table and the picture stay in step.</p>"
        f'<div class="prompt-tables"><div class="scroll">{points_table}'
        '<button type="button" class="small" data-do="add-point" data-focus="add-point">'
        f'Add a point</button></div><div class="scroll">'
        f"{_table('Boxes', ('x0', 'y0', 'x1', 'y1'), boxes)}"
        '<button type="button" class="small" data-do="add-box" data-focus="add-box">Add a box'
        "</button></div></div>"
    )


def _table(caption: str, columns: tuple[str, ...], rows: str) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    empty = f'<tr><td class="note" colspan="{len(columns) + 2}">none</td></tr>'
    return (
        f'<table class="prompts"><caption>{caption}</caption><thead><tr><th scope="col">No.</th>'
        f'{head}<th scope="col"><span class="sr">Remove</span></th></tr></thead>'
        f"<tbody>{rows or empty}</tbody></table>"
    )


def _number(what: str, row: int, column: str, value: float, most: int) -> str:
    return (
        f'<td><input type="number" min="0" max="{most}" step="any" value="{value:g}" '
        f'data-do="edit-{what}" data-row="{row}" data-column="{column}" '
        f'data-focus="{what}-{row}-{column}" aria-label="{what} {row + 1} {column}"></td>'
    )


def _label_field(row: int, label: int) -> str:
    options = "".join(
        f'<option value="{value}"{" selected" if value == label else ""}>{text}</option>'
        for value, text in ((1, "foreground"), (0, "background"))
    )
    return (
        f'<select data-do="edit-point" data-row="{row}" data-column="label" '
        f'data-focus="point-{row}-label" aria-label="point {row + 1} is">{options}</select>'
    )


def _remove(what: str, row: int) -> str:
    return (
        f'<button type="button" class="icon" data-do="remove-{what}" data-row="{row}" '
        f'data-focus="remove-{what}-{row}" aria-label="Remove {what} {row + 1}">{CROSS}</button>'
    )
