"""Limits and switches in one place; the only file that reads the environment.

Each field can be set by an environment variable: `SEGMENT_STUDIO_` and the field's name in
capitals, for instance `SEGMENT_STUDIO_PORT=8000`. Defaults are those of a public demo.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

PREFIX = "SEGMENT_STUDIO_"

_CHOICES = {
    "model_set": ("embedded", "full"),
    "precision": ("auto", "float32", "float16", "bfloat16"),
}
_SWITCH = {"1": True, "true": True, "yes": True, "on": True}
_SWITCH |= {"0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Settings:
    """Every limit of the suite, with the unit in the name or beside it.

    Raises:
        ValueError: a number is below one, or a choice is not among the allowed ones.
    """

    max_upload_bytes: int = 10 * 2**20
    max_side: int = 4096  # px, long side of an upload
    max_pixels: int = 25_000_000
    working_side: int = 1024  # px, long side of pictures as shown; results keep the original size

    max_points: int = 50
    max_boxes: int = 20
    max_queries: int = 100
    max_query_chars: int = 100
    max_new_tokens: int = 512  # of an answer in the chat

    max_test_images: int = 20  # pictures that one call looks for an object in
    max_test_pixels: int = 40_000_000  # of all of them together, as long as a visitor stays
    max_clip_frames: int = 120
    max_clip_bytes: int = 50 * 2**20

    model_set: str = "embedded"
    device: str = "auto"  # "auto", or what torch.device takes
    precision: str = "auto"
    embedding_cache_mib: int = 256
    model_memory_mib: int | None = None  # None: 70 % of what is free when the engine starts
    allow_download: bool = True  # of published weights, at first use

    host: str = "127.0.0.1"
    port: int = 7860
    queue_size: int = 20  # requests that may wait; the next one is refused
    session_seconds: int = 1800  # how long a visitor's pictures and files outlive the last use
    mcp_server: bool = False

    training_folder: str = "data/trainings"  # DreamBooth's trainings, and their class pictures
    training_days: int = 30  # how long an ended one is kept after its last use
    max_training_steps: int = 5000
    max_class_pictures: int = 1000
    # Each visitor finds his own learned subjects, by what his browser remembers. On a machine of
    # one person all of them may be listed to everybody.
    shared_subjects: bool = False

    sticker_folder: str = "data/stickers"  # where training and evaluation keep their sprites

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}."
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{field.name} is {value}; it must be at least 1.")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings that the environment gives; the others keep their defaults.

        Args:
            environ: variables by name, the process's own if None.

        Raises:
            ValueError: a variable cannot be read as its field's type; the message names it.
        """
        environ = os.environ if environ is None else environ
        hints = get_type_hints(cls)
        values = {
            field.name: _parse(PREFIX + field.name.upper(), raw, hints[field.name])
            for field in fields(cls)
            if (raw := environ.get(PREFIX + field.name.upper(), "").strip())
        }
        return cls(**values)


def _parse(name: str, raw: str, kind: Any) -> Any:
    if kind is str:
        return raw
    if kind is bool:
        if raw.lower() in _SWITCH:
            return _SWITCH[raw.lower()]
        raise ValueError(f"{name} is {raw!r}; it must be one of {', '.join(_SWITCH)}.")
    try:
        return int(raw)
    except ValueError:
        raise ValueError(f"{name} is {raw!r}; it must be a whole number.") from None


settings = Settings.from_environment()
