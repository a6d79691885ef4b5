"""Chats on an engine's models: which PixelLM, its tokenizer, the picture's features.

Pages and endpoints call these; each takes everything it needs and keeps nothing. A conversation is
its picture and the history of its turns: the features come from the engine's cache, and what the
language model has read is read again in one pass before each question, so that no visitor holds a
model, or its cache of keys and values, between two questions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from core.engine.timing import StageTimer
from core.errors import ModelUnavailable
from core.images import content_hash
from core.models.catalogue import for_method
from core.models.loading import find_local
from core.pixellm.build import with_tokenizer
from core.pixellm.chat_model import ChatModel
from core.pixellm.conversation import AnswerStyle, Question
from core.pixellm.generation import GenerationOptions
from core.pixellm.model import PictureFeatures, PixelLM
from core.pixellm.pipeline import encode, start, stream
from core.pixellm.postprocess import MaskOptions
from core.pixellm.preprocessing import check_image
from core.pixellm.published import check_entry
from core.pixellm.results import Event, Finished
from core.pixellm.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken
    from core.engine.engine import Engine
    from core.models.catalogue import Entry
    from core.models.loading import Progress


def default_chat(model_set: str) -> str:
    """The id of a set's PixelLM.

    Raises:
        ModelUnavailable: it has none.
    """
    entries = for_method("pixellm", model_set)
    if not entries:
        raise ModelUnavailable(
            f"There is no PixelLM in the set {model_set[:20]!r}: choose the embedded models."
        )
    return entries[0].id


@contextmanager
def borrow(
    engine: Engine,
    model_id: str,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Iterator[ChatModel]:
    """Lend a PixelLM with its tokenizer; arguments and errors as of ``Engine.model``.

    That a published one does not fit is said before anything of it is downloaded.
    """
    entry = engine.entry(model_id)
    if entry.set == "full" and find_local(entry) is None:
        check_entry(entry, engine.device)
    with engine.model(model_id, cancel, progress) as network, engine.out_of_memory_guard():
        yield _with_tokenizer(entry, network)


def read_picture(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    *,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> float:
    """Load the model and encode a picture before the first question; returns the seconds of it.

    Raises:
        ImageError: no RGB picture (H, W, 3).
        ModelUnavailable: the model is not here, or there is too little memory.
        Cancelled: on request.
    """
    check_image(image)
    with borrow(engine, model_id, cancel, progress) as model:
        timer = StageTimer(engine.device)
        with timer.stage("encode"):
            _features(engine, model, model_id, image)
    return timer.seconds["encode"]


def converse(
    engine: Engine,
    model_id: str,
    image: NDArray[np.uint8],
    question: str,
    history: Sequence[Any] = (),
    *,
    style: AnswerStyle = "as_asked",
    generation: GenerationOptions | None = None,
    masks: MaskOptions | None = None,
    cancel: CancelToken | None = None,
    progress: Progress | None = None,
) -> Generator[Event, None, None]:
    """Answer a question about a picture as ``pipeline.stream`` does.

    Args:
        image: RGB uint8 (H, W, 3).
        history: ``Turn.to_json`` values of the turns before, in order.
        cancel: an answer that has begun ends at the next token and is kept, as "stopped".
        progress: told of the stages of loading the model.

    Yields:
        Pieces of text, targets, and ``Finished``, whose seconds also say "encode".

    Raises:
        ImageError: no RGB picture.
        PromptError: the question or the history is refused.
        ModelUnavailable: the model is not here, or there is too little memory.
        Cancelled: on request, before the answer began.
    """
    Question.parse(question, style)  # refused before anything is loaded
    check_image(image)
    with borrow(engine, model_id, cancel, progress) as model:
        timer = StageTimer(engine.device)
        with timer.stage("encode"):
            picture = _features(engine, model, model_id, image)
        options: dict[str, Any] = {"generation": generation, "masks": masks, "cancel": cancel}
        conversation = start(model, picture, history)
        for event in stream(model, conversation, question, style=style, **options):
            yield _timed(event, timer) if isinstance(event, Finished) else event


_tokenizers: WeakKeyDictionary[PixelLM, ChatTokenizer] = WeakKeyDictionary()


def _with_tokenizer(entry: Entry, network: PixelLM) -> ChatModel:
    """A loaded network with its tokenizer, which is read once."""
    if (known := _tokenizers.get(network)) is not None:
        return ChatModel(network, known, id=entry.id, model_set=entry.set)
    model = with_tokenizer(entry, network)
    _tokenizers[network] = model.tokenizer
    return model


def _features(
    engine: Engine, model: ChatModel, model_id: str, image: NDArray[np.uint8]
) -> PictureFeatures:
    """A picture's features, encoded once while the engine's cache keeps them."""
    key = ("pixellm", model_id, content_hash(image))
    return engine.embeddings.get_or_compute(key, lambda: encode(model, image))


def _timed(event: Finished, timer: StageTimer) -> Finished:
    """Add the time of the picture to that of the answer."""
    encoding, found = timer.seconds["encode"], event.result.segmentation
    seconds = {"encode": encoding, **found.seconds, "total": encoding + found.seconds["total"]}
    return Finished(replace(event.result, segmentation=replace(found, seconds=seconds)))
