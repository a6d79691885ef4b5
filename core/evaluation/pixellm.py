"""Answers with masks, scored as in MUSE (PixelLM, section 4), with an offline scorer of the words.

MUSE's four steps: (1) predicted and true masks are matched one to one; (2) each mask's place in
the answer is given its words; (3) the words are scored; (4) a mask counts with its words' score
times its IoU, and gIoU and cIoU are made of these. In the paper GPT-3.5 scores the words, from 1
to 10, and how the score is scaled is not known. Here ``SCORER`` does it, on this machine: the best
token F1 of the phrase that the answer links to the mask with what its target may be called. So
figures with words are none to put beside the paper's. Matching is by IoU, exactly, where the
published code draws random points.

Every answer is generated: the published code measures RefCOCO and ReasonSeg with the answer given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import ImageError
from core.evaluation.pixellm_data import Asked, Talk
from core.pixellm.chat_model import ChatModel
from core.pixellm.codebook import Fusion
from core.pixellm.generation import GenerationOptions
from core.pixellm.pipeline import answer, start
from core.pixellm.results import PixelLMResult

SCORER = "token F1, version 1"
MEANT = 0.2  # least IoU with an object for a mask to mean it
RIGHT = 0.5  # least IoU of a right mask, where not all objects are known
MAX_NEW_TOKENS = 96

_WORD = re.compile(r"[\w'’-]+")
_STOP_WORDS = frozenset(
    "a an the this that these those another more one of on in at by to and with left right upper "
    "lower top bottom middle".split()
)


@dataclass(frozen=True, eq=False)
class Given:
    """What came back.

    Args:
        masks: bool (P, H, W).
        phrases: the words that the answer links to each, "" for none.
        broken: groups of codebook tokens that are no target.
        cut: the answer did not end by itself.
    """

    masks: NDArray[np.bool_]
    phrases: tuple[str, ...]
    broken: int = 0
    cut: bool = False


@dataclass(frozen=True)
class Pair:
    """A predicted and a true mask, or one alone: pixels of both, of either, the words' score."""

    intersection: int
    union: int
    words: float

    @property
    def iou(self) -> float:
        return self.intersection / self.union if self.union else 1.0


@dataclass(frozen=True)
class Scored:
    """One answer.

    Args:
        exact: exactly the targets are marked.
        refused: nothing is marked.
    """

    kind: str
    pairs: tuple[Pair, ...]
    targets: int
    masks: int
    exact: bool
    refused: bool
    nothing: bool
    broken: bool
    cut: bool


@dataclass
class ChatScores:
    """All answers of one run."""

    answers: list[Scored] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Over all entries: matched pairs, and masks and targets without a partner (IoU 0).

        ``exact_set`` is over answers to questions that have targets, ``refusal_accuracy`` over
        those that ask for what is not there.
        """
        pairs = [pair for one in self.answers for pair in one.pairs]
        union = sum(pair.union for pair in pairs)
        with_targets = [one for one in self.answers if one.targets]
        return {
            "giou": _mean(pair.iou for pair in pairs),
            "ciou": sum(pair.intersection for pair in pairs) / max(1, union),
            "giou_with_words": _mean(pair.words * pair.iou for pair in pairs),
            "ciou_with_words": sum(p.words * p.intersection for p in pairs) / max(1, union),
            "exact_set": _mean(one.exact for one in with_targets),
            "right_number": _mean(one.masks == one.targets for one in with_targets),
            "refusal_accuracy": _mean(one.refused for one in self.answers if one.nothing),
        }

    def details(self) -> dict[str, Any]:
        kinds = sorted({one.kind for one in self.answers})
        return {
            "scorer": SCORER,
            "answers": len(self.answers),
            "refusals_due": sum(one.nothing for one in self.answers),
            "broken_groups": _mean(one.broken for one in self.answers),
            "cut_answers": _mean(one.cut for one in self.answers),
            "by_kind": {kind: self._of_kind(kind) for kind in kinds},
        }

    def _of_kind(self, kind: str) -> dict[str, float]:
        own = ChatScores([one for one in self.answers if one.kind == kind])
        values = {k: v for k, v in own.figures().items() if not np.isnan(v)}
        return {"answers": len(own.answers), **values}


def evaluate(model: ChatModel, talks: Iterable[Talk]) -> ChatScores:
    """Have every talk with the model, and score its answers.

    Raises:
        ImageError: there is no talk.
    """
    scores = ChatScores()
    for talk in talks:
        for asked, result in ask(model, talk):
            scores.answers.append(score(asked, given(result)))
    if not scores.answers:
        raise ImageError("There is no picture with a question to evaluate on.")
    return scores


def ask(model: ChatModel, talk: Talk) -> Iterator[tuple[Asked, PixelLMResult]]:
    """Ask a talk's questions one after the other; the model's own answers are its history."""
    conversation = start(model, talk.image)
    options = GenerationOptions(max_new_tokens=MAX_NEW_TOKENS)
    for asked in talk.asked:
        question = asked.question
        yield asked, answer(model, conversation, question, style=asked.style, generation=options)


def given(result: PixelLMResult) -> Given:
    """The masks of an answer and the words that it links to them."""
    said = {
        number: result.answer.text[span.start : span.end]
        for span in result.answer.spans
        for number in span.targets
    }
    height, width = result.segmentation.size
    return Given(
        masks=np.array([one.mask for one in result.targets], bool).reshape(-1, height, width),
        phrases=tuple(said.get(one.number, "") for one in result.targets),
        broken=result.answer.broken_groups,
        cut=result.answer.ending != "end",
    )


def score(asked: Asked, answer: Given) -> Scored:
    """Score one answer."""
    masks, phrases = answer.masks, answer.phrases
    if asked.ignored is not None:
        masks = masks & ~asked.ignored
    if asked.matching == "merged" and len(masks):
        masks, phrases = np.any(masks, axis=0)[None], (" ".join(phrases),)
    pairs = tuple(_pairs(asked, masks, phrases))
    return Scored(
        kind=asked.kind,
        pairs=pairs,
        targets=len(asked.truth),
        masks=len(masks),
        exact=is_exact(asked, masks, pairs),
        refused=not masks.any(),
        nothing=asked.nothing,
        broken=answer.broken > 0,
        cut=answer.cut,
    )


def _pairs(asked: Asked, masks: NDArray[np.bool_], phrases: Sequence[str]) -> Iterator[Pair]:
    """Steps 1 to 3: partners with their words' score, then whoever has no partner."""
    matched = match(masks, asked.truth, in_order=asked.matching != "pairs")
    for p, t in matched:
        names = asked.descriptions[t] if asked.descriptions else ()
        yield Pair(
            int((masks[p] & asked.truth[t]).sum()),
            int((masks[p] | asked.truth[t]).sum()),
            phrase_score(phrases[p], names) if names else 1.0,
        )
    for alone, side in ((masks, 0), (asked.truth, 1)):
        for k in set(range(len(alone))) - {pair[side] for pair in matched}:
            if area := int(alone[k].sum()):
                yield Pair(0, area, 0.0)


