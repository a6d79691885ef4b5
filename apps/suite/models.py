"""Which models the page offers, which one is in use, and what the engine says of itself.

torch is imported at the first call that needs it, not with the page.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache

from apps.suite.jobs import Progress, run_job
from apps.suite.notices import Notice, escape, notice_of, say_bytes, say_seconds
from core.errors import ModelUnavailable
from core.models.catalogue import Entry, catalogue, for_method
from core.settings import settings


def default_model(model_set: str = "embedded", method: str = "sam") -> str:
    """Return the id of a set's first model of a method."""
    return for_method(method, model_set)[0].id


def robust_model(sam_id: str) -> str:
    """Return the RobustSAM that belongs to a SAM.

    Raises:
        ModelUnavailable: there is none.
    """
    for entry in catalogue().values():
        if entry.method == "robustsam" and sam_id in map(
            entry.config.get, ("base", "compare_with")
        ):
            return entry.id
    raise ModelUnavailable(
        f"There is no RobustSAM for {catalogue()[sam_id].title}: choose the embedded model or a "
        "ViT at the top of the page."
    )


def choices(model_set: str, *, look: bool = False) -> list[tuple[str, str]]:
    """Return (title, id) of a set's models.

    Args:
        look: also look whether the weights are here, and say so.
    """
    return [(_title(entry, look), entry.id) for entry in for_method("sam", model_set)]


def _title(entry: Entry, look: bool) -> str:
    if entry.set == "embedded":
        return entry.title
    here = look and is_here(entry.id)
    return f"{entry.title} · {say_bytes(entry.bytes)}{'' if here else ', not downloaded'}"


def is_here(model_id: str) -> bool:
    """Whether a model's weights are on this machine."""
    from core.models.loading import find_local

    return find_local(catalogue()[model_id]) is not None


def usable(model_id: str) -> tuple[str, Notice | None]:
    """Return the model to use for a choice, and what to say if it is another one.

    Raises:
        ModelUnavailable: unknown id.
    """
    entry = catalogue().get(model_id)
    if entry is None:
        raise ModelUnavailable(
            f"There is no model {model_id[:40]!r}; choose one of {', '.join(catalogue())}."
        )
    if entry.set == "embedded" or is_here(model_id):
        return model_id, None
    missing = f"{entry.title} needs {say_bytes(entry.bytes)} that are not downloaded"
    if can_download():
        return default_model(), Notice("hint", f"{missing}; the embedded model is in use.")
    return default_model(), Notice(
        "hint",
        f"{missing}; the embedded model is in use. Downloads are off here: start the suite with "
        "--models full on a machine with a network.",
    )


def resolve(model: str, method: str = "sam") -> str:
    """Return the id that an endpoint's `model` means: a set's default, or an id of the method's.

    Raises:
        ModelUnavailable: unknown, or not here.
    """
    model_id = default_model(model, method) if model in ("embedded", "full") else model
    in_use, notice = usable(model_id)
    if catalogue()[model_id].method != method:
        others = ", ".join(entry.id for entry in catalogue().values() if entry.method == method)
        raise ModelUnavailable(f"{model_id} is no model for this task; choose one of {others}.")
    if notice is not None:
        missing = notice.text.split(";")[0]
        raise ModelUnavailable(f"{missing}; use 'embedded', or download it on the page first.")
    return in_use


def can_download() -> bool:
    """Whether published weights may be fetched: allowed, and the hub not switched off."""
    from huggingface_hub import is_offline_mode

    return settings.allow_download and not is_offline_mode()


def download(model_id: str) -> Iterator[Notice]:
    """Fetch and load a model, saying how far it is."""
    from core.engine import CancelToken, get_engine

    token = CancelToken()

    def work(report: Progress) -> None:
        with get_engine().model(model_id, token, report):
            pass

    try:
        for fraction, text in run_job(work, token):
            yield Notice("busy", f"{text}…", progress=fraction)
        yield Notice("ready", f"{catalogue()[model_id].title} is in use.")
    except Exception as error:
        yield notice_of(error)


_ready = threading.Event()


def warm_up() -> None:
    """Import torch and load the embedded model, so that the first click finds them."""
    try:
        from core.engine import get_engine

        with get_engine().model(default_model()):
            pass
    except Exception as error:  # shown to whoever asks next; the page stays up
        notice_of(error)
    finally:
        _ready.set()


@cache
def _engine_words() -> str:
    from core.engine import get_engine

    status = get_engine().status()
    return f"{status['device_name']}, {status['precision']}"


def device_html(model_id: str | None = None, seconds: dict[str, float] | None = None) -> str:
    """Write the line that says where the models run and how long the last answer took."""
    parts = [f"<b>{escape(catalogue()[model_id or default_model()].title)}</b>"]
    if _ready.is_set():
        parts.append(escape(_engine_words()))
    else:
        parts.append("loading the model…")
    names = {"encode": "picture read in", "predict": "last answer in"}
    for stage, words in names.items():
        if seconds and stage in seconds:
            parts.append(f"{words} {say_seconds(seconds[stage])}")
    return f'<div class="device">{"<i>·</i>".join(f"<span>{part}</span>" for part in parts)}</div>'


def wait_until_ready(timeout: float = 60.0) -> None:
    """Wait for the warm-up, if one is under way."""
    _ready.wait(timeout)
