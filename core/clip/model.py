"""A CLIP as the methods are given it: open_clip's module, its tokenizer and its normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from core.errors import ModelUnavailable
from core.models.catalogue import ModelSet

# Strings to token ids int64 (N, T): open_clip's tokenizers, or any other.
Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True, eq=False)
class ClipModel:
    """One CLIP with everything that belongs to it; holds nothing of a visitor.

    Args:
        clip: open_clip's module in eval mode; its weights may be in half precision.
        tokenize: texts to token ids (N, T), T the text tower's context length.
        id: of the catalogue.
        model_set: whose weights: "full" are published ones.
        mean, std: of the pixels in [0, 1], as the image tower was trained.

    Raises:
        ModelUnavailable: the image tower is not a plain vision transformer of two or more blocks.
    """

    clip: CLIP
    tokenize: Tokenizer
    id: str = "clip"
    model_set: ModelSet = "embedded"
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD

    def __post_init__(self) -> None:
        visual = self.clip.visual
        blocks = visual.transformer.resblocks if isinstance(visual, VisionTransformer) else []
        plain = all(type(block) is ResidualAttentionBlock for block in blocks)
        if len(blocks) < 2 or not plain or not visual.transformer.batch_first:
            raise ModelUnavailable(
                f"The image tower of {self.id} is {type(visual).__name__}: text queries need a "
                "plain vision transformer with at least two blocks, such as ViT-B-16."
            )

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        return self.clip.visual

    @property
    def patch_size(self) -> int:
        """Side of a patch, px."""
        return self.visual.patch_size[0]

    @property
    def image_size(self) -> int:
        """Side of the square pictures it was trained on, px."""
        return self.visual.image_size[0]

    @property
    def device(self) -> torch.device:
        return self.visual.conv1.weight.device

    @property
    def scale(self) -> float:
        """Factor of the cosines before a softmax, exp(logit_scale)."""
        return float(self.clip.logit_scale.detach().float().exp())

    def image_precision(self) -> AbstractContextManager[None]:
        """Compute in the precision of the image tower's weights; nothing to do for float32."""
        return _precision_of(self.device, self.visual.parameters())

    def text_precision(self) -> AbstractContextManager[None]:
        """The same for the text tower, which may differ."""
        named = self.clip.named_parameters()
        return _precision_of(
            self.device, (weight for name, weight in named if not name.startswith("visual."))
        )


def _precision_of(device: torch.device, weights: Iterable[Tensor]) -> AbstractContextManager[None]:
    low = {torch.float16, torch.bfloat16}
    dtype = next((weight.dtype for weight in weights if weight.dtype in low), None)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
