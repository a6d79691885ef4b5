"""Hold the models of a process: load each once, keep them within a memory budget, share them.

A model is stateless to its callers, so any number of threads may use one at a time. What belongs
to a visitor (prompts, embeddings) never lives here, but for the embedding cache, whose keys are
content hashes.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.cache import EmbeddingCache
from core.engine.cancellation import CancelToken
from core.engine.device import (
    MIB,
    describe,
    free_memory_mib,
    lower_precision,
    pick_device,
    pick_precision,
    release_cached_memory,
)
from core.errors import ModelUnavailable, OutOfMemory
from core.models.catalogue import Entry, catalogue
from core.models.loading import Progress, locate, read_state_dict
from core.settings import Settings, settings

Builder = Callable[[Entry, dict[str, Tensor]], nn.Module]

SHARE_OF_FREE_MEMORY = 0.7  # the rest is for pictures, masks and everything else on the machine
WAIT_SECONDS = 60.0  # for other visitors' models to become idle
POLL_SECONDS = 0.2  # between looks at the cancel token while waiting

_log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """A loaded model, or the place kept for one that is being loaded (``module`` None)."""

    entry: Entry
    memory_mib: float
    module: nn.Module | None = None
    users: int = 0
    last_use: int = 0  # counts up over all models of the engine

    @property
    def is_idle(self) -> bool:
        return self.module is not None and self.users == 0


class Engine:
    """Models, device, precision and embedding cache of one process.

    Args:
        device, precision: "auto", or what ``core.engine.device`` takes; None: as in ``settings``.
        memory_budget_mib: bound of the expected memory of all loaded models; None: as in
            ``settings``, or 70 % of what is free now.
        models: catalogue to serve; None: the suite's.

    Raises:
        ModelUnavailable: the device or the precision cannot be had on this machine.
    """

    def __init__(
        self,
        device: str | None = None,
        precision: str | None = None,
        memory_budget_mib: float | None = None,
        settings: Settings = settings,
        models: Mapping[str, Entry] | None = None,
    ) -> None:
        self.device = pick_device(device or settings.device)
        self.precision = pick_precision(self.device, precision or settings.precision)
        self.memory_budget_mib: float = (
            memory_budget_mib
            or settings.model_memory_mib
            or SHARE_OF_FREE_MEMORY * free_memory_mib(self.device)
        )
        self.embeddings = EmbeddingCache(settings.embedding_cache_mib * MIB)
        self._allow_download = settings.allow_download
        self._models = catalogue() if models is None else models
        self._slots: dict[str, _Slot] = {}
        self._uses = itertools.count(1)
        self._changed = threading.Condition()  # guards _slots; told when a slot changes

    @contextmanager
    def model(
        self,
        model_id: str,
        cancel: CancelToken | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Any]:
        """Lend a model, loading it if need be; it is not evicted while the block runs.

        Args:
            cancel: looked at while waiting, downloading and between the stages of loading.
            progress: told of the stages of loading; not called for a loaded model.

        Yields:
            The builder's module on the engine's device, in eval mode. Do not change it.

        Raises:
            ModelUnavailable: unknown id, weights missing or damaged, larger than the budget, or
                others keep the memory for longer than a minute.
            OutOfMemory: the device could not hold it.
            Cancelled: on request.
        """
        slot = self._acquire(self.entry(model_id), cancel or CancelToken(), progress)
        try:
            yield slot.module
        finally:
            with self._changed:
                slot.users -= 1
                slot.last_use = next(self._uses)
                self._changed.notify_all()

    def entry(self, model_id: str) -> Entry:
        """Return a model's catalogue entry. Raises ModelUnavailable for an unknown id."""
        if model_id not in self._models:
            raise ModelUnavailable(
                f"There is no model {model_id!r}: choose one of {', '.join(self._models)}."
            )
        return self._models[model_id]

    def evict_idle(self) -> list[str]:
        """Unload all models that nobody uses and return their ids."""
        with self._changed:
            idle = [model_id for model_id, slot in self._slots.items() if slot.is_idle]
            for model_id in idle:
                del self._slots[model_id]
            self._changed.notify_all()
        self._collect()
        return idle

    @contextmanager
    def out_of_memory_guard(self) -> Iterator[None]:
        """Turn an out-of-memory error of the block into advice, after freeing what can be.

        Everything that nobody uses goes: cached embeddings, idle models, PyTorch's own cache.

        Raises:
            OutOfMemory: the block ran out of memory on the device or on the host.
        """
        failed = False
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _log.warning("out of memory on %s: %s", self.device, error)
            traceback.clear_frames(error.__traceback__)  # their locals hold the tensors
            failed = True
        if failed:  # outside of the handler, where the error holds nothing any more
            self.embeddings.clear()
            self.evict_idle()
            raise OutOfMemory(
                f"This needs more memory than is free on {describe(self.device)}: try a smaller "
                "picture, fewer points or boxes, or a smaller model; what was in use is free again."
            )

    def status(self) -> dict[str, Any]:
        """State for a health check: device, memory in MiB, loaded models, embedding cache."""
        with self._changed:
            models = [
                {
                    "id": model_id,
                    "state": "loading" if slot.module is None else "loaded",
                    "users": slot.users,
                    "memory_mib": round(slot.memory_mib),
                }
                for model_id, slot in self._slots.items()
            ]
            reserved = self._reserved_mib()
        return {
            "device": str(self.device),
            "device_name": describe(self.device),
            "precision": str(self.precision).removeprefix("torch."),
            "memory_budget_mib": round(self.memory_budget_mib),
            "memory_reserved_mib": round(reserved),
            "memory_free_mib": free_memory_mib(self.device),
            "models": models,
            "embeddings": asdict(self.embeddings.stats()),
        }

    def _acquire(self, entry: Entry, cancel: CancelToken, progress: Progress | None) -> _Slot:
        """Return the model's slot with one user more, loading it if this caller is the first."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self._changed:
            while True:
                cancel.raise_if_cancelled()
                slot = self._slots.get(entry.id)
                if slot is not None and slot.module is not None:
                    slot.users += 1
                    return slot
                if slot is None:
                    if self._make_room(entry):
                        slot = self._slots[entry.id] = _Slot(entry, entry.memory_mib)
                        break
                    if time.monotonic() > deadline:
                        raise ModelUnavailable(
                            f"{entry.title} has to wait for models that others are using: try "
                            "again in a minute, or use a smaller model."
                        )
                self._changed.wait(POLL_SECONDS)
        return self._fill(slot, cancel, progress)

    def _fill(self, slot: _Slot, cancel: CancelToken, progress: Progress | None) -> _Slot:
        """Load into a reserved slot; give the place up again if that fails."""
        try:
            module = self._load(slot.entry, cancel, progress)
        except BaseException:
            with self._changed:
                del self._slots[slot.entry.id]
                self._changed.notify_all()
            raise
        with self._changed:
            slot.module = module
            slot.memory_mib = max(slot.memory_mib, weights_mib(module))
            slot.users += 1
            self._changed.notify_all()
        return slot

    def _load(self, entry: Entry, cancel: CancelToken, progress: Progress | None) -> nn.Module:
        def report(fraction: float, message: str) -> None:
            cancel.raise_if_cancelled()
            if progress is not None:
                progress(fraction, message)

        start = time.perf_counter()
        path = locate(entry, allow_download=self._allow_download, progress=report)
        report(0.0, f"Reading {entry.title}")
        with self.out_of_memory_guard():
            # A model of many files is listed by its config.json; its builder reads them.
            whole = path.suffix != ".json"
            state_dict = read_state_dict(path, expected_sha256=entry.sha256) if whole else {}
            report(0.5, f"Building {entry.title}")
            module = resolve_builder(entry.builder)(entry, state_dict)
            if self.precision != torch.float32:
                for name in entry.low_precision:
                    lower_precision(module.get_submodule(name), self.precision, self.device)
            report(0.9, f"Moving {entry.title} to {describe(self.device)}")
            module = module.to(self.device)
        report(1.0, f"{entry.title} is ready")
        _log.info("loaded %s in %.1f s", entry.id, time.perf_counter() - start)
        return module

    def _make_room(self, entry: Entry) -> bool:
        """Unload idle models until the entry fits; False if it does not. The lock is held."""
        if entry.memory_mib > self.memory_budget_mib:
            raise ModelUnavailable(
                f"{entry.title} needs about {entry.memory_mib} MiB of memory and "
                f"{self.memory_budget_mib:.0f} MiB are set aside for models: choose a smaller "
                "model, or raise SEGMENT_STUDIO_MODEL_MEMORY_MIB."
            )
        if evicted := self._evict_for(entry):
            _log.info("unloaded %s to make room for %s", ", ".join(evicted), entry.id)
            self._collect()
        return self._fits(entry)

    def _evict_for(self, entry: Entry) -> list[str]:
        """Drop idle slots, least recently used first, while the entry does not fit."""
        idle = [model_id for model_id, slot in self._slots.items() if slot.is_idle]
        idle.sort(key=lambda model_id: self._slots[model_id].last_use)
        evicted = []
        while idle and not self._fits(entry):
            evicted.append(idle.pop(0))
            del self._slots[evicted[-1]]
        return evicted

    def _fits(self, entry: Entry) -> bool:
        return self._reserved_mib() + entry.memory_mib <= self.memory_budget_mib

    def _reserved_mib(self) -> float:
        return sum(slot.memory_mib for slot in self._slots.values())

    def _collect(self) -> None:
        gc.collect()
        release_cached_memory(self.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def resolve_builder(path: str) -> Builder:
    """Import the function that "package.module:function" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def weights_mib(module: nn.Module) -> float:
    """Memory of a module's parameters and buffers, MiB."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB


_engine: Engine | None = None
_engine_lock = threading.Lock()


def get_engine() -> Engine:
    """Return the process's engine, made from the settings at the first call."""
    global _engine
    with _engine_lock:
        if _engine is None:
            _engine = Engine()
        return _engine
