"""The endpoints about the server itself: its models, and whether it is well."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import gradio as gr

from apps.suite import models
from core.models.catalogue import catalogue
from core.models.presets import EverythingConfig


def add_service(page: gr.Blocks) -> None:
    """Add the endpoints that need no model to the page that is being built."""
    gr.api(list_models, api_name="list_models", concurrency_limit=4)

    def health() -> dict:
        """Say whether the server is well: versions, device, loaded models, waiting requests."""
        return {"status": "ok", "queue": len(page._queue), **_health()}

    gr.api(health, api_name="health", concurrency_limit=4)


def list_models() -> dict:
    """List the models: id, set, title, licence, size, and whether the weights are here."""
    return {
        "models": [
            {
                "id": entry.id,
                "method": entry.method,
                "set": entry.set,
                "title": entry.title,
                "note": entry.note,
                "license": entry.license,
                "source": entry.source,
                "bytes": entry.bytes,
                "memory_mib": entry.memory_mib,
                "present": models.is_here(entry.id),
                "everything": asdict(EverythingConfig.of_set(entry.set)),
            }
            for entry in catalogue().values()
        ]
    }


def _health() -> dict[str, Any]:
    from core.engine import get_engine

    packages = ("gradio", "torch", "numpy", "pillow")
    return {
        "versions": {name: version(name) for name in packages},
        "models_present": [entry.id for entry in catalogue().values() if models.is_here(entry.id)],
        "engine": get_engine().status(),
    }
