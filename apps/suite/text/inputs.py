"""What a visitor does in the Text query tab, each a function of the session; no model is asked."""

from __future__ import annotations

import math
from typing import Any

from apps.suite.notices import Notice
from apps.suite.segment import edits
from apps.suite.segment.session import Picture
from apps.suite.text.examples import TextExample
from apps.suite.text.session import (
    MODES,
    NO_PICTURE,
    NO_WORDS,
    PAIRS,
    PANELS,
    Asked,
    ListName,
    TextSession,
)
from apps.suite.text.words import add_lines
from core.car.choices import change, config_of, word_lists
from core.car.config import CarConfig, SamMatching
from core.errors import PromptError
from core.images import LoadedImage, load

LISTS: tuple[ListName, ...] = ("words", "background")
MOST_TEXT = 100_000  # characters that one paste may have


def read_upload(session: TextSession, path: str | None) -> None:
    """Take an uploaded file as the picture; on an error the one before stays.

    Raises:
        ImageError: the file is no readable picture, or over a limit.
    """
    edits.take_upload(session, path, use_picture)


def use_picture(session: TextSession, loaded: LoadedImage) -> None:
    """Start on a picture; the words stay."""
    with session.lock:
        session.cancel_job()
        edits.use_picture(session, loaded)
        session.panel = "result"
        session.notice = Notice("ready", " ".join(loaded.notices))


def use_example(session: TextSession, example: TextExample) -> None:
    """Take one of the suite's own pictures with its words, and get ready to look for them."""
    with session.lock:
        use_picture(session, load(example.path))
        session.mode = example.mode
        replace_words(session, example.words)
        begin(session)


def begin(session: TextSession) -> None:
    """Get ready to look for the words. Raises PromptError without a picture."""
    with session.lock:
        _need_picture(session)
        session.waiting = session.begin_job()
        session.notice = Notice("busy", "Waiting for the model…")


def read_config(asked: Asked, background: tuple[str, ...] | None, model_set: str) -> CarConfig:
    """Make the method's settings of the page's fields.

    Args:
        background: None: the preset's.

    Raises:
        PromptError: an unknown preset or visual prompt, or a number that is none or out of range.
    """
    numbers = [asked.eta, asked.theta, asked.box, asked.presence, asked.iom, asked.iou]
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
        raise PromptError("A threshold is empty; write a number from 0 to 1 there.")
    config = config_of(str(asked.preset), model_set)
    return change(
        config,
        mask_threshold=float(asked.eta),
        confidence_threshold=float(asked.theta),
        box_threshold=float(asked.box),
        presence_threshold=float(asked.presence) if asked.presence_on else None,
        visual_prompts=tuple(asked.prompts or ()),
        background_queries=config.background_queries if background is None else background,
        recurrence=bool(asked.recurrence),
        refine=bool(asked.refine),
        use_crf=bool(asked.crf),
        sam=_matching(config.sam, float(asked.iom), float(asked.iou)),
    )


def edit(session: TextSession, action: dict[str, Any]) -> None:
    """Do what a chip, a field or a button inside our own HTML asks for.

    Args:
        action: {"do": name, …} as static/suite.js sends it.

    Raises:
        PromptError: unknown or malformed.
        NothingFound: a part of an answer is asked for, and there is none.
    """
    name = str(action.get("do"))
    if name not in _EDITS:
        raise PromptError(f"The page asked for {name[:20]!r}, which is not known here.")
    with session.lock:
        _EDITS[name](session, action)


def use_list(session: TextSession, name: str | None) -> None:
    """Put a ready list in the place of the words. Raises PromptError if there is none such."""
    lists = word_lists(session.model_set)
    if not name:
        return
    if name not in lists:
        raise PromptError(f"There is no list {str(name)[:30]!r}; use one of {', '.join(lists)}.")
    with session.lock:
        replace_words(session, lists[name].words)


def replace_words(session: TextSession, words: tuple[str, ...]) -> None:
    """Put other words in the place of the present ones, which can be put back."""
    lost = [word for word in session.words if word not in words]
    if lost:
        session.former = session.words
        count = len(session.words)
        text = f"{count} word{'s were' if count > 1 else ' was'} replaced."
        session.notice = Notice("hint", text, action="words-back", label="Put them back")
    session.words = words


