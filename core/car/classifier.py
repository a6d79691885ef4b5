"""The mask classifier: pictures with a mask drawn on them against the words (CaR, section 3.3).

Letters: n live words, T templates, B background words, E embedding, S side of CLIP's square.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.car.cam import normalise_pixels
from core.car.config import CarConfig, Square
from core.clip.model import ClipModel
from core.clip.towers import encode_images

if TYPE_CHECKING:
    from core.engine.cancellation import CancelToken

# Of a picture of which only the middle square counts; enlarging the rest could fill the memory.
MAX_ASPECT = 16


@dataclass(frozen=True, eq=False)
class Scores:
    """How well each marked picture fits each word.

    Args:
        similarity: P, float32 (n, n), rows are marked pictures, columns words.
        template_means: (n,), each picture's own probability averaged over the templates: what a
            score means without the second softmax, whose range hangs on the number of words.
        presence: (n,), probability of the own word among it and the background words; None
            without that check.
    """

    similarity: NDArray[np.float32]
    template_means: NDArray[np.float32]
    presence: NDArray[np.float32] | None

    @property
    def own(self) -> NDArray[np.float32]:
        """Each marked picture's score for its own word, (n,)."""
        return np.diagonal(self.similarity)


def encode_pictures(
    classifier: ClipModel,
    pictures: Iterable[NDArray[np.uint8]],
    config: CarConfig,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Encode marked pictures, ``config.query_batch`` at once; unit vectors (n, E).

    Args:
        pictures: RGB uint8 (H, W, 3); drawn as they are asked for, so that few exist at once.
    """
    skip = config.skip_last_block
    if skip is None:
        skip = classifier.model_set == "full"
    features = []
    waiting = iter(pictures)
    while part := list(islice(waiting, config.query_batch)):
        if cancel is not None:
            cancel.raise_if_cancelled()
        squares = [to_square(one, classifier, config.square, config.square_side) for one in part]
        features.append(
            encode_images(
                classifier,
                normalise_pixels(classifier, np.stack(squares)),
                skip_last_block=skip,
                half_positions=config.published.half_positions,
            )
        )
    return torch.cat(features)


def to_square(
    image: NDArray[np.uint8], classifier: ClipModel, square: Square, side: int | None = None
) -> NDArray[np.uint8]:
    """Bring a picture into the classifier's square (S, S, 3), bicubic with antialiasing.

    Args:
        square: "centre_crop": the short side to S, then the middle of the long one, as CLIP's own
            preprocessing; "pad": the long side to S, the rest in CLIP's mean colour; "stretch".
        side: S; None: as the classifier was trained.
    """
    side = side or classifier.image_size
    if square == "stretch":
        return _resize(image, side, side)
    if square == "centre_crop":
        return _crop_to_square(image, side)
    return _pad_to_square(image, side, classifier.mean)


def score_pictures(
    features: Tensor, texts: Tensor, background: Tensor, scale: float, *, ensemble: bool = True
) -> Scores:
    """Compare marked pictures with the words.

    Args:
        features: (n, E); texts: (T, n, E); background: (B, E), all unit vectors.
        scale: factor of the cosines.
        ensemble: P = softmax of the sum of the templates' probabilities; else T is 1 and P its
            softmax itself (referring expressions).
    """
    words = torch.softmax(scale * features @ texts.transpose(1, 2), dim=-1)  # (T, n, n)
    similarity = torch.softmax(words.sum(dim=0), dim=-1) if ensemble else words[0]
    presence = None
    if len(background):
        own = scale * (features * texts[0]).sum(dim=-1, keepdim=True)  # (n, 1)
        rows = torch.cat([own, scale * features @ background.T], dim=1)  # (n, 1 + B)
        presence = torch.softmax(rows, dim=1)[:, 0].cpu().numpy()
    means = words.diagonal(dim1=1, dim2=2).mean(dim=0)
    return Scores(similarity.cpu().numpy(), means.cpu().numpy(), presence)


def _crop_to_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    image = _middle(image, MAX_ASPECT * min(image.shape[:2]))
    height, width = image.shape[:2]
    short = min(height, width)
    resized = _resize(image, side * height // short, side * width // short)
    top, left = (round((length - side) / 2) for length in resized.shape[:2])
    return resized[top : top + side, left : left + side]


def _pad_to_square(
    image: NDArray[np.uint8], side: int, mean: tuple[float, float, float]
) -> NDArray[np.uint8]:
    long = max(image.shape[:2])
    height, width = (max(1, round(side * length / long)) for length in image.shape[:2])
    square = np.full((side, side, 3), np.round(255 * np.array(mean)), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = _resize(image, height, width)
    return square


def _middle(image: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """Cut both sides to the middle ``most`` pixels."""
    top, left = (max(0, (length - most) // 2) for length in image.shape[:2])
    return image[top : top + most, left : left + most]


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
