"""Find a model's weights, download them if that is allowed, and read them safely.

Published files are kept where other programs keep them too: in the Hugging Face cache when they
come from a hub repository, in PyTorch's hub folder when they come from the publisher's own
address. Nothing that a file contains is ever run: safetensors, or ``torch.load`` restricted to
tensors.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import ModelUnavailable, SuiteError
from core.models.catalogue import Entry

# Called with the finished fraction in [0, 1] and a sentence; may raise to stop the download.
Progress = Callable[[float, str], None]

CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30

WRAPPERS = ("state_dict", "model")  # names that checkpoints of a training have for the weights

_log = logging.getLogger(__name__)


def locate(entry: Entry, *, allow_download: bool, progress: Progress | None = None) -> Path:
    """Return the path of a model's weights on this machine, downloading them if need be.

    Args:
        allow_download: whether published weights that are missing may be fetched.
        progress: told of the download; what it raises stops the download and passes through.

    Raises:
        ModelUnavailable: the weights are not here and cannot be, or may not be, downloaded.
    """
    if path := find_local(entry):
        return path
    if entry.set == "embedded":
        raise ModelUnavailable(
            f"The weights of {entry.title} ({entry.file_name}) are missing from this copy of the "
            f"project: restore assets/models, or make them with `{entry.source}`."
        )
    if not allow_download or _hub_is_offline():
        raise ModelUnavailable(
            f"{_what(entry)} is not on this machine and downloads are switched off: "
            f"{_what_to_do(entry)}."
        )
    return _download(entry, progress or (lambda fraction, message: None))


def find_local(entry: Entry) -> Path | None:
    """Return the path of weights that are on this machine already, else None."""
    if entry.set == "embedded":
        return path if (path := Path(entry.file)).is_file() else None
    if entry.repo:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(entry.repo, entry.file, revision=entry.revision)
        if isinstance(cached, str):
            return Path(cached)
    return path if (path := _hub_folder() / entry.file_name).is_file() else None


def read_state_dict(path: Path, *, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors file or a PyTorch checkpoint, onto the CPU.

    What training scripts put around them is taken off: the rest of a checkpoint beside its
    "state_dict" or "model", and the "module." that data-parallel training puts before each name.

    Raises:
        ModelUnavailable: the file is missing, has another checksum, is damaged, or holds
            anything besides named tensors (such as code); the message names it.
    """
    if not path.is_file():
        raise ModelUnavailable(f"The weights file {path.name} is missing: restore or download it.")
    if expected_sha256 and (digest := file_sha256(path)) != expected_sha256:
        raise ModelUnavailable(
            f"The weights file {path.name} is not the expected one (its SHA-256 begins with "
            f"{digest[:12]}, not {expected_sha256[:12]}), so it was not used: delete it and get "
            "it again."
        )
    try:
        state_dict = _unwrap(_read_tensors(path))
    except Exception as error:  # a damaged file makes the parsers raise nearly anything
        raise ModelUnavailable(
            f"The weights file {path.name} is damaged or holds more than tensors, so it was not "
            "used: delete it and get it again."
        ) from error
    if not _is_state_dict(state_dict):
        raise ModelUnavailable(
            f"The weights file {path.name} is no plain list of named tensors, so it was not used: "
            "get the published file."
        )
    return state_dict


def load_weights(module: nn.Module, state_dict: dict[str, Tensor], *, name: str) -> None:
    """Copy a state dict into a module; every name and shape has to agree.

    Args:
        name: the model as the error message should call it.

    Raises:
        ModelUnavailable: keys are missing, unexpected or of another shape; nothing was loaded.
    """
    own = module.state_dict()
    both = own.keys() & state_dict.keys()
    shapes = {key: (tuple(own[key].shape), tuple(state_dict[key].shape)) for key in sorted(both)}
    problems = [
        _some(own.keys() - both, "missing"),
        _some(state_dict.keys() - both, "unexpected"),
        _some(
            (f"{key} {got} for {want}" for key, (want, got) in shapes.items() if want != got),
            "of another shape",
        ),
    ]
    if any(problems):
        raise ModelUnavailable(
            f"The weights do not fit {name}: {'; '.join(filter(None, problems))}. "
            "Get the file that belongs to this model."
        )
    module.load_state_dict(state_dict)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    # Mapping keeps ViT-H's 2.4 GB from being in memory twice while they are copied.
    return torch.load(
        path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None
    )


