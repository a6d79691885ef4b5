"""What a visitor gives besides the picture: one type per kind of prompt, validated once, here.

Coordinates are pixels of the original upright picture, x then y, origin at the top left; `size`
is (H, W). Everything that arrives from a page or the API passes a `parse` and is then trusted.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import PromptError
from core.settings import Settings, settings

FOREGROUND, BACKGROUND = 1, 0

_MAX_JSON_CHARS = 100_000  # far above 50 points or 100 queries written out


@dataclass(frozen=True, eq=False)
class Points:
    """Clicks.

    Args:
        coords: float32 (N, 2) as (x, y), in [0, W - 1] × [0, H - 1].
        labels: int64 (N,), 1 foreground, 0 background.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def empty(cls) -> "Points":
        """No clicks."""
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))

    @classmethod
    def parse(
        cls, value: str | ArrayLike | None, size: tuple[int, int], limits: Settings = settings
    ) -> "Points":
        """Read [[x, y, label], …], given as JSON text, lists or an (N, 3) array.

        Points beyond the frame are moved onto its nearest pixel.

        Raises:
            PromptError: not rows of three finite numbers, a label other than 0 and 1, or more
                points than the limit.
        """
        rows = _rows(value, 3, "points", "[[x, y, label], …]")
        if len(rows) > limits.max_points:
            raise PromptError(
                f"There are {len(rows)} points; the limit is {limits.max_points}, "
                "so remove some or use a box."
            )
        wrong = rows[:, 2][~np.isin(rows[:, 2], (FOREGROUND, BACKGROUND))]
        if len(wrong):
            raise PromptError(
                f"A point has label {wrong[0]:g}; use 1 for foreground and 0 for background."
            )
        coords = np.clip(rows[:, :2], 0, (size[1] - 1, size[0] - 1))
        return cls(coords.astype(np.float32), rows[:, 2].astype(np.int64))


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes around objects, one instance each.

    Args:
        xyxy: float32 (M, 4) as x0, y0, x1, y1 with x0 < x1, y0 < y1, in [0, W] × [0, H].
    """

    xyxy: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> "Boxes":
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32))

    @classmethod
    def parse(
        cls, value: str | ArrayLike | None, size: tuple[int, int], limits: Settings = settings
    ) -> "Boxes":
        """Read [[x0, y0, x1, y1], …], given as JSON text, lists or an (M, 4) array.

        Opposite corners may come in any order; what is beyond the frame is cut off.

        Raises:
            PromptError: not rows of four finite numbers, less than 1 px² inside the picture, or
                more boxes than the limit.
        """
        rows = _rows(value, 4, "boxes", "[[x0, y0, x1, y1], …]")
        if len(rows) > limits.max_boxes:
            raise PromptError(
                f"There are {len(rows)} boxes; the limit is {limits.max_boxes}, so remove some."
            )
        height, width = size
        corners = np.sort(rows.reshape(-1, 2, 2), axis=1)  # (M, corner, x and y)
        corners = np.clip(corners, 0, (width, height))
        areas = np.prod(corners[:, 1] - corners[:, 0], axis=1)  # (M,)
        if len(areas) and areas.min() < 1:
            raise PromptError(
                f"Box {int(areas.argmin()) + 1} covers {areas.min():.2g} px² of the picture; "
                "drag it over at least one whole pixel."
            )
        return cls(corners.reshape(-1, 4).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Scribble:
    """A brush stroke.

    Args:
        mask: bool (H, W), True where painted, not empty.
    """

    mask: NDArray[np.bool_]

    @classmethod
    def parse(cls, value: ArrayLike | None, size: tuple[int, int]) -> "Scribble":
        """Read a painted layer: (H, W), or RGB(A) (H, W, C) with the stroke in its alpha.

        Raises:
            PromptError: nothing is painted.
        """
        return cls(_to_mask(value, size, "Nothing is painted; draw over the object first.")[0])

    def to_points(self, count: int = 8, label: int = FOREGROUND) -> Points:
        """Spread at most `count` points evenly along the middle of the stroke.

        Farthest-point sampling on the skeleton, starting at its middle.
        """
        from skimage.morphology import skeletonize

        ys, xs = np.nonzero(skeletonize(self.mask))
        line = np.stack([xs, ys], axis=1).astype(np.float32)  # (K, 2) as x, y
        start = int(np.argmin(((line - line.mean(axis=0)) ** 2).sum(axis=1)))
        coords = line[_farthest_first(line, start, count)]
        return Points(coords, np.full(len(coords), label, np.int64))


@dataclass(frozen=True)
class TextQueries:
    """Words or phrases to look for, in the visitor's order, each once."""

    queries: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def parse(cls, value: str | Sequence[str] | None, limits: Settings = settings) -> "TextQueries":
        """Read a list, its JSON text, or text with a comma or line break between queries.

        Any script is accepted. White space is collapsed, control characters and empty queries are
        dropped, and queries that differ in case only are merged.

        Raises:
            PromptError: nothing is left, a query is not text or too long, or there are too many.
        """
        queries: dict[str, str] = {}
        for text in _texts(value):
            query = " ".join("".join(c for c in text if _is_text(c)).split())
            if len(query) > limits.max_query_chars:
                raise PromptError(
                    f"The query '{query[:20]}…' has {len(query)} characters; "
                    f"the limit is {limits.max_query_chars}, so shorten it."
                )
            if query:
                queries.setdefault(unicodedata.normalize("NFKC", query).casefold(), query)
        if not queries:
            raise PromptError("There is no query; type at least one word to look for.")
        if len(queries) > limits.max_queries:
            raise PromptError(
                f"There are {len(queries)} queries; the limit is {limits.max_queries}, "
                "so remove some."
            )
        return cls(tuple(queries.values()))


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """A mask that somebody drew or uploaded.

    Args:
        mask: bool (H, W) at the picture's size, not empty.
        notices: what was changed on the way in, one sentence each.
    """

    mask: NDArray[np.bool_]
    notices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: ArrayLike | None, size: tuple[int, int]) -> "MaskPrompt":
        """Read a mask picture (H, W) or (H, W, C), resized to `size` by nearest neighbour.

        Bool, 0/1, 0/255 and coloured masks on black are taken: everything brighter than half of
        the brightest value is mask. If some of it is transparent, the alpha channel is the mask.

        Raises:
            PromptError: nothing in it is mask.
        """
        return cls(*_to_mask(value, size, "The mask is empty; paint the object first."))


