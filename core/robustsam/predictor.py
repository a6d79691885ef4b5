"""A predictor of RobustSAM's masks, with the contract of SAM's.

Whatever takes a ``Predictor`` (everything mode, proposals, edges) works on the robust path by
this one. Its embedding serves SAM's own path, too, so that a comparison encodes a picture once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from core.errors import PromptError
from core.robustsam.decoder import RobustMaskDecoder
from core.sam.decoding import Transformer
from core.sam.geometry import Geometry
from core.sam.predictor import ImageEmbedding, Predictor


@dataclass(frozen=True, eq=False)
class RobustEmbedding(ImageEmbedding):
    """An image embedding with what the robust path adds to every mask feature of the picture.

    Args:
        image_features: float32 (1, D/8, 4g, 4g): AMFG of the early and of the final embedding.
    """

    image_features: Tensor

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.image_features.numel() * self.image_features.element_size()


class RobustPredictor(Predictor):
    """Predict masks by the robust path of a SAM that has one (``build_robust_sam``).

    With the published weights only the single mask was trained: three masks come from tokens
    without a loss, at the predicted IoU that SAM's frozen head gives them.

    Args:
        resize: "pillow", as SAM's predictor does, so that both models see the same pixels;
            "tensor", as the published demo does (antialiased, bilinear, in floating point).
        others: as Predictor takes them.
    """

    def __init__(
        self, sam: Sam, *, resize: Literal["pillow", "tensor"] = "pillow", **others: Any
    ) -> None:
        super().__init__(sam, **others)
        self.resize = resize

    @property
    def decoder(self) -> RobustMaskDecoder:
        return self.sam.mask_decoder

    @property
    def multimask(self) -> bool:
        return self.decoder.multimask

    @torch.no_grad()
    def _encode(self, image: NDArray[np.uint8], image_hash: str) -> RobustEmbedding:
        geometry = Geometry.of((image.shape[0], image.shape[1]), self.image_size)
        pixels = self._pixels(image, geometry)
        features, early = self.sam.image_encoder.forward_features(pixels)
        features = features.float()
        robust = self.decoder.image_features(early.float(), features)
        return RobustEmbedding(features, geometry, image_hash, self.model_id, robust)

    def _pixels(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        if self.resize == "pillow":
            return super()._pixels(image, geometry)
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None].float()
        pixels = F.interpolate(
            pixels, geometry.input_size, mode="bilinear", align_corners=False, antialias=True
        )
        return self.sam.preprocess(pixels)

    def _decode(
        self,
        embedding: ImageEmbedding,
        sparse: Tensor,
        dense: Tensor,
        multimask_output: bool,
        transformer: Transformer | None,
    ) -> tuple[Tensor, Tensor]:
        if not isinstance(embedding, RobustEmbedding):
            raise PromptError("This embedding is of another model: encode the picture again.")
        if transformer is not None:
            raise PromptError("The robust path takes no other transformer than its own.")
        return self.decoder.decode_robust_prompts(
            image_embedding=embedding.features,
            image_features=embedding.image_features,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
