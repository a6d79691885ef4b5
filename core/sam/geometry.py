"""The frames of SAM: the original picture, its resized copy, and the padded square around that.

Everything that crosses from one to another passes here: pixels, coordinates, logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Geometry:
    """How one picture lies in a model's square input.

    Args:
        image_size: side S of the model's input, px.
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
        height, width = (int(side * scale + 0.5) for side in original_size)
        return cls(image_size, (height, width), original_size)

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize (H, W, 3) to (h, w, 3) as segment_anything does: Pillow, bilinear, antialiased."""
        height, width = self.input_size
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.array(resized)

    def to_input(self, coords: NDArray) -> NDArray[np.float32]:
        """Bring (..., 2) points as x, y from the original picture to the model's input."""
        scale = [new / old for new, old in zip(self.input_size, self.original_size, strict=True)]
        # float32 because Apple's GPU has no float64.
        return (np.asarray(coords, np.float64) * scale[::-1]).astype(np.float32)

    def upscale(self, low_res_logits: Tensor) -> Tensor:
        """Bring (B, M, 4g, 4g) logits to (B, M, H, W).

        In two steps, with the padding cut off between them: Sam.postprocess_masks.
        """
        square = (self.image_size, self.image_size)
        logits = F.interpolate(low_res_logits, square, mode="bilinear", align_corners=False)
        logits = logits[..., : self.input_size[0], : self.input_size[1]]
        return F.interpolate(logits, self.original_size, mode="bilinear", align_corners=False)

    def to_low_res(self, mask: NDArray[np.bool_], side: int, strength: float = 8.0) -> Tensor:
        """Write a mask (H, W) as low-res logits (1, side, side): +/- strength, padding below.

        The other way round than ``upscale``; a drawn mask becomes a mask prompt by it.
        """
        height, width = (max(1, round(s * side / self.image_size)) for s in self.input_size)
        coverage = torch.from_numpy(mask).float()[None, None]
        coverage = F.interpolate(coverage, (height, width), mode="area")[0]  # (1, h', w')
        logits = (coverage * 2 - 1) * strength
        return F.pad(logits, (0, side - width, 0, side - height), value=-strength)
