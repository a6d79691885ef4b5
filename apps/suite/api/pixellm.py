"""The endpoint of the chat: an answer in words, and masks for what it means."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from apps.suite import models
from apps.suite.api.common import expose, load_picture, new_folder, picture
from apps.suite.chat.inputs import read_settings
from apps.suite.chat.session import Asked
from apps.suite.limits import Doorkeeper
from core.errors import PromptError
from core.settings import settings

# The answer's text, its record, the history with it, the overlay and the ZIP; None: not there yet.
Answer = tuple[str, dict[str, Any] | None, list[dict[str, Any]] | None, str | None, str | None]

STREAM_SECONDS = 0.1  # between two pieces of an answer


class Turns(gr.JSON):
    """A JSON parameter that says it is a history as the endpoint returns it; empty by default."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "object"}, "description": "turns before"}


def add_chat(button: gr.Button, doorkeeper: Doorkeeper) -> None:
    """Add the endpoint, with its parameters, to the row that is being built."""
    inputs = [
        picture("image"),
        gr.Textbox("", label="message"),
        Turns([], label="history"),
        gr.Number(0, label="temperature"),
        gr.Number(settings.max_new_tokens, precision=0, label="max_new_tokens"),
        gr.Number(0, precision=0, label="seed"),
        gr.Textbox("as_asked", label="style"),
        gr.Number(0, label="mask_threshold"),
        gr.Textbox("embedded", label="model"),
    ]
    outputs = [
        gr.Textbox(label="answer"),
        gr.JSON(label="record"),
        gr.JSON(label="history"),
        gr.File(label="overlay"),
        gr.File(label="archive"),
    ]
    expose(button, chat_segment, inputs, outputs, doorkeeper)


def chat_segment(
    image: str,
    message: str = "",
    history: list[dict[str, Any]] | None = None,
    temperature: float = 0.0,
    max_new_tokens: int = settings.max_new_tokens,
    seed: int = 0,
    style: str = "as_asked",
    mask_threshold: float = 0.0,
    model: str = "embedded",
) -> Iterator[Answer]:
    """Ask something about a picture; the answer streams, with PixelLM's masks at its end.

    Args:
        image: JPEG, PNG, WebP, BMP or TIFF.
        message: a question in any script, at most 1000 characters.
        history: what the call before returned, to ask on; none: a new conversation.
        temperature: 0 for the likeliest words, up to 2 for freely drawn ones.
        max_new_tokens: 1 to 512; the answer is cut there.
        seed: of the drawn words.
        style: "as_asked", "mask" (asks for masks) or "explain" (and for reasons).
        mask_threshold: logits above it are mask, -20 to 20.
        model: "embedded", "full", or an id from list_models.

    Returns:
        The answer's text, which may contain anything: show it as text. A record with its spans,
        the masks they mean and how it ended; the history to ask on with; the picture with the
        masks drawn over it (PNG); and a ZIP of all files. Before the end only the text is there.
    """
    from core.engine import get_engine
    from core.pixellm.exports import answer_record, write_chat
    from core.pixellm.results import Finished, TextPiece
    from core.pixellm.serving import converse

    loaded, model_id = load_picture(image), models.resolve(model, "pixellm")
    turns = read_history(history)
    how, generation, masks = read_settings(
        Asked(style, max_new_tokens, temperature, seed, mask_threshold)
    )
    events = converse(
        get_engine(),
        model_id,
        loaded.image,
        message,
        turns,
        style=how,
        generation=generation,
        masks=masks,
    )
    text, sent = "", time.monotonic()
    for event in events:
        if isinstance(event, TextPiece):
            text += event.text
            if time.monotonic() - sent >= STREAM_SECONDS:
                sent = time.monotonic()
                yield text, None, None, None, None
        elif isinstance(event, Finished):
            result, notices = event.result, loaded.notices
            files = write_chat(loaded.image, [result], loaded.stem, new_folder(), notices=notices)
            told = answer_record(result, notices)
            asked_on = [*turns, result.turn.to_json()]
            yield text, told, asked_on, str(files.masks.overlay), str(files.archive)


def read_history(history: Any) -> list[Any]:
    """Read the turns before. Raises PromptError if that is no list."""
    if history is None:
        return []
    if not isinstance(history, list):
        raise PromptError("The history has to be a list, as the call before returned it.")
    return history