def set_mode(session: TextSession, mode: str) -> None:
    """Look for all words together, or for each by itself. Raises PromptError if unknown."""
    if mode not in MODES:
        raise PromptError(f"There is no mode {str(mode)[:20]!r}; use one of {', '.join(MODES)}.")
    session.mode = mode


def set_panel(session: TextSession, panel: str) -> None:
    """Choose what the large frame shows. Raises PromptError if unknown or without a picture."""
    if panel not in PANELS:
        raise PromptError(f"There is no view {str(panel)[:20]!r}; use one of {', '.join(PANELS)}.")
    _need_picture(session)
    session.panel = panel


def set_pair(session: TextSession, pair: str) -> None:
    """Choose which two pictures are compared. Raises PromptError if there are no such two."""
    found = session.need_found()
    known = [stage for stage in PAIRS if stage == "picture" or stage in found.before]
    if pair not in known:
        raise PromptError(f"There is no pair {str(pair)[:20]!r}; use one of {', '.join(known)}.")
    session.pair = next(stage for stage in known if stage == pair)


def need_words(session: TextSession) -> tuple[str, ...]:
    """Return the words. Raises PromptError if there is none."""
    if not session.words:
        raise PromptError(NO_WORDS)
    return session.words


def _need_picture(session: TextSession) -> Picture:
    if session.picture is None:
        raise PromptError(NO_PICTURE)
    return session.picture


def _matching(matching: SamMatching, iom: float, iou: float) -> SamMatching:
    try:
        return SamMatching(iom_threshold=iom, iou_threshold=iou, min_cover=matching.min_cover)
    except ValueError as error:
        raise PromptError(f"The setting {error}.") from None


def _list_of(action: dict[str, Any]) -> ListName:
    for name in LISTS:
        if action.get("list") == name:
            return name
    raise PromptError("The page sent something that cannot be read; reload it.")


def _words_of(session: TextSession, name: ListName) -> tuple[str, ...]:
    return session.words if name == "words" else session.background


def _put(session: TextSession, name: ListName, words: tuple[str, ...]) -> None:
    if name == "words":
        session.words = words
    else:
        session.own_background = words


def _add(session: TextSession, action: dict[str, Any]) -> None:
    name, text = _list_of(action), str(action.get("value", ""))
    if len(text) > MOST_TEXT:
        raise PromptError(
            f"That text has {len(text)} characters; the limit is {MOST_TEXT}, so paste less."
        )
    added = add_lines(_words_of(session, name), text)
    _put(session, name, added.words)
    if added.returned:
        session.returns += 1
        session.returned[name] = (session.returns, added.returned)
    if added.text:
        session.notice = Notice("warning" if added.returned else "hint", added.text)


def _remove(session: TextSession, action: dict[str, Any]) -> None:
    name, word = _list_of(action), action.get("word")
    _put(session, name, tuple(one for one in _words_of(session, name) if one != word))


def _clear(session: TextSession, action: dict[str, Any]) -> None:
    name = _list_of(action)
    if name == "words":
        replace_words(session, ())
    else:
        session.own_background = ()


def _reset(session: TextSession, action: dict[str, Any]) -> None:
    session.own_background = None


def _put_back(session: TextSession, action: dict[str, Any]) -> None:
    session.words, session.former = session.former, session.words


def _choose_step(session: TextSession, action: dict[str, Any]) -> None:
    count = len(session.need_found().result.steps)
    session.step = min(max(edits.read_whole(action, "index"), 0), count - 1)


def _choose_map(session: TextSession, action: dict[str, Any]) -> None:
    count = len(session.need_found().result.queries.words)
    session.map_word = min(max(edits.read_whole(action, "index"), 0), count - 1)


_EDITS = {
    "add-words": _add,
    "remove-word": _remove,
    "clear-words": _clear,
    "reset-words": _reset,
    "words-back": _put_back,
    "step": _choose_step,
    "map": _choose_map,
}
