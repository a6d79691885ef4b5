"""A learned subject as a small folder: weights in diffusers' format, and a card that tells of them.

``pytorch_lora_weights.safetensors`` (or the folders of a full fine-tuning) and ``card.json``:
words, base model, settings, figures, checksums. Folders may come from a visitor, so everything is
checked before use, and nothing in them is run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.dreambooth.config import DreamBoothConfig, Subject
from core.dreambooth.lora import LORA_FILE, attach, save_weights
from core.dreambooth.storage import whole_folder
from core.errors import PromptError
from core.models.loading import file_sha256

if TYPE_CHECKING:
    import torch

    from core.dreambooth.lora import Denoiser
    from core.dreambooth.model import DiffusionModel
    from core.dreambooth.subjects import SubjectPicture

CARD_FILE = "card.json"
FORMAT = "segment-studio.dreambooth"
VERSION = 1
MAX_CARD_BYTES = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figures:
    """How a training went: steps, seconds they took, smoothed loss at the end, device in words."""

    steps: int
    seconds: float
    loss: float | None
    device: str


@dataclass(frozen=True)
class LearnedSubject:
    """A subject that a model has learned.

    Args:
        folder: with weights and card.
        base: id and checksum of the model that the weights belong to.
        side: px that it was trained at.
        masks: (area share, source) of each picture.
    """

    folder: Path
    subject: Subject
    config: DreamBoothConfig
    base: tuple[str, str]
    side: int
    figures: Figures
    masks: tuple[tuple[float, str], ...]

    def check_model(self, model: DiffusionModel) -> None:
        """Raise PromptError unless the weights belong to a model."""
        if self.base[0] != model.id:
            raise PromptError(
                f"The subject '{self.subject.name}' was learned by the model {self.base[0]}, not "
                f"by {model.id}: switch to that model, or train it again with this one."
            )
        if self.base[1] != model.sha256:
            raise PromptError(
                f"The subject '{self.subject.name}' was learned by other weights of {model.id}: "
                "train it again with the present ones."
            )

    def pipeline(self, model: DiffusionModel, dtype: torch.dtype | None = None) -> Any:
        """A StableDiffusionPipeline that knows the subject; the model stays as it is.

        Raises:
            PromptError: another model's, or damaged.
        """
        import torch

        self.check_model(model)
        return attach(model, self.folder, self.config.method, dtype or torch.float32)


def write_subject(
    folder: Path,
    denoiser: Denoiser,
    subject: Subject,
    config: DreamBoothConfig,
    model: DiffusionModel,
    pictures: Sequence[SubjectPicture],
    figures: Figures,
) -> LearnedSubject:
    """Write trained weights and their card, whole or not at all."""
    side = config.resolution or model.resolution
    with whole_folder(folder) as partial:
        save_weights(denoiser, partial, config.method)
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        card = {
            "format": FORMAT,
            "version": VERSION,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "subject": asdict(subject),
            "prompt": subject.instance_prompt,
            "class_prompt": subject.class_prompt,
            "base_model": {"id": model.id, "sha256": model.sha256},
            "resolution": side,
            "settings": config.to_dict(),
            "figures": asdict(figures),
            "masks": [
                {"area_share": round(float(p.training_mask.mean()), 4), "source": _source(p)}
                for p in pictures
            ],
            "files": {str(path.relative_to(partial)): file_sha256(path) for path in files},
        }
        (partial / CARD_FILE).write_text(json.dumps(card, indent=1), "utf-8")
    return read_subject(folder)


def read_subject(folder: Path) -> LearnedSubject:
    """Read the card of a learned subject and check its files against it.

    Raises:
        PromptError: it is no such folder, or files are missing, changed or too many.
    """
    card = _read_card(folder / CARD_FILE)
    try:
        config = DreamBoothConfig.from_dict(card["settings"])
        learned = LearnedSubject(
            folder=folder,
            subject=Subject(**card["subject"]),
            config=config,
            base=(str(card["base_model"]["id"]), str(card["base_model"]["sha256"])),
            side=int(card["resolution"]),
            figures=Figures(**card["figures"]),
            masks=tuple((float(one["area_share"]), str(one["source"])) for one in card["masks"]),
        )
        files = {str(name): str(digest) for name, digest in card["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, PromptError) as error:
        raise PromptError(
            f"The card of the subject in {folder.name} is damaged: save it again."
        ) from error
    _check_files(folder, files, config.method)
    return learned


def list_subjects(root: Path) -> list[LearnedSubject]:
    """The learned subjects in the trainings' folders under ``root``, the newest first.

    What is damaged is left out.
    """
    found = sorted(
        root.glob(f"*/*/{CARD_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    subjects = []
    for path in found:
        try:
            subjects.append(read_subject(path.parent))
        except PromptError as error:
            _log.warning("%s", error)
    return subjects


def _read_card(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ValueError("too large")
        card = json.loads(path.read_bytes())
        if card["format"] != FORMAT:
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PromptError(
            f"{path.parent.name} is no learned subject: choose a folder with {CARD_FILE} and "
            f"{LORA_FILE} that was saved here."
        ) from error
    if card.get("version") != VERSION:
        raise PromptError(
            f"The subject has version {card.get('version')!r:.20}; this program reads {VERSION}: "
            "train it again."
        )
    return card


def _check_files(folder: Path, files: dict[str, str], method: str) -> None:
    """Raise PromptError unless the folder holds exactly the card's files, unchanged."""
    expected = LORA_FILE if method == "lora" else "unet/diffusion_pytorch_model.safetensors"
    there = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != CARD_FILE
    }
    if expected not in files or there != set(files):
        raise PromptError(
            f"The subject in {folder.name} is not whole: its weights are missing, or there are "
            "files that do not belong to it."
        )
    for name, digest in files.items():
        if file_sha256(folder / name) != digest:
            raise PromptError(
                f"The subject in {folder.name} was changed after it was saved ({name}): save it "
                "again."
            )


def _source(picture: SubjectPicture) -> str:
    return "whole" if picture.decision == "whole" or picture.mask is None else picture.source
