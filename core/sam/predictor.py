"""A SAM predictor without state: an embedding goes in with a prompt, masks come out.

What segment_anything's SamPredictor computes, safe to share between threads and visitors:
embeddings belong to the caller or to a cache keyed by the picture's content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from core.errors import ImageError, PromptError
from core.images import content_hash
from core.sam.batches import in_batches
from core.sam.decoding import Transformer, decode_masks
from core.sam.fast_decoder import decode_prompts
from core.sam.geometry import Geometry
from core.sam.regions import upscaler_for

if TYPE_CHECKING:
    from core.engine.cache import EmbeddingCache

# Low-res pixels of all prompts in one decoder call, by device: more overflows a CPU's caches and
# fewer leave a GPU idle. On a CPU 32 prompts of the 256 px model and 2 of a 1024 px one.
DECODER_PIXELS = {"cpu": 2**17, "mps": 2**20, "cuda": 2**22}
POINT_LABELS = (-1, 0, 1)  # padding, background, foreground


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What the encoder saw in one picture.

    Args:
        features: float32 (1, C, g, g) on the model's device. Shared: do not change it.
        geometry: the picture's place in the model's input.
        image_hash: content hash of the picture.
        model_id: the model that made it.
    """

    features: Tensor
    geometry: Geometry
    image_hash: str
    model_id: str

    @property
    def input_size(self) -> tuple[int, int]:
        return self.geometry.input_size

    @property
    def original_size(self) -> tuple[int, int]:
        return self.geometry.original_size

    @property
    def nbytes(self) -> int:
        return self.features.numel() * self.features.element_size()


@dataclass(frozen=True, eq=False)
class Prediction:
    """Masks of B prompts at the decoder's resolution; brought to the picture's when asked for.

    Args:
        low_res_logits: float32 (B, M, 4g, 4g), M 3 for multimask output, else 1.
        iou_predictions: float32 (B, M), the model's own estimate, not bounded to [0, 1].
        geometry: the picture's place in the model's input.
    """

    low_res_logits: Tensor
    iou_predictions: Tensor
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.iou_predictions)

    def mask_logits(self) -> Tensor:
        """Logits (B, M, H, W) at the original size."""
        return self.geometry.upscale(self.low_res_logits)

    def masks(self, threshold: float = 0.0) -> NDArray[np.bool_]:
        """Masks (B, M, H, W) at the original size, where the logits exceed the threshold."""
        low_res = self.low_res_logits.flatten(0, 1)
        upscaler = upscaler_for(self.geometry, low_res.shape[-1], low_res.device)
        masks = upscaler.masks(low_res, threshold)
        return masks.reshape(*self.iou_predictions.shape, *masks.shape[1:])

    def best(self) -> NDArray[np.intp]:
        """Index (B,) of each prompt's mask of the highest predicted IoU."""
        return self.iou_predictions.argmax(dim=1).cpu().numpy()

    def select(self, indices: ArrayLike) -> Prediction:
        """Keep one mask of each prompt: indices (B,) -> a prediction with M = 1."""
        rows = torch.arange(len(self))
        columns = torch.as_tensor(np.asarray(indices))
        logits = self.low_res_logits[rows, columns][:, None]
        return Prediction(logits, self.iou_predictions[rows, columns][:, None], self.geometry)


