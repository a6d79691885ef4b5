"""What the tabs' listeners share: how they are guarded, attached, and what they show at last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import gradio as gr

from apps.suite import models
from apps.suite.limits import Doorkeeper
from apps.suite.notices import Notice, notice_of, status_html
from apps.suite.services import Services
from apps.suite.sessions import Visitors
from core.errors import PromptError
from core.overlays import Background

N = TypeVar("N", bound=NamedTuple)

READY = Notice("ready", "")
TOOLS = ("foreground", "background", "box", "scribble", "paint", "erase")

# Listeners of the page: not among the documented endpoints.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# All work with a model waits in one line.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}


@dataclass(frozen=True)
class Drawing:
    """Choices that change the drawing only, never the result."""

    opacity: float = 0.45
    outline: bool = True
    numbers: bool = True
    background: Background = "image"
    overlay: bool = True


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


def take_then(
    parts: SimpleNamespace,
    in_use: gr.State,
    services: Services,
    *,
    refresh: Callable[..., Any],
    outputs: Sequence[gr.components.Component],
    status_of: Callable[[Any], str],
) -> Callable[..., None]:
    """Return how a tab's listeners are attached: `take(trigger, function, inputs)`.

    One listener lets the function change the session at once and as often as its event comes, so
    that quick clicks are not lost; the next one does the slow part, in the line for the model, and
    runs once more for whatever came in meanwhile.

    Args:
        in_use: the model that is in use.
        refresh: what most listeners do then, called with the session and the model.
        outputs: what it returns updates for.
        status_of: what is said at once.
    """

    def take(
        trigger: Any,
        function: Callable[..., None],
        inputs: tuple[Any, ...] = (),
        *,
        then: Callable[..., Any] = refresh,
        then_inputs: tuple[Any, ...] = (),
        report: Callable[[Any], Any] = status_of,
        report_to: Sequence[gr.components.Component] = (parts.status,),
    ) -> None:
        taken = trigger(
            guarded(function, report, services.doorkeeper, services.visitors),
            [parts.state, *inputs],
            list(report_to),
            queue=False,
            trigger_mode="multiple",
            **PRIVATE,
        )
        taken.then(
            then,
            [parts.state, in_use, *then_inputs],
            list(outputs),
            trigger_mode="always_last",
            **MODEL,
            **PRIVATE,
        )

    return take


def wire_drawing(
    parts: SimpleNamespace,
    redraw: Callable[..., tuple[Any, ...]],
    outputs: Sequence[gr.components.Component],
) -> None:
    """Draw again with other choices of `drawing_controls`; no model is asked.

    Args:
        redraw: called with the session and the choices by the names of `Drawing`.
        outputs: what it returns updates for.
    """
    names = tuple(field.name for field in fields(Drawing))
    controls = [getattr(parts, name) for name in names]

    def again(session: Any, *values: Any) -> tuple[Any, ...]:
        return redraw(session, **dict(zip(names, values, strict=True)))

    listener: dict[str, Any] = {
        "fn": again,
        "inputs": [parts.state, *controls],
        "outputs": list(outputs),
        "queue": False,
        "trigger_mode": "always_last",
        **PRIVATE,
    }
    for control in controls:
        control.input(**listener)
    for button, step in ((parts.fainter, -0.1), (parts.stronger, 0.1)):
        button.click(
            lambda opacity, step=step: round(min(max(opacity + step, 0), 1), 2),
            parts.opacity,
            parts.opacity,
            queue=False,
            trigger_mode="multiple",
            **PRIVATE,
        ).then(**listener)


def wire_downloads(
    parts: SimpleNamespace,
    write_files: Callable[[Any], list[str]],
    status_of: Callable[[Any], str],
) -> None:
    """Write a session's files when the visitor asks for them; the archive comes first."""

    def prepare(session: Any) -> tuple[Any, str]:
        return prepare_files(session, write_files, status_of)

    parts.prepare.click(
        prepare, parts.state, [parts.files, parts.status], concurrency_limit=4, **PRIVATE
    )


def prepare_files(
    session: Any, write_files: Callable[[Any], list[str]], status_of: Callable[[Any], str]
) -> tuple[Any, str]:
    """Return updates of the list of files and of the status line, which says what went wrong."""
    session.notice = READY
    try:
        paths = write_files(session)
    except Exception as error:
        session.notice = notice_of(error)
        return gr.update(value=None, visible=False), status_of(session)
    return gr.update(value=paths, visible=True), status_of(session)


def place_of(event: gr.EventData) -> tuple[float, float]:
    """Where a picture was clicked, in shown pixels. Raises PromptError if that cannot be read."""
    try:
        x, y = (float(value) for value in data_of(event)["index"])
    except (KeyError, TypeError, ValueError):
        raise PromptError("That place is not in the picture; click inside it.") from None
    return x, y


def shown_parts(parts: SimpleNamespace, shown: type[N]) -> N:
    """A tab's components by the names and in the order of the updates that its `show` makes."""
    return shown._make(getattr(parts, name) for name in shown._fields)


def show_all(session: Any, show: Callable[[Any], N], nothing: N) -> tuple[Any, ...]:
    """Update the session, the line about the device, and everything that `show` draws.

    Args:
        nothing: an update of nothing, for when drawing fails: the status line says so.
    """
    try:
        return session, models.device_html(session.model, session.seconds), *show(session)
    except Exception as error:
        session.notice = notice_of(error)
        return session, gr.skip(), *nothing._replace(status=status_html(session.notice))
