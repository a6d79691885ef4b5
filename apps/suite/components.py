"""Parts that tabs share: the channel from the page's script, and how listeners are guarded."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from apps.suite.limits import Doorkeeper
from apps.suite.notices import Notice, notice_of
from apps.suite.sessions import Visitors
from core.errors import PromptError

READY = Notice("ready", "")

# Listeners of the page: not among the documented endpoints.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# All work with a model waits in one line.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


def html(value: str = "", **options: Any) -> gr.HTML:
    """Show HTML of our own making, styled by static/suite.css alone."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **options)


def build_channel(name: str) -> gr.HTML:
    """Return an unseen component through which static/suite.js sends a tab's actions.

    Its `input`, `select` and `submit` listeners receive them as `gr.EventData`.
    """
    return gr.HTML(
        "",
        visible="hidden",
        elem_id=f"{name}_channel",
        js_on_load=f"(window.studioChannels ??= {{}})[{name!r}] = trigger;",
    )


def data_of(event: gr.EventData) -> dict[str, Any]:
    """Return what came with an event. Raises PromptError if it is not what our script sends."""
    if not isinstance(event._data, dict):
        raise PromptError("The page sent something that cannot be read; reload it.")
    return dict(event._data)


def guarded(
    function: Callable[..., None],
    report: Callable[[Any], Any],
    doorkeeper: Doorkeeper,
    visitors: Visitors,
) -> Callable[..., Any]:
    """Make a function that changes a session a listener that never fails.

    What goes wrong becomes the session's notice.

    Args:
        report: called with the session afterwards; what the listener returns.
    """

    @wraps(function)
    def listener(session: Any, *args: Any) -> Any:
        with session.lock:
            session.notice = READY
        try:
            request = doorkeeper.check()
            visitors.enter(request.session_hash if request else None, session)
            function(session, *args)
        except Exception as error:
            with session.lock:
                session.notice = notice_of(error)
        return report(session)

    return listener
