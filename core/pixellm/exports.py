"""Files of a conversation: what ``core.exports`` writes of all its masks, and what was said.

The masks of all turns are one result, because their numbers go on through the conversation.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.exports import Files, name_prefix, record, to_json, write_all, write_zip
from core.pixellm.results import Answer, PixelLMResult
from core.results import Segmentation

PACKAGES = ("torch", "transformers", "numpy", "pillow")
SHARED = ("method", "model", "model_set", "image")  # by all turns
OWN = ("parameters", "seconds", "instances", "overlap_px", "dropped", "warnings")


@dataclass(frozen=True)
class ChatFiles:
    """Where ``write_chat`` put everything.

    Args:
        masks: what every method writes, of all turns together.
        told: the record of the conversation.
        text: questions and answers to read, with the masks' numbers.
    """

    masks: Files
    told: Path
    text: Path

    @property
    def archive(self) -> Path:
        """A ZIP of all the others, with ``parameters.json``."""
        return self.masks.archive

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.archive, self.told, self.text, *self.masks.all)


def turn_record(result: PixelLMResult) -> dict[str, Any]:
    """Describe one answer as JSON values: words, spans, masks as run lengths, how it was made.

    ``spans`` are characters [start, end) of the answer's text with the numbers of their masks,
    which are the ``id`` of ``instances``; ``raw`` shows every token.
    """
    told, answer = record(result.segmentation), result.answer
    return {
        "question": result.turn.question.text,
        "style": result.turn.question.style,
        "answer": answer.text,
        "spans": [asdict(span) for span in answer.spans],
        "ending": answer.ending,
        "outcome": result.outcome,
        "broken_groups": answer.broken_groups,
        "raw": answer.raw,
        "targets": [
            {"id": one.number, "position": one.position, "score": round(one.score, 4)}
            for one in result.targets
        ],
        **{name: told[name] for name in OWN},
    }


def answer_record(result: PixelLMResult, notices: Sequence[str] = ()) -> dict[str, Any]:
    """Describe one answer by itself: what ``turn_record`` says, the model and the picture.

    Args:
        notices: sentences about the picture.
    """
    told, shared = turn_record(result), record(result.segmentation)
    told["warnings"] = [*notices, *told["warnings"]]
    return {**{name: shared[name] for name in SHARED}, **told}


def chat_record(results: Sequence[PixelLMResult], notices: Sequence[str] = ()) -> dict[str, Any]:
    """Describe a conversation of at least one turn as JSON values.

    Its ``history`` is what ``pipeline.start`` and the endpoint take to go on from there.

    Args:
        notices: sentences about the picture.
    """
    shared = record(replace(results[0].segmentation, parameters={}))
    return {
        **{name: shared[name] for name in SHARED},
        "versions": {name: version(name) for name in PACKAGES},
        "turns": [turn_record(result) for result in results],
        "history": [result.turn.to_json() for result in results],
        "warnings": list(notices),
    }


def merge_turns(results: Sequence[PixelLMResult]) -> Segmentation:
    """The masks of all turns, at least one, as one result under their numbers."""
    parts = [result.segmentation for result in results]
    stages = dict.fromkeys(stage for part in parts for stage in part.seconds)
    return replace(
        parts[-1],
        masks=np.concatenate([part.masks for part in parts]),
        labels=tuple(label for part in parts for label in part.labels),
        scores=np.concatenate([part.scores for part in parts]),
        ids=tuple(number for part in parts for number in part.numbers),
        dropped=tuple(one for part in parts for one in part.dropped),
        warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
        parameters={"turns": [dict(part.parameters) for part in parts]},
        seconds={stage: sum(part.seconds.get(stage, 0.0) for part in parts) for stage in stages},
    )


def plain_text(results: Sequence[PixelLMResult]) -> str:
    """The conversation to read; a phrase is followed by the numbers of its masks, "[1]"."""
    turns = (
        f"Question: {result.turn.question.text}\nAnswer: {_numbered(result.answer)}\n"
        for result in results
    )
    return "\n".join(turns)


def write_chat(
    image: NDArray[np.uint8],
    results: Sequence[PixelLMResult],
    stem: str,
    folder: Path,
    when: datetime | None = None,
    *,
    overlay: NDArray[np.uint8] | None = None,
    notices: Sequence[str] = (),
) -> ChatFiles:
    """Write every download of a conversation of at least one turn.

    Args:
        image, stem, folder, when, overlay: as ``core.exports.write_all`` takes them.
        notices: as ``chat_record`` takes them.
    """
    when = (when or datetime.now(UTC)).astimezone(UTC)
    found = merge_turns(results)
    files = write_all(image, found, stem, folder, when, overlay=overlay)
    prefix = name_prefix(stem, found.method, when)
    told, text = folder / f"{prefix}_conversation.json", folder / f"{prefix}_conversation.txt"
    told.write_bytes(to_json(chat_record(results, notices)))
    text.write_text(plain_text(results), "utf-8")
    written = ChatFiles(files, told, text)
    _rewrite_archive(written, when)
    return written


def _numbered(answer: Answer) -> str:
    text = answer.text
    for span in reversed(answer.spans):
        numbers = ", ".join(map(str, span.targets))
        text = f"{text[: span.end]} [{numbers}]{text[span.end :]}"
    return text


def _rewrite_archive(files: ChatFiles, when: datetime) -> None:
    """Put the conversation into the archive of all files."""
    with zipfile.ZipFile(files.archive) as archive:
        parameters = archive.read("parameters.json")
    entries = [(path.name, path.read_bytes()) for path in files.all[1:]]
    write_zip(files.archive, [*entries, ("parameters.json", parameters)], when)
