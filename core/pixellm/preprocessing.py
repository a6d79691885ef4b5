"""From a picture to the model's square input, and which of its patches lie on the picture.

The longest side becomes S, the rest of the square is zero after normalisation; patches on it are
masked in the image tower and in the language model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from core.errors import ImageError
from core.pixellm.config import PixelLMConfig


@dataclass(frozen=True)
class Geometry:
    """How one picture lies in the square input.

    Args:
        image_size: side S of the input, px.
        input_size: (h, w) of the resized picture, its longest side S.
        original_size: (H, W).
    """

    image_size: int
    input_size: tuple[int, int]
    original_size: tuple[int, int]

    @classmethod
    def of(cls, original_size: tuple[int, int], image_size: int) -> Geometry:
        """Resize the longest side to S, enlarging small pictures; halves round up."""
        scale = image_size / max(original_size)
        # At least a pixel: a strip of 1 x 4000 px would vanish.
        height, width = (max(1, int(side * scale + 0.5)) for side in original_size)
        return cls(image_size, (height, width), original_size)

    def patch_mask(self, patch_size: int) -> Tensor:
        """Which patches start on the picture, bool (g, g).

        A patch counts by its top left pixel: nearest interpolation in the published code.
        """
        start = torch.arange(0, self.image_size, patch_size)
        height, width = self.input_size
        return (start < height)[:, None] & (start < width)[None, :]


def preprocess(image: NDArray[np.uint8], config: PixelLMConfig) -> tuple[Tensor, Geometry]:
    """Resize, normalise and pad a picture.

    Args:
        image: RGB uint8 (H, W, 3).

    Returns:
        pixels float32 (1, 3, S, S) and the geometry.

    Raises:
        ImageError: no RGB picture.
    """
    check_image(image)
    geometry = Geometry.of((image.shape[0], image.shape[1]), config.vision.image_size)
    height, width = geometry.input_size
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(resized, np.float32)  # (h, w, 3)
    mean, std = (np.array(v, np.float32) for v in (config.pixel_mean, config.pixel_std))
    pixels = torch.from_numpy((values - mean) / std).permute(2, 0, 1)
    size = geometry.image_size
    return F.pad(pixels, (0, size - width, 0, size - height))[None], geometry


def llm_image_mask(patch_mask: Tensor) -> Tensor:
    """Which image tokens the language model may look at, bool (..., g/2, g/2) of (..., g, g).

    Of each 2 x 2 patches the first decides.
    """
    return patch_mask[..., ::2, ::2]


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ImageError if this is no RGB picture."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise ImageError(
            f"A picture of type {dtype} and shape {shape} cannot be used: upload an RGB picture "
            "(H, W, 3) with values from 0 to 255."
        )
