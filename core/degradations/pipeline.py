"""Degrade a picture by one kind or by several in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.degradations.arrays import Picture, check_image
from core.degradations.compression import PUBLISHED_QUALITY, compression
from core.degradations.geometry import Displacement
from core.degradations.kinds import KINDS, find_kind
from core.degradations.levels import SEVERITIES
from core.degradations.sampling import Draw, generator
from core.errors import PromptError
from core.masks import Mask

Step = tuple[str, int | None]  # name, severity

# What comes together in the world: by name, the steps in the order in which light meets them.
COMBINATIONS: Mapping[str, tuple[Step, ...]] = {
    "rain at night": (("rain", 4), ("brightness", 4), ("gauss_noise", 2)),
    "snow in fog": (("fog", 3), ("snow", 2)),
    "blurred and compressed": (("motion_blur", 3), ("compression", 3)),
    "handheld in the dark": (("brightness", 4), ("motion_blur", 3), ("ISO_noise", 2)),
    "old video call": (("resampling_blur", 4), ("color_jitter", 2), ("compression", 4)),
}


@dataclass(frozen=True, eq=False)
class Degraded:
    """A degraded picture, and how it came about.

    Args:
        image: RGB uint8 (H, W, 3), as large as the clear one.
        parameters: for reports, plain JSON: name, severity, seed and the drawn numbers of one
            kind; of a chain its seed and its "steps".
        displacements: of the steps that moved pixels, in their order; mostly none.
    """

    image: Picture
    parameters: dict[str, Any]
    displacements: tuple[Displacement, ...] = ()

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Parameters of every kind in its turn; of one alone its own."""
        return self.parameters.get("steps", [self.parameters])

    @property
    def moves_pixels(self) -> bool:
        """Whether a mask of the clear picture no longer fits exactly."""
        return bool(self.displacements)

    def displace_mask(self, mask: Mask) -> Mask:
        """Move a mask (H, W) of the clear picture along with the pixels.

        The published code, and so every published number, leaves masks where they are: keep the
        mask as it is for those. Unmoved pictures return the same array.

        Raises:
            ImageError: the mask has another size than the picture.
        """
        for displacement in self.displacements:
            mask = displacement.move_mask(mask)
        return mask


def degrade(
    image: Picture,
    name: str,
    *,
    severity: int | None = 3,
    seed: int = 0,
    published_jpeg: bool = False,
    swap_red_blue: bool = False,
) -> Degraded:
    """Degrade a picture by one kind.

    The same arguments give the same bytes. Another kind with the same seed is independent.

    Args:
        image: RGB uint8 (H, W, 3) of any size.
        name: one of `KINDS`.
        severity: 1 mild, 3 about as published, 5 harsh; lengths scale with the picture. None:
            the published ranges, lengths in raw pixels (`LEVELS`).
        seed: 0 or more.
        published_jpeg: save the result as JPEG of quality 95 at last, as the published data set
            does with every picture.
        swap_red_blue: compress with red and blue swapped, as published (`compression`).

    Raises:
        ImageError: not such a picture.
        PromptError: no such name, severity or seed.
    """
    image = check_image(image)
    step = find_kind(name).name, _check_severity(severity)
    degraded = _degrade_once(image, step, _check_seed(seed), 0, swap_red_blue)
    return _saved(degraded) if published_jpeg else degraded


def degrade_chain(
    image: Picture,
    steps: Sequence[Step],
    *,
    seed: int = 0,
    published_jpeg: bool = False,
    swap_red_blue: bool = False,
) -> Degraded:
    """Degrade a picture by several kinds one after the other, for instance a `COMBINATIONS` entry.

    Args:
        steps: (name, severity) each; none at all leaves the picture as it is.

    The other arguments and errors are those of `degrade`.
    """
    image, seed = check_image(image), _check_seed(seed)
    steps = [(find_kind(name).name, _check_severity(severity)) for name, severity in steps]
    done: list[Degraded] = []
    for index, step in enumerate(steps):
        done.append(_degrade_once(image, step, seed, index, swap_red_blue))
        image = done[-1].image
    chain = Degraded(
        image if done else image.copy(),
        {"name": "chain", "seed": seed, "steps": [step.parameters for step in done]},
        tuple(displacement for step in done for displacement in step.displacements),
    )
    return _saved(chain) if published_jpeg else chain


def _degrade_once(
    image: Picture, step: Step, seed: int, index: int, swap_red_blue: bool
) -> Degraded:
    name, severity = step
    draw = Draw(
        name,
        severity,
        (image.shape[0], image.shape[1]),
        generator(seed, name, index),
        swap_red_blue=swap_red_blue,
    )
    degraded = KINDS[name].recipe(image, draw)
    if np.may_share_memory(degraded, image):
        degraded = degraded.copy()  # the caller's picture is never handed out
    parameters = {"name": name, "severity": severity, "seed": seed, "drawn": draw.drawn}
    moved = () if draw.displacement is None else (draw.displacement,)
    return Degraded(degraded, parameters, moved)


def _saved(degraded: Degraded) -> Degraded:
    """Pass the picture through the published script's last step, a JPEG file."""
    return Degraded(
        compression(degraded.image, PUBLISHED_QUALITY),
        {**degraded.parameters, "jpeg_quality": PUBLISHED_QUALITY},
        degraded.displacements,
    )


def _check_severity(severity: int | None) -> int | None:
    if severity is None:
        return None
    if severity not in SEVERITIES:
        raise PromptError(
            f"Severity {severity!r} does not exist; give 1 (mild) to 5 (harsh), or None for the "
            "published ranges."
        )
    return int(severity)


def _check_seed(seed: int) -> int:
    if seed < 0:
        raise PromptError(f"The seed is {seed}; give a whole number of 0 or more.")
    return int(seed)
