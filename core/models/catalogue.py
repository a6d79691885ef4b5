"""The list of models: what each is, where its weights come from, what it needs.

The facts are in ``catalogue.json``; an embedded model's configuration, size and checksum are in
the card beside its weights, which its training writes, and are read from there.

The six characters in the names of SAM's files are the start of their MD5 sum, not of the SHA-256
that is checked here. Sizes and checksums come from independent public records that agree with one
another. The hub repository ``ybelkada/segment-anything`` mirrors the publisher's files; the
checksum decides, so the publisher's own address serves as well. MobileSAM comes from its authors'
repository at a fixed commit; the commit of its copies on the hub could not be established.
RobustSAM's files are named by their publisher's page, CLIP's by open_clip's list of weights;
neither their checksums nor a commit are in any public record, so they are taken as the repository
serves them (and read as tensors only). The same holds for PixelLM's, which are many: their entry
names config.json, and the memory of the smallest form that they can be loaded in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

PROJECT = Path(__file__).resolve().parents[2]
CATALOGUE_FILE = Path(__file__).with_name("catalogue.json")

ModelSet = Literal["embedded", "full"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the catalogue.

    Attributes:
        file: embedded: full path of the weights; full: path in ``repo``, whose last part is the
            published file name.
        repo, revision: hub repository and commit that carry the file; None: only at ``url``.
        sha256, bytes: checksum and size of the file; None for an embedded model without a card.
        source: page or command where a person finds the origin of the weights.
        memory_mib: expected use while working on one picture in float32: weights and
            activations, estimated, MiB.
        builder: "package.module:function", called with the entry and its state dict.
        config: arguments of the architecture, as the builder reads them.
        low_precision: submodules that may run in the engine's precision; all others stay float32.
        card: JSON file with the configuration, checksum, figures, training command and credits.
    """

    id: str
    method: str
    set: ModelSet
    title: str
    note: str
    file: str
    license: str
    source: str
    memory_mib: int
    builder: str
    repo: str | None = None
    revision: str | None = None
    url: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    low_precision: tuple[str, ...] = ()
    card: Path | None = None

    def __post_init__(self) -> None:
        if self.set not in ("embedded", "full"):
            raise ValueError(f"{self.id}: the set is {self.set!r}, not 'embedded' or 'full'")
        if self.set == "full" and not (self.repo or self.url):
            raise ValueError(f"{self.id}: a published model needs a repo or a url")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.id}: {self.sha256!r} is not a SHA-256 in lower-case hex")
        if not re.fullmatch(r"[\w.]+:\w+", self.builder):
            raise ValueError(f"{self.id}: the builder is {self.builder!r}, not 'module:function'")

    @property
    def file_name(self) -> str:
        return Path(self.file).name

    def read_card(self) -> dict[str, Any]:
        """Read the model card; {} for a model that has none."""
        if self.card is None or not self.card.is_file():
            return {}
        return json.loads(self.card.read_text(encoding="utf-8"))


@cache
def catalogue() -> dict[str, Entry]:
    """All models by id, in the order of the file."""
    return load_catalogue(CATALOGUE_FILE, PROJECT)


def load_catalogue(path: Path, project: Path) -> dict[str, Entry]:
    """Read a catalogue file whose embedded models lie under ``project``.

    Raises:
        ValueError: an entry is incomplete, has an unknown key or repeats an id.
    """
    entries: dict[str, Entry] = {}
    for record in json.loads(path.read_text(encoding="utf-8"))["models"]:
        entry = parse_entry(record, project)
        if entry.id in entries:
            raise ValueError(f"{path.name}: {entry.id} is listed twice")
        entries[entry.id] = entry
    return entries


def parse_entry(record: Mapping[str, Any], project: Path) -> Entry:
    """Make an entry of one JSON record, completed from its card where it names one.

    Raises:
        ValueError: a key is missing, unknown or malformed.
    """
    values = dict(record)
    if unknown := set(values) - {f.name for f in fields(Entry)}:
        raise ValueError(f"{values.get('id')}: unknown keys {', '.join(sorted(unknown))}")
    values["low_precision"] = tuple(values.get("low_precision", ()))
    if "card" in values:
        values["card"] = project / values["card"]
        values |= _facts_of_card(values["card"])
    if values.get("set") == "embedded" and "file" in values:
        values["file"] = str(project / values["file"])
    try:
        return Entry(**values)
    except TypeError as error:  # a required field is missing; the message names it
        raise ValueError(f"{values.get('id')}: {error}") from None


def for_method(method: str, model_set: str) -> list[Entry]:
    """Models of one method in one set, the default first; [] if there is none."""
    return [e for e in catalogue().values() if (e.method, e.set) == (method, model_set)]


def _facts_of_card(path: Path) -> dict[str, Any]:
    """What a card says in the entry's place; {} before the model was trained."""
    if not path.is_file():
        return {}
    card = json.loads(path.read_text(encoding="utf-8"))
    return {key: card[key] for key in ("config", "sha256", "bytes", "license") if key in card}
