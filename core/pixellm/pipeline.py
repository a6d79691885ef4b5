"""PixelLM's way from a picture and a question to words linked to masks (paper, section 3).

1. The image tower encodes the picture, once for a conversation.
2. The language model writes an answer; for each thing it means, a group of codebook tokens.
3. The group's hidden states are fused to one prompt for each scale.
4. The pixel decoder makes a mask of each scale and adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.engine.cancellation import CancelToken
from core.engine.timing import StageTimer
from core.pixellm.answer import AnswerBuilder
from core.pixellm.chat import Conversation
from core.pixellm.chat_model import ChatModel
from core.pixellm.conversation import AnswerStyle, Question
from core.pixellm.generation import GenerationOptions, Step, generate
from core.pixellm.model import PictureFeatures
from core.pixellm.postprocess import MaskOptions
from core.pixellm.preprocessing import preprocess
from core.pixellm.results import Ending, Event, Finished, PixelLMResult


@torch.no_grad()
def encode(model: ChatModel, image: NDArray[np.uint8]) -> PictureFeatures:
    """Encode a picture, RGB uint8 (H, W, 3); the features serve any number of conversations.

    Raises:
        ImageError: no RGB picture.
    """
    pixels, geometry = preprocess(image, model.config)
    return model.network.encode_picture(pixels, geometry)


def start(
    model: ChatModel,
    image: NDArray[np.uint8] | PictureFeatures,
    history: Sequence[Any] = (),
    *,
    use_cache: bool = True,
) -> Conversation:
    """Begin a conversation about a picture, or take up a saved one.

    Args:
        image: RGB uint8 (H, W, 3), or what ``encode`` made of it.
        history: of ``Conversation.history``.
        use_cache: False reads everything again for each token, as the published code does.

    Raises:
        ImageError: no RGB picture.
        PromptError: the history cannot be read.
    """
    picture = image if isinstance(image, PictureFeatures) else encode(model, image)
    conversation = Conversation(model, picture, use_cache=use_cache)
    conversation.replay(model, history)
    return conversation


def stream(
    model: ChatModel,
    conversation: Conversation,
    question: str,
    *,
    style: AnswerStyle = "as_asked",
    generation: GenerationOptions | None = None,
    masks: MaskOptions | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Answer a question piece by piece: text as it is written, masks as soon as they can be made.

    A request to stop ends the answer where it is; what is there already is its result. So does
    closing this generator, and the conversation goes on from there.

    Args:
        style: "mask" and "explain" add the sentence that training had for them.

    Yields:
        ``TextPiece`` and ``TargetFound``, in the order of the answer, and ``Finished`` at last.

    Raises:
        PromptError: no question, too long a question or conversation, or the last question is
            still being answered.
        Cancelled: the request to stop came before it began.
    """
    asked = Question.parse(question, style)
    generation = generation or GenerationOptions()
    cancel = cancel or CancelToken()
    cancel.raise_if_cancelled()
    timer = StageTimer(model.network.device)
    with conversation.turn():
        prompt = conversation.prompt(model, asked)
        room = conversation.room(model, prompt)
        generation = replace(generation, max_new_tokens=min(generation.max_new_tokens, room))
        decoding, before = conversation.decoding, conversation.decoding.checkpoint()
        steps = generate(model.network, decoding, prompt.ids, model.tokenizer.eos_id, generation)
        builder = AnswerBuilder(
            model, conversation.picture, asked, masks or MaskOptions(), conversation.targets + 1
        )
        ending: Ending = "length"
        try:
            while ending == "length" and (step := _timed_next(steps, timer)):
                with timer.stage("masks"):
                    events = list(builder.add(step))
                yield from events
                ending = _ending(model, builder, generation, cancel)
            with timer.stage("masks"):
                events = list(builder.close())
            yield from events
            with timer.stage("masks"):
                result = builder.result(
                    ending,
                    prompt.warnings,
                    {"question": asked.text, "style": style, "generation": asdict(generation)},
                )
        except Exception:
            decoding.roll_back(before)
            raise
        except GeneratorExit:
            conversation.close_turn(model, builder.turn)
            raise
        conversation.close_turn(model, result.turn)
    seconds = timer.seconds
    yield Finished(replace(result, segmentation=replace(result.segmentation, seconds=seconds)))


def answer(
    model: ChatModel, conversation: Conversation, question: str, **options: Any
) -> PixelLMResult:
    """Answer a question and return the whole result; arguments and errors as of ``stream``."""
    for event in stream(model, conversation, question, **options):
        if isinstance(event, Finished):
            return event.result
    raise AssertionError("stream ends with Finished")


def segment(
    model: ChatModel, image: NDArray[np.uint8], question: str, **options: Any
) -> PixelLMResult:
    """Answer one question about a picture; arguments and errors as of ``start`` and ``stream``."""
    return answer(model, start(model, image), question, **options)


def _timed_next(steps: Iterator[Step], timer: StageTimer) -> Step | None:
    with timer.stage("words"):
        return next(steps, None)


def _ending(
    model: ChatModel, builder: AnswerBuilder, options: GenerationOptions, cancel: CancelToken
) -> Ending:
    """Why writing ends after the last token; "length" while it may go on."""
    if builder.ids[-1] == model.tokenizer.eos_id:
        return "end"
    if cancel.cancelled:
        return "stopped"
    return "targets" if len(builder.targets) >= options.max_targets else "length"
