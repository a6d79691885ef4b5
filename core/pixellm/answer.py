"""Build an answer from the tokens as they come: text, targets with masks, and the end result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from core.pixellm.chat_model import ChatModel
from core.pixellm.codebook import GroupReader, Groups, find_groups
from core.pixellm.conversation import Question, Turn
from core.pixellm.decoder import fuse_masks
from core.pixellm.generation import Step
from core.pixellm.model import PictureFeatures
from core.pixellm.phrases import Span, label_targets, link_phrases
from core.pixellm.postprocess import MaskOptions, make_exclusive, mask_scores, to_masks, upscale
from core.pixellm.results import (
    Answer,
    Ending,
    Event,
    PixelLMResult,
    Target,
    TargetFound,
    TextPiece,
)
from core.results import Dropped, Segmentation

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoded from a part of a character's bytes

ENDINGS: dict[Ending, str] = {
    "length": "The answer was cut at token {tokens}: ask for less at once, or allow more tokens.",
    "targets": "The answer was ended at mask {targets}, the most that are made at once.",
    "stopped": "The answer was stopped at token {tokens}.",
}


class AnswerBuilder:
    """Turns steps of generation into events, and at the end into a result.

    Args:
        first_number: of the targets that come.
    """

    def __init__(
        self,
        model: ChatModel,
        picture: PictureFeatures,
        question: Question,
        masks: MaskOptions,
        first_number: int = 1,
    ) -> None:
        self._model = model
        self._picture = picture
        self._question = question
        self._masks = masks
        self._first_number = first_number
        self._reader = GroupReader(model.tokenizer.codebook)
        self._states: dict[int, torch.Tensor] = {}  # of codebook tokens, by index
        self._sent = ""
        self._groups = Groups()
        self.ids: list[int] = []
        self.targets: list[Target] = []

    def add(self, step: Step) -> Iterator[Event]:
        """Take a token; yields the text and the target that it completes."""
        tokenizer = self._model.tokenizer
        self.ids.append(step.token)
        group = self._reader.read(step.token)
        if step.token in tokenizer.codebook.ids:
            self._states[len(self.ids) - 1] = step.state
        elif step.token not in tokenizer.control_ids:
            yield from self._more_text()
        if group and not self._model.config.unchecked_groups:
            target = self._decode(group)
            self.targets.append(target)
            spans = self._spans(self._sent)
            named = (span for span in spans if target.number in span.targets)
            yield TargetFound(target, next(named, None))

    @property
    def turn(self) -> Turn:
        """The question with what is written so far."""
        return Turn(self._question, tuple(self.ids))

    def close(self) -> Iterator[Event]:
        """Yield what was held back, once no more tokens come."""
        config, tokenizer = self._model.config, self._model.tokenizer
        self._groups = find_groups(self.ids, tokenizer.codebook, unchecked=config.unchecked_groups)
        if config.unchecked_groups:
            for group in self._groups.complete:
                self.targets.append(self._decode(group))
                yield TargetFound(self.targets[-1], None)
        text = tokenizer.decode(self.ids).rstrip()
        if text.startswith(self._sent) and text != self._sent:
            yield TextPiece(text[len(self._sent) :])

    def result(
        self,
        ending: Ending,
        warnings: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> PixelLMResult:
        """Put everything together, after ``close``."""
        tokenizer = self._model.tokenizer
        text = tokenizer.decode(self.ids).rstrip()
        answer = Answer(
            text=text,
            spans=tuple(self._spans(text)),
            raw=tokenizer.decode_raw(self.ids),
            ending=ending,
            broken_groups=len(self._groups.broken),
        )
        segmentation = self._segmentation(
            answer,
            warnings=tuple(dict.fromkeys((*warnings, *self._warnings(answer)))),
            parameters={**(parameters or {}), "masks": asdict(self._masks)},
        )
        return PixelLMResult(answer, segmentation, tuple(self.targets), self.turn)

    def _more_text(self) -> Iterator[Event]:
        """The text since the last piece; waits while a character or a space is incomplete."""
        text = self._model.tokenizer.decode(self.ids).rstrip()
        if text.startswith(self._sent) and text != self._sent and not text.endswith(REPLACEMENT):
            piece, self._sent = text[len(self._sent) :], text
            yield TextPiece(piece)

    @torch.no_grad()
    def _decode(self, group: tuple[int, ...]) -> Target:
        """Decode one target from the states of its tokens."""
        network, picture = self._model.network, self._picture
        states = torch.stack([self._states[index] for index in group])[None]  # (1, L·N, D)
        scales = network.scale_logits(states, picture.decoder_features)
        fused = fuse_masks(scales, network.fusion.scale_weights(network.device))  # (1, h, w)
        logits = upscale(fused, picture.geometry)  # (1, H, W)
        before = self._model.tokenizer.decode(self.ids[: group[0]])
        return Target(
            number=self._first_number + len(self.targets),
            position=len(before.rstrip()),
            mask=to_masks(logits, self._masks)[0],
            score=float(mask_scores(logits)[0]),
            logits=fused[0].float().cpu().numpy(),
            scale_logits=tuple(one[0, 0].float().cpu().numpy() for one in scales),
        )

    def _spans(self, text: str) -> list[Span]:
        positions = [min(target.position, len(text)) for target in self.targets]
        return link_phrases(text, positions, [target.number for target in self.targets])

    def _warnings(self, answer: Answer) -> list[str]:
        size = len(self._model.tokenizer.codebook)
        warnings = []
        if answer.ending in ENDINGS:
            form = ENDINGS[answer.ending]
            warnings.append(form.format(tokens=len(self.ids), targets=len(self.targets)))
        if count := answer.broken_groups:
            groups = "One mask" if count == 1 else f"{count} masks"
            warnings.append(
                f"{groups} could not be made, because the model did not write all {size} tokens in "
                "a row that it takes: ask again in other words, or for fewer things at once."
            )
        elif not self.targets and answer.ending == "end":
            warnings.append("The answer marks nothing in the picture.")
        return warnings

    def _segmentation(self, answer: Answer, **about: Any) -> Segmentation:
        """Targets that have pixels, under their numbers; the others as dropped."""
        numbers = [target.number for target in self.targets]
        labels = label_targets(answer.text, answer.spans, numbers, self._question.text)
        size = self._picture.geometry.original_size
        masks = np.zeros((len(self.targets), *size), bool)
        for mask, target in zip(masks, self.targets, strict=True):
            mask[:] = target.mask
        if self._masks.exclusive and self.targets:
            fused = torch.from_numpy(np.stack([target.logits for target in self.targets]))
            make_exclusive(masks, fused, self._picture.geometry)
        filled = [index for index, mask in enumerate(masks) if mask.any()]
        dropped = tuple(
            Dropped(labels[index], target.score, "its mask has no pixel")
            for index, target in enumerate(self.targets)
            if index not in filled
        )
        return Segmentation(
            method="pixellm",
            model=self._model.id,
            model_set=self._model.model_set,
            size=size,
            masks=masks[filled],
            labels=tuple(labels[index] for index in filled),
            scores=np.full(len(filled), np.nan, np.float32),
            score_kind="llm_none",
            dropped=dropped,
            ids=tuple(numbers[index] for index in filled),
            **about,
        )
