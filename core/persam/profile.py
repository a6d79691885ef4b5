"""A personal object in one small file: its target features, mask weights, look and model.

A safetensors file: tensors and text, nothing that could be run. A checksum in it tells damage and
careless editing from the real thing; it is no protection against somebody who means to forge one,
so everything is also checked for shape and range.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from core.errors import PromptError
from core.persam.scale import ScaleWeights
from core.persam.target import Reference, Target

if TYPE_CHECKING:
    from core.models.catalogue import Entry

FORMAT = "segment-studio.persam-profile"
VERSION = "1"
THUMBNAIL_SIDE = 96  # px, the longer one
MAX_FILE_BYTES = 2**20
MAX_CHANNELS = 4096
MAX_REFERENCES = 20
MAX_NAME_CHARS = 100
WEIGHT_LIMIT = 100.0  # fitted weights stay within about 2

_NOT_ONE = "This is no PerSAM profile: choose a .safetensors file that was saved here."
_DAMAGED = "The profile is damaged or was changed after it was saved: save it again."


@dataclass(frozen=True, eq=False)
class Profile:
    """What is needed to find one object again.

    Args:
        name: as the visitor calls it.
        model_id, model_sha256: the model that its features belong to; "" for an unknown checksum.
        target: pooled features of one or more references.
        scale_weights: PerSAM-F's, if they were learned.
        thumbnail: RGB uint8 (h, w, 3) of the object, the rest greyed.
    """

    name: str
    model_id: str
    model_sha256: str
    target: Target
    scale_weights: ScaleWeights | None
    thumbnail: NDArray[np.uint8]

    def check_model(self, entry: Entry) -> None:
        """Make sure that the profile belongs to a model. Raises PromptError if it does not."""
        if self.model_id != entry.id:
            raise PromptError(
                f"The profile '{self.name}' was made with the model {self.model_id}, not with "
                f"{entry.id}: switch to that model, or make the profile again with this one."
            )
        if self.model_sha256 != (entry.sha256 or ""):
            raise PromptError(
                f"The profile '{self.name}' was made with other weights of {entry.title}: make it "
                "again with the present ones."
            )

    def to_bytes(self) -> bytes:
        """Write the profile as a safetensors file."""
        tensors = {
            "means": self.target.means.contiguous(),
            "maxima": self.target.maxima.contiguous(),
            "thumbnail": torch.from_numpy(np.ascontiguousarray(self.thumbnail)),
        }
        if self.scale_weights is not None:
            tensors["scale_weights"] = torch.tensor([self.scale_weights.w1, self.scale_weights.w2])
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name[:MAX_NAME_CHARS],
            "model_id": self.model_id,
            "model_sha256": self.model_sha256,
        }
        return save(tensors, {**facts, "checksum": _checksum(facts, tensors)})

    def save(self, path: Path) -> Path:
        """Write the profile to a file."""
        path.write_bytes(self.to_bytes())
        return path

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Read a profile.

        Raises:
            PromptError: it is none, too large, of another version, or was changed.
        """
        if len(data) > MAX_FILE_BYTES:
            raise PromptError(
                f"The profile has {len(data)} bytes; the limit is {MAX_FILE_BYTES}, so it is none "
                "that was saved here."
            )
        facts = _read_facts(data)
        try:
            tensors = load(data)
        except Exception as error:  # the parser raises several kinds on damaged files
            raise PromptError(_DAMAGED) from error
        checksum = facts.pop("checksum", "")
        if checksum != _checksum(facts, tensors) or not _is_sound(tensors):
            raise PromptError(_DAMAGED)
        weights = tensors.get("scale_weights")
        return cls(
            name=facts["name"][:MAX_NAME_CHARS],
            model_id=facts["model_id"],
            model_sha256=facts["model_sha256"],
            target=Target(tensors["means"], tensors["maxima"]),
            scale_weights=None if weights is None else ScaleWeights(*weights.tolist()),
            thumbnail=tensors["thumbnail"].numpy(),
        )

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile from a file. Raises PromptError as ``from_bytes`` does."""
        if path.stat().st_size > MAX_FILE_BYTES:  # before it is in memory
            raise PromptError(
                f"The profile has {path.stat().st_size} bytes; the limit is {MAX_FILE_BYTES}."
            )
        return cls.from_bytes(path.read_bytes())


def draw_thumbnail(reference: Reference) -> NDArray[np.uint8]:
    """Show an object with some margin, its surroundings paled: RGB uint8 (h, w, 3)."""
    ys, xs = np.nonzero(reference.mask)
    margin = max(2, int(0.1 * max(np.ptp(ys), np.ptp(xs))))
    rows = slice(max(0, ys.min() - margin), ys.max() + margin + 1)
    columns = slice(max(0, xs.min() - margin), xs.max() + margin + 1)
    image, mask = reference.image[rows, columns], reference.mask[rows, columns]
    pale = np.where(mask[..., None], image, 160 + image // 4).astype(np.uint8)
    scale = THUMBNAIL_SIDE / max(mask.shape)
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    return np.asarray(cv2.resize(pale, size, interpolation=cv2.INTER_AREA), np.uint8)


def _read_facts(data: bytes) -> dict[str, str]:
    """The text of a safetensors header. Raises PromptError if it is not a profile's."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        facts: Any = json.loads(data[8 : 8 + length])["__metadata__"]
        if facts["format"] != FORMAT:
            raise KeyError("format")
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PromptError(_NOT_ONE) from error
    if facts.get("version") != VERSION:
        raise PromptError(
            f"The profile has version {facts.get('version')!r:.20}; this program reads {VERSION}: "
            "make the profile again."
        )
    if not {"name", "model_id", "model_sha256"} <= facts.keys():
        raise PromptError(_DAMAGED)
    return {key: str(value) for key, value in facts.items()}


def _checksum(facts: dict[str, str], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _is_sound(tensors: dict[str, Tensor]) -> bool:
    """Whether a profile's tensors have the shapes and ranges of one."""
    if not {"means", "maxima", "thumbnail"} <= tensors.keys():
        return False
    means, maxima, thumbnail = tensors["means"], tensors["maxima"], tensors["thumbnail"]
    weights = tensors.get("scale_weights", torch.zeros(2))
    vectors = means.dtype == maxima.dtype == weights.dtype == torch.float32
    return bool(
        vectors
        and means.ndim == 2
        and means.shape == maxima.shape
        and 1 <= len(means) <= MAX_REFERENCES
        and 1 <= means.shape[1] <= MAX_CHANNELS
        and means.isfinite().all()
        and maxima.isfinite().all()
        and (means.norm(dim=1) > 0).all()
        and weights.shape == (2,)
        and weights.isfinite().all()
        and weights.abs().max() <= WEIGHT_LIMIT
        and thumbnail.dtype == torch.uint8
        and thumbnail.ndim == 3
        and thumbnail.shape[2] == 3
        and 1 <= min(thumbnail.shape[:2])
        and max(thumbnail.shape[:2]) <= THUMBNAIL_SIDE
    )