class Predictor:
    """Encode pictures and predict masks with one SAM; holds nothing of a request.

    Args:
        sam: in eval mode, on its device.
        model_id: goes into cache keys and embeddings.
        cache: keeps embeddings between calls, if given.
        batch_size: prompts per decoder call; None: by device and resolution.
    """

    def __init__(
        self,
        sam: Sam,
        *,
        model_id: str = "sam",
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.sam = sam
        self.model_id = model_id
        self.cache = cache
        self.image_size: int = sam.image_encoder.img_size
        self.low_res_side: int = 4 * sam.prompt_encoder.image_embedding_size[0]
        pixels = DECODER_PIXELS.get(self.device.type, DECODER_PIXELS["cpu"])
        self.batch_size = batch_size or max(1, pixels // self.low_res_side**2)

    @property
    def device(self) -> torch.device:
        return self.sam.pixel_mean.device

    @property
    def multimask(self) -> bool:
        """Whether three masks of one prompt mean something."""
        return True

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an RGB picture (H, W, 3), or fetch its embedding from the cache.

        Raises:
            ImageError: not uint8 of shape (H, W, 3).
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f"A picture of type {image.dtype} and shape {image.shape} cannot be encoded: "
                "it has to be uint8 RGB of shape (H, W, 3)."
            )
        image_hash = content_hash(image)
        if self.cache is None:
            return self._encode(image, image_hash)
        dtype = str(next(self.sam.image_encoder.parameters()).dtype)
        key = (type(self).__name__, self.model_id, dtype, image_hash)
        return self.cache.get_or_compute(key, lambda: self._encode(image, image_hash))

    @torch.no_grad()
    def _encode(self, image: NDArray[np.uint8], image_hash: str) -> ImageEmbedding:
        geometry = Geometry.of((image.shape[0], image.shape[1]), self.image_size)
        features = self.sam.image_encoder(self._pixels(image, geometry)).float()
        return ImageEmbedding(features, geometry, image_hash, self.model_id)

    def _pixels(self, image: NDArray[np.uint8], geometry: Geometry) -> Tensor:
        """The encoder's input (1, 3, S, S): resized, normalised, padded."""
        pixels = torch.from_numpy(geometry.resize(image)).to(self.device)
        return self.sam.preprocess(pixels.permute(2, 0, 1).float())[None]

    def predict(
        self,
        embedding: ImageEmbedding,
        *,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | Tensor | None = None,
        multimask_output: bool = True,
        transformer: Transformer | None = None,
    ) -> Prediction:
        """Predict the masks of one prompt.

        Args:
            point_coords: (N, 2) as x, y in pixels of the original picture.
            point_labels: (N,), 1 foreground, 0 background.
            box: (4,) as x0, y0, x1, y1 in pixels of the original picture.
            mask_input: (1, 4g, 4g) logits, such as those of a former prediction.
            multimask_output: three masks; recommended for a single point.
            transformer: in place of the decoder's own, in this call only.

        Returns:
            A prediction with B = 1.

        Raises:
            PromptError: no prompt at all, or one of another shape.
        """
        return self.predict_batch(
            embedding,
            point_coords=_batched(point_coords),
            point_labels=_batched(point_labels),
            boxes=_batched(box),
            mask_input=_batched(mask_input),
            multimask_output=multimask_output,
            transformer=transformer,
        )

    @torch.no_grad()
    def predict_batch(
        self,
        embedding: ImageEmbedding,
        *,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | Tensor | None = None,
        multimask_output: bool = True,
        transformer: Transformer | None = None,
    ) -> Prediction:
        """Predict the masks of B prompts, a batch of them at a time.

        After an out-of-memory error it goes on with half the batch.

        Args:
            point_coords: (B, N, 2) in pixels of the original picture.
            point_labels: (B, N), 1 foreground, 0 background, -1 to pad fewer points.
            boxes: (B, 4) in pixels of the original picture.
            mask_input: (B, 1, 4g, 4g) logits.
            multimask_output, transformer: as in ``predict``.

        Raises:
            PromptError: no prompt at all, or one of another shape.
        """
        prompts = self._prepare(embedding.geometry, point_coords, point_labels, boxes, mask_input)

        def decode(rows: slice) -> tuple[Tensor, Tensor]:
            sparse, dense = self._encode_prompts(prompts, rows)
            return self._decode(embedding, sparse, dense, multimask_output, transformer)

        parts = list(in_batches(decode, prompts.count, self.batch_size, self.device))
        logits, iou = (torch.cat(part) for part in zip(*parts, strict=True))
        return Prediction(logits.float(), iou.float(), embedding.geometry)

    def _decode(
        self,
        embedding: ImageEmbedding,
        sparse: Tensor,
        dense: Tensor,
        multimask_output: bool,
        transformer: Transformer | None,
    ) -> tuple[Tensor, Tensor]:
        """Masks of embedded prompts: low_res_logits (B, M, 4g, 4g), iou_predictions (B, M)."""
        image_pe = self.sam.prompt_encoder.get_dense_pe()
        if transformer is None:
            return decode_prompts(
                self.sam.mask_decoder,
                image_embedding=embedding.features,
                image_pe=image_pe,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask_output,
            )
        logits, iou = decode_masks(
            self.sam.mask_decoder,
            image_embeddings=embedding.features.expand(len(sparse), -1, -1, -1),
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            transformer=transformer,
        )
        chosen = slice(1, None) if multimask_output else slice(1)
        return logits[:, chosen], iou[:, chosen]

    def _prepare(
        self,
        geometry: Geometry,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        boxes: ArrayLike | None,
        mask_input: ArrayLike | Tensor | None,
    ) -> _Prompts:
        """Check shapes, bring coordinates into the input frame and all onto the device."""
        if point_coords is None and boxes is None and mask_input is None:
            raise PromptError("There is no prompt: give at least one point, box or mask.")
        if (point_coords is None) != (point_labels is None):
            raise PromptError("Points need labels: give a 1 (foreground) or 0 for each point.")
        coords, labels, corners, logits = None, None, None, None
        if point_coords is not None and point_labels is not None:
            array = np.asarray(point_labels)
            coords = self._tensor(geometry.to_input(_shaped(point_coords, "points", (None, 2))))
            labels = self._tensor(_shaped(array, "point labels", (coords.shape[1],)))
            if not np.isin(array, POINT_LABELS).all():
                raise PromptError(f"Point labels are {array.tolist()}; use 1 and 0 only.")
        if boxes is not None:
            array = _shaped(boxes, "boxes", (4,)).reshape(-1, 2, 2)
            corners = self._tensor(geometry.to_input(array)).view(-1, 4)
        if mask_input is not None:
            side = self.low_res_side
            logits = self._tensor(_shaped(mask_input, "mask input", (1, side, side)))
        counts = {len(part) for part in (coords, labels, corners, logits) if part is not None}
        if len(counts) != 1 or 0 in counts:
            raise PromptError(f"The parts of the prompts have {sorted(counts)} rows; give as many.")
        return _Prompts(coords, labels, corners, logits)

    def _tensor(self, values: NDArray | Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def _encode_prompts(self, prompts: _Prompts, rows: slice) -> tuple[Tensor, Tensor]:
        """Embed some prompts: sparse (B, N, C), dense (B, C, g, g), or (1, C, g, g) for all."""
        points = None
        if prompts.coords is not None and prompts.labels is not None:
            points = prompts.coords[rows], prompts.labels[rows]
        boxes = None if prompts.boxes is None else prompts.boxes[rows]
        masks = None if prompts.masks is None else prompts.masks[rows]
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        return sparse, dense[:1] if masks is None else dense


@dataclass(frozen=True, eq=False)
class _Prompts:
    """B prompts in the input frame on the device; each part (B, ...) or None."""

    coords: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None

    @property
    def count(self) -> int:
        return next(len(part) for part in (self.coords, self.boxes, self.masks) if part is not None)


def _batched(value: ArrayLike | Tensor | None) -> NDArray | Tensor | None:
    if value is None or isinstance(value, Tensor):
        return None if value is None else value[None]
    return np.asarray(value)[None]


def _shaped(value: ArrayLike | Tensor, name: str, shape: tuple[int | None, ...]) -> Any:
    """Return an array or tensor of shape (B, *shape), None for any size; else PromptError."""
    array = value if isinstance(value, Tensor) else np.asarray(value)
    fits = array.ndim == 1 + len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if side is None else str(side) for side in shape)
        raise PromptError(
            f"The {name} have shape {tuple(array.shape)}; this model takes (B, {wanted})."
        )
    return array
