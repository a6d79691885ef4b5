"""Uploaded masks: grey, coloured, transparent or indexed pictures of where an object is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from core.errors import PromptError
from core.images import FORMATS, load
from core.prompts import MaskPrompt

VOID = 255  # an indexed mask's value for "neither", as in DAVIS and PASCAL VOC


def read_mask(path: str, size: tuple[int, int]) -> MaskPrompt:
    """Read a mask for a picture of a size (H, W); what is not black, or not transparent, is mask.

    That is what is brighter than half of the brightest value, except in an indexed picture,
    whose colours are exact.

    Raises:
        ImageError: no readable picture.
        PromptError: nothing in it is mask.
    """
    image = load(path).image  # checks the file and its size before anything else opens it
    with Image.open(path, formats=FORMATS) as picture:
        if picture.has_transparency_data:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
            if alpha.shape == image.shape[:2]:  # not of a picture that was turned
                return MaskPrompt.parse(np.dstack([image, alpha]), size)
        if picture.mode == "P":
            return MaskPrompt.parse(image.any(axis=2), size)
    return MaskPrompt.parse(image, size)


def read_objects(path: str, size: tuple[int, int], most: int) -> dict[int, MaskPrompt]:
    """Read the masks of one or more objects; value k of an indexed PNG is object k.

    Any other picture is the mask of object 1.

    Args:
        most: how many objects there may be.

    Raises:
        ImageError: no readable picture.
        PromptError: no object in it, or too many.
    """
    load(path)
    with Image.open(path, formats=FORMATS) as picture:
        if picture.format != "PNG" or picture.mode != "P":
            return {1: read_mask(path, size)}
        labels = np.asarray(picture)
    numbers = [int(k) for k in np.unique(labels) if k not in (0, VOID)]
    if not numbers:
        return {1: read_mask(path, size)}
    if len(numbers) > most:
        raise PromptError(f"The mask has {len(numbers)} objects; the limit is {most}.")
    return {k: MaskPrompt.parse(labels == k, size) for k in numbers}
