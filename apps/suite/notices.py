"""Sentences for visitors: notices, errors, times; everything escaped before it becomes HTML."""

from __future__ import annotations

import html
import logging
import secrets
from dataclasses import dataclass
from typing import Literal

import gradio as gr

from core.errors import Cancelled, NothingFound, SuiteError

Kind = Literal["hint", "busy", "ready", "warning", "failed"]

_log = logging.getLogger(__name__)

# gr.HTML fills a template: these would start an expression in it.
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


@dataclass(frozen=True)
class Notice:
    """One sentence for the status line, and what kind it is.

    Args:
        action: name of a follow-up that the line offers as a button; "" for none.
        label: the button's text.
        progress: finished fraction in [0, 1] of a busy notice, None if not known.
    """

    kind: Kind
    text: str
    action: str = ""
    label: str = ""
    progress: float | None = None


def escape(text: object) -> str:
    """Make text show as these characters in gr.HTML, in toasts and in attributes."""
    return html.escape(str(text), quote=True).translate(_TEMPLATE)


def notice_of(error: Exception) -> Notice:
    """Say what went wrong: a visitor's mistake in its own words, a bug by a reference number."""
    if isinstance(error, NothingFound | Cancelled):
        return Notice("hint", error.message)
    if isinstance(error, SuiteError):
        return Notice("warning", error.message)
    reference = secrets.token_hex(2)
    _log.error("reference %s", reference, exc_info=error)
    return Notice("failed", f"Something broke on our side. Reference {reference}.")


def error_for_client(error: Exception) -> gr.Error:
    """Make an error of an endpoint the one whose sentence gradio passes on."""
    return gr.Error(html.escape(notice_of(error).text, quote=False), print_exception=False)


def status_html(notice: Notice) -> str:
    """Write the status line; the page's script makes its frame a live region."""
    bar = ""
    if notice.kind == "busy":
        known = notice.progress is not None
        width = f' style="width:{100 * (notice.progress or 0):.0f}%"' if known else ""
        bar = f'<span class="bar{"" if known else " unknown"}"><span{width}></span></span>'
    button = ""
    if notice.action:
        action, label = escape(notice.action), escape(notice.label)
        button = f'<button type="button" data-do="{action}">{label}</button>'
    return (
        f'<div class="status {notice.kind}" data-kind="{notice.kind}"><span class="dot"></span>'
        f'<span class="text">{escape(notice.text)}</span>{button}{bar}</div>'
    )


def say_seconds(seconds: float) -> str:
    """0.12 s, 1.8 s, 2 min 10 s."""
    if seconds < 0.005:
        return "under 0.01 s"
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def say_bytes(count: int | None) -> str:
    """375 MB, 2.6 GB; "–" if not known."""
    if count is None:
        return "–"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