def _unwrap(value: Any) -> Any:
    """Take off what training scripts put around a state dict; anything else stays as it is."""
    if isinstance(value, dict):
        value = next((value[key] for key in WRAPPERS if _is_state_dict(value.get(key))), value)
    if not _is_state_dict(value):
        return value
    return {name.removeprefix("module."): tensor for name, tensor in value.items()}


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items()
    )


def _some(items: Iterable[str], problem: str, limit: int = 3) -> str:
    """'2 missing (a, b)', naming at most ``limit`` items; '' if there are none."""
    names = sorted(items)
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {problem} ({', '.join(names[:limit])}{more})"


def _download(entry: Entry, progress: Progress) -> Path:
    """Fetch from the hub repository, else from the publisher's address."""
    sources = [
        (entry.repo, _download_from_hub),
        (entry.url, _download_from_url),
    ]
    reason = ""
    for address, fetch in sources:
        if address is None:
            continue
        try:
            return fetch(entry, _reporter(entry, progress))
        except SuiteError:
            raise
        except Exception as error:  # those of httpx, hf_xet, urllib and the file system
            _log.warning("download of %s from %s failed", entry.id, address, exc_info=True)
            reason = getattr(error, "strerror", None) or type(error).__name__
    raise ModelUnavailable(
        f"{_what(entry)} could not be downloaded ({reason}): check the network and try again, or "
        f"{_what_to_do(entry)}."
    )


def _download_from_hub(entry: Entry, report: Callable[[int], None]) -> Path:
    """Into the Hugging Face cache; the checksum is verified when the file is read."""
    import huggingface_hub

    return Path(
        huggingface_hub.hf_hub_download(
            str(entry.repo), entry.file, revision=entry.revision, tqdm_class=_bar_class(report)
        )
    )


def _download_from_url(entry: Entry, report: Callable[[int], None]) -> Path:
    """Into PyTorch's hub folder; the file appears there only when whole and verified."""
    target = _hub_folder() / entry.file_name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        digest = _copy_from_url(str(entry.url), partial, report)
        if entry.sha256 and digest != entry.sha256:
            raise ModelUnavailable(
                f"What was downloaded as {entry.file_name} is not the published file (its SHA-256 "
                f"begins with {digest[:12]}, not {entry.sha256[:12]}): try again later, or "
                f"{_what_to_do(entry)}."
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _copy_from_url(url: str, path: Path, report: Callable[[int], None]) -> str:
    """Write what ``url`` serves to ``path`` and return its SHA-256."""
    sha256 = hashlib.sha256()
    done = 0
    with urlopen(url, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as file:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            sha256.update(chunk)
            done += len(chunk)
            report(done)
    return sha256.hexdigest()


def _reporter(entry: Entry, progress: Progress) -> Callable[[int], None]:
    """Turn finished bytes into a fraction that only grows: the hub counts in two bars."""
    highest = 0.0

    def report(done: int) -> None:
        nonlocal highest
        highest = max(highest, min(done / entry.bytes, 1.0) if entry.bytes else 0.0)
        progress(highest, f"Downloading {_what(entry)}")

    report(0)
    return report


def _bar_class(report: Callable[[int], None]) -> type:
    """A progress bar class that reports instead of drawing, as hf_hub_download takes it."""
    from tqdm import tqdm

    class ReportingBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0  # a disabled tqdm does not count
            report(int(self.n))

    return ReportingBar


def _hub_is_offline() -> bool:
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _what(entry: Entry) -> str:
    """'SAM ViT-B (sam_vit_b_01ec64.pth, 375 MB)'."""
    size = f", {entry.bytes / 1e6:.0f} MB" if entry.bytes else ""
    return f"{entry.title} ({entry.file_name}{size})"


def _what_to_do(entry: Entry) -> str:
    if entry.file_name == "config.json":  # a model of many files
        return f"use the embedded models, or bring {entry.repo} into the Hugging Face cache"
    return (
        f"use the embedded models, or put {entry.file_name} into the folder `checkpoints` of "
        "PyTorch's hub cache"
    )