def match(
    masks: NDArray[np.bool_], truth: NDArray[np.bool_], *, in_order: bool = False
) -> list[tuple[int, int]]:
    """Partners among masks (P, H, W) and truth (N, H, W): of the greatest sum of IoUs.

    Partners that share no pixel are none, unless they are taken in order.
    """
    from scipy.optimize import linear_sum_assignment

    if in_order:
        return [(k, k) for k in range(min(len(masks), len(truth)))]
    if not len(masks) or not len(truth):
        return []
    ious = iou_matrix(masks, truth)
    rows = zip(*linear_sum_assignment(-ious), strict=True)
    return [(int(p), int(t)) for p, t in rows if ious[p, t] > 0]


def iou_matrix(masks: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of each mask (P, H, W) with each other one (N, H, W): (P, N), 0 for two empty ones."""
    first, second = (one.reshape(len(one), -1).astype(np.float32) for one in (masks, others))
    both = (first @ second.T).astype(np.float64)
    either = first.sum(axis=1)[:, None] + second.sum(axis=1)[None] - both
    return both / np.maximum(either, 1)


def is_exact(asked: Asked, masks: NDArray[np.bool_], pairs: Sequence[Pair]) -> bool:
    """Whether exactly the targets are marked, each once.

    Where all objects are known, a mask means the one with which its IoU is greatest, if that is at
    least ``MEANT``; how well it fits is a matter of gIoU. Else each target needs a mask of an IoU
    of at least ``RIGHT``.
    """
    if len(masks) != len(asked.truth):
        return False
    if asked.objects is None or not len(masks):
        return all(pair.iou >= RIGHT for pair in pairs)
    ious = iou_matrix(masks, asked.objects)
    meant = sorted(ious.argmax(axis=1).tolist())
    wanted = sorted(iou_matrix(asked.truth, asked.objects).argmax(axis=1).tolist())
    return bool((ious.max(axis=1) >= MEANT).all()) and meant == wanted


def phrase_score(phrase: str, names: Iterable[str]) -> float:
    """Best F1 of a phrase's words with a name's, 0 to 1; articles and places do not count."""
    said = _content(phrase)
    return max((_f1(said, _content(name)) for name in names), default=0.0)


def _f1(said: frozenset[str], name: frozenset[str]) -> float:
    if not said or not name:
        return 0.0
    recall = len(said & name) / len(name)
    precision = len(said & name) / len(said)
    return 2 * recall * precision / (recall + precision) if recall else 0.0


def _content(text: str) -> frozenset[str]:
    """The words of a text that mean something, plurals folded."""
    found = _WORD.findall(text.lower())
    return frozenset(_singular(word) for word in found if word not in _STOP_WORDS)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@contextmanager
def ablated(fusion: Fusion, part: str) -> Iterator[None]:
    """Take a part of the fusion away, after training, while the context lasts.

    Args:
        part: "token_fusion" leaves the first token of each scale, "scale_fusion" the last scale.
    """
    if not fusion.learned:
        raise ValueError("published fusion is constant; there is nothing to take away")
    kept = {name: value.detach().clone() for name, value in fusion.named_parameters()}
    with torch.no_grad():
        if part == "token_fusion":
            total = fusion.token_weights.sum(dim=1)
            fusion.token_weights.zero_()
            fusion.token_weights[:, 0] = total
        elif part == "scale_fusion":
            fusion.scale_logits.fill_(-1e4)
            fusion.scale_logits[-1] = 0
        else:
            raise ValueError(f"{part} is no part of the fusion")
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in fusion.named_parameters():
                value.copy_(kept[name])


def _mean(values: Iterable[float]) -> float:
    """The mean, NaN of nothing."""
    collected = list(values)
    return float(np.mean(collected)) if collected else float("nan")
