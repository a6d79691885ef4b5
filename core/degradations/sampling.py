"""Draws the parameters of one degradation from its row of `LEVELS`, and keeps what it drew."""

from __future__ import annotations

import zlib

import numpy as np

from core.degradations.arrays import Size
from core.degradations.geometry import Displacement
from core.degradations.levels import LEVELS, REFERENCE_SIDE, SMALLEST_SIDE

Drawn = dict[str, float | list[float]]


def generator(seed: int, name: str, step: int = 0) -> np.random.Generator:
    """Return the random numbers of a seed, a kind and its place in a chain; all are independent."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), step])


class Draw:
    """The random numbers of one degradation of one picture.

    Args:
        name: of the kind.
        severity: 1 to 5, None for the published ranges.
        size: the picture's (H, W), to which lengths are scaled at a severity.
        random: where everything comes from.
        swap_red_blue: what `compression` is to do.

    Attributes:
        displacement: set by a recipe that moves pixels.
    """

    def __init__(
        self,
        name: str,
        severity: int | None,
        size: Size,
        random: np.random.Generator,
        *,
        swap_red_blue: bool = False,
    ) -> None:
        self.size = size
        self.random = random
        self.published = severity is None
        side = REFERENCE_SIDE if self.published else max(*size, SMALLEST_SIDE)
        self.scale = side / REFERENCE_SIDE
        self.swap_red_blue = swap_red_blue
        self.displacement: Displacement | None = None
        self._choices = {key: row[severity or 0] for key, row in LEVELS[name].items()}
        self._values: dict[str, list[float]] = {}

    def number(self, parameter: str) -> float:
        """Draw a parameter; a length is in pixels of this picture."""
        choice = self._choices[parameter]
        value = choice if isinstance(choice, int | float) else choice.pick(self.random)
        if parameter.endswith("_px"):
            value *= self.scale
        elif parameter.endswith("_px2"):
            value *= self.scale**2
        return self.note(parameter, value)

    def whole(self, parameter: str) -> int:
        """Draw a parameter whose choices are whole numbers."""
        return int(self.number(parameter))

    def note(self, parameter: str, value: float) -> float:
        """Put a number that a recipe worked out on record, and return it."""
        self._values.setdefault(parameter, []).append(value)
        return value

    @property
    def drawn(self) -> Drawn:
        """All numbers by name as they were used; a list where there is one for each layer."""
        return {key: v[0] if len(v) == 1 else v for key, v in self._values.items()}
