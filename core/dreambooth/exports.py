"""Files of a learned subject: weights with their card, drawn pictures, and how it was trained.

Names are those of ``core.exports``. Weights come back by ``read_weights``, from whomever.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.dreambooth.card import CARD_FILE, MAX_CARD_BYTES, LearnedSubject, read_subject
from core.dreambooth.checkpoints import list_checkpoints, read_facts
from core.dreambooth.lora import LORA_FILE
from core.errors import PromptError
from core.exports import name_prefix, picture_png, slug, to_json, write_zip

if TYPE_CHECKING:
    from core.dreambooth.serving import Pair

METHOD = "dreambooth"
MAX_GROWTH = 2  # of a file as it is unpacked: ours are hardly compressed
MAX_WEIGHTS_FILES = 20

PARTS = ("config.json", "diffusion_pytorch_model.safetensors", "model.safetensors")
MEMBERS = {
    CARD_FILE,
    LORA_FILE,
    *(f"{part}/{name}" for part in ("unet", "text_encoder") for name in PARTS),
}

USE = """Use in plain diffusers:

    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER_OF_THE_MODEL, safety_checker=None)
    {load}
    pipeline("{prompt}").images[0].save("picture.png")

The model that the weights belong to is named in card.json as "base_model".
"""
LOAD_LORA = f'pipeline.load_lora_weights(".", weight_name="{LORA_FILE}")'
LOAD_FULL = 'pipeline.unet = type(pipeline.unet).from_pretrained("unet")'


def write_weights(learned: LearnedSubject, folder: Path, when: datetime | None = None) -> Path:
    """Write a ZIP of a subject's weights and card, with a note on how to use them.

    Args:
        folder: made if it is not there.
    """
    load = LOAD_LORA if learned.config.method == "lora" else LOAD_FULL
    note = USE.format(load=load, prompt=learned.subject.instance_prompt)
    files = sorted(path for path in learned.folder.rglob("*") if path.is_file())
    entries = ((path.relative_to(learned.folder).as_posix(), path.read_bytes()) for path in files)
    path, when = _begin(learned, "weights.zip", folder, when)
    return write_zip(path, [("README.txt", note.encode()), *entries], when)


def read_weights(path: Path, folder: Path) -> LearnedSubject:
    """Unpack what ``write_weights`` wrote into a folder that is not there yet, and check it.

    Raises:
        PromptError: it is no such file, too large, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in _checked(archive.infolist(), path.stat().st_size):
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(info))
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise PromptError(
            "The file holds no learned subject: give the ZIP of weights that was saved here."
        ) from error
    return read_subject(folder)


def write_drawn(
    pairs: Sequence[Pair],
    learned: LearnedSubject,
    folder: Path,
    when: datetime | None = None,
    *,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write a ZIP of drawn pictures as PNG, and ``pictures.json`` with prompts and seeds.

    Args:
        settings: JSON values of what was drawn with.
    """
    entries: list[tuple[str, bytes]] = []
    rows = []
    for number, pair in enumerate(pairs, start=1):
        stem = f"{number:02d}_{slug(pair.prompt) or 'picture'}_seed-{pair.seed}"
        row: dict[str, Any] = {"prompt": pair.prompt, "seed": pair.seed, "after": f"{stem}.png"}
        entries.append((row["after"], picture_png(pair.after)))
        if pair.before is not None:
            row["before"] = f"{stem}_before.png"
            entries.append((row["before"], picture_png(pair.before)))
        rows.append(row)
    told = {**drawn_record(learned), "settings": settings or {}, "pictures": rows}
    entries.append(("pictures.json", to_json(told)))
    path, when = _begin(learned, "pictures.zip", folder, when)
    return write_zip(path, entries, when)


def write_training(learned: LearnedSubject, folder: Path, when: datetime | None = None) -> Path:
    """Write a ZIP of how a subject was learned: masks, samples, settings, the loss of each step."""
    run = learned.folder.parent
    entries = [("loss.csv", loss_csv(run)), ("settings.json", to_json(learned.config.to_dict()))]
    for pattern in ("masks.json", "masks/*.png", "samples/*.png"):
        found = sorted(run.glob(pattern))
        entries += [(path.relative_to(run).as_posix(), path.read_bytes()) for path in found]
    path, when = _begin(learned, "training.zip", folder, when)
    return write_zip(path, entries, when)


def loss_csv(run: Path) -> bytes:
    """The figures of all steps of a training, by its newest checkpoint; a header alone if none."""
    checkpoints = list_checkpoints(run)
    rows = read_facts(checkpoints[-1]).history if checkpoints else []
    columns = ["step", "loss", "instance", "prior", "unmasked", "smoothed", "learning_rate"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def drawn_record(learned: LearnedSubject) -> dict[str, Any]:
    """What is to be known of a learned subject, as JSON values."""
    return {
        "method": METHOD,
        "model": learned.base[0],
        "subject": learned.subject.name,
        "identifier": learned.subject.identifier,
        "class_noun": learned.subject.class_noun,
        "resolution": learned.side,
        "training": learned.config.to_dict(),
        "steps": learned.figures.steps,
        "seconds": learned.figures.seconds,
        "loss": learned.figures.loss,
        "masks": [{"area_share": share, "source": source} for share, source in learned.masks],
    }


def _begin(
    learned: LearnedSubject, ending: str, folder: Path, when: datetime | None
) -> tuple[Path, datetime]:
    when = (when or datetime.now(UTC)).astimezone(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name_prefix(learned.subject.name, METHOD, when)}_{ending}", when


def _checked(infos: Iterable[zipfile.ZipInfo], packed: int) -> list[zipfile.ZipInfo]:
    """The members to unpack. Raises PromptError if there is anything but a subject's files."""
    wanted = [info for info in infos if not info.is_dir() and info.filename != "README.txt"]
    known = all(info.filename in MEMBERS for info in wanted)
    size = sum(info.file_size for info in wanted)
    if not known or len(wanted) > MAX_WEIGHTS_FILES or size > MAX_GROWTH * packed + MAX_CARD_BYTES:
        raise PromptError(
            "The file holds other things than one learned subject: give the ZIP of weights that "
            "was saved here."
        )
    return wanted