def _rows(value: str | ArrayLike | None, columns: int, name: str, form: str) -> NDArray[np.float64]:
    """Read a table of finite numbers (N, columns) from JSON text, lists or an array."""
    if isinstance(value, str):
        value = _from_json(value, name, form) if value.strip() else None
    try:
        rows = np.asarray([] if value is None else value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise PromptError(f"The {name} cannot be read; write them as {form}.") from None
    if rows.size == 0:
        return np.zeros((0, columns))
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise PromptError(
            f"The {name} have shape {rows.shape}, not (N, {columns}); write them as {form}."
        )
    if not np.isfinite(rows).all():
        raise PromptError(f"The {name} contain a value that is not a finite number.")
    return rows


def _from_json(text: str, name: str, form: str) -> Any:
    if len(text) > _MAX_JSON_CHARS:
        raise PromptError(
            f"The {name} are {len(text)} characters long; the limit is {_MAX_JSON_CHARS}."
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PromptError(f"The {name} are not valid JSON; write them as {form}.") from None


def _texts(value: str | Sequence[str] | None) -> list[str]:
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            value = _from_json(value, "queries", '["dog", "red car"]')
        elif len(value) > _MAX_JSON_CHARS:
            raise PromptError(
                f"The queries are {len(value)} characters long; the limit is {_MAX_JSON_CHARS}."
            )
        else:
            value = value.replace("\n", ",").split(",")
    if not isinstance(value, list | tuple | None):
        raise PromptError("The queries cannot be read; write them as a list of words or phrases.")
    texts = list(value or ())
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise PromptError(f"A query is {wrong!r:.40}; each must be text.")
    return texts


def _is_text(character: str) -> bool:
    # White space is category Cc too where it breaks lines; joiners (Cf) belong to words and emoji.
    return character.isspace() or unicodedata.category(character) not in ("Cc", "Cs")


def _to_mask(
    value: ArrayLike | None, size: tuple[int, int], if_empty: str
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Read a mask picture as bool (H, W) at `size`, with a notice if it had another one."""
    layer = np.asarray([[]] if value is None else value)
    if layer.size == 0:
        raise PromptError(if_empty)
    if layer.ndim not in (2, 3) or layer.dtype.kind not in "buif":
        raise PromptError(
            f"A mask of type {layer.dtype} and shape {layer.shape} cannot be used; "
            "give a picture of shape (H, W)."
        )
    layer = np.nan_to_num(layer if layer.ndim == 2 else _mask_channel(layer))  # (H, W)
    mask = layer > max(layer.max() / 2, 0)
    notices: tuple[str, ...] = ()
    height, width = mask.shape
    if (height, width) != tuple(size):
        size_wh = size[1], size[0]
        mask = cv2.resize(mask.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST_EXACT)
        notices = (f"The mask was resized from {width}×{height} to {size[1]}×{size[0]} pixels.",)
    if not mask.any():
        raise PromptError(if_empty)
    return mask.astype(bool, copy=False), notices


def _mask_channel(layer: NDArray[Any]) -> NDArray[Any]:
    """Reduce (H, W, C) to the channel that carries the mask."""
    if layer.shape[2] in (2, 4):
        alpha = layer[:, :, -1]
        if alpha.min() < alpha.max() or alpha.max() == 0:
            return alpha
        layer = layer[:, :, :-1]
    return layer.max(axis=2)


def _farthest_first(points: NDArray[np.float32], start: int, count: int) -> list[int]:
    """Indices of points, each the one farthest from those before it; (K, 2) in, at most K out."""
    chosen = [start]
    distance = ((points - points[start]) ** 2).sum(axis=1)  # (K,)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return chosen
