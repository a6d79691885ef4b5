"""From an upload to an upright RGB picture, or to a sentence that says what is wrong with it.

The type is decided by decoding, never by the file's name, and sizes are checked on the header
before any pixel is decoded. Arrays are RGB uint8 (H, W, 3) with values in [0, 255].
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError
from core.settings import Settings, settings

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_WANTED = "use a JPEG, PNG, WebP, BMP, TIFF or GIF"

_EXIF_ORIENTATION = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A picture that every method can work on.

    Args:
        image: RGB uint8 (H, W, 3), upright.
        stem: the upload's file name without folder and ending, as given (not safe as a path).
        notices: what was changed on the way in, one sentence each.
    """

    image: NDArray[np.uint8]
    stem: str = "image"
    notices: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.image.shape[0], self.image.shape[1]


def load(source: str | Path | bytes | BinaryIO, *, limits: Settings = settings) -> LoadedImage:
    """Read an uploaded file as an upright RGB picture.

    Turned by EXIF; transparency composited on white; palette, grey, 16-bit (scaled, not clipped)
    and CMYK converted; of an animation or a file of several pages the first picture.

    Args:
        source: a path, the file's bytes, or a file opened for reading bytes.
        limits: byte, side and pixel limits.

    Raises:
        ImageError: missing, empty, not one of the accepted formats, damaged, or over a limit.
    """
    data, stem = _read(source, limits.max_upload_bytes)
    picture = _open(data, limits)
    _check_size(*picture.size, limits)
    try:
        notices = _notices_on_frames(picture)
        # The first frame: asking an animation for its length may have moved on.
        picture.seek(0)
        picture.load()
        picture = _upright(picture)
        image, more = _to_rgb(picture)
    except Exception as error:
        # Visitors' bytes: whatever a decoder raises on them means a damaged file.
        raise ImageError(
            "The picture is damaged or cut off and cannot be decoded; "
            "save or download it again and retry."
        ) from error
    return LoadedImage(image, stem, (*notices, *more))


def from_array(
    array: NDArray[Any], *, stem: str = "image", limits: Settings = settings
) -> LoadedImage:
    """Make an array an RGB uint8 picture.

    Args:
        array: (H, W), or (H, W, C) with C 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. bool, uint8,
            uint16 (scaled by 1/257), or numbers in [0, 1] or [0, 255]; other ranges are stretched
            from their least to their greatest value, with a notice.

    Raises:
        ImageError: another shape or type, no pixels, or over a limit.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3):
        raise ImageError(
            f"An array of type {array.dtype} and shape {array.shape} is not a picture; "
            "give numbers of shape (H, W) or (H, W, 1 to 4)."
        )
    if array.ndim == 2:
        array = array[:, :, None]  # (H, W, 1)
    if array.shape[2] not in (1, 2, 3, 4):
        raise ImageError(
            f"A picture has 1 to 4 channels, not {array.shape[2]}; give shape (H, W, 1 to 4)."
        )
    _check_size(array.shape[1], array.shape[0], limits)

    pixels, stretched = _to_uint8(array)
    colour, alpha = pixels, None
    if pixels.shape[2] in (2, 4):
        colour, alpha = pixels[:, :, :-1], pixels[:, :, -1]
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)  # (H, W, 3)
    image, composited = _on_white(colour, alpha)
    return LoadedImage(image, stem, (*stretched, *composited))


def content_hash(image: NDArray[np.uint8]) -> str:
    """Return 32 hex digits that differ whenever size or pixels differ.

    Half of a SHA-256, which current processors compute faster than anything else in hashlib.
    """
    digest = hashlib.sha256(repr((image.shape, image.dtype.str)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


def fit_within(image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Scale a picture down, averaging pixels, so that its longer side is at most `long_side`.

    Args:
        image: uint8 (H, W) or (H, W, C).

    Returns:
        The same array if it already fits, never an enlarged one.
    """
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return image
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _read(source: str | Path | bytes | BinaryIO, max_bytes: int) -> tuple[bytes, str]:
    """Return the source's bytes and its name's stem; at most one byte over the limit is read."""
    if isinstance(source, bytes | bytearray | memoryview):
        data, stem = bytes(source), "image"
    elif isinstance(source, str | Path):
        stem = Path(source).stem
        try:
            with open(source, "rb") as file:
                data = file.read(max_bytes + 1)
        except (OSError, ValueError) as error:
            raise ImageError("The picture's file cannot be opened; upload it again.") from error
    else:
        name = getattr(source, "name", None)
        stem = Path(name).stem if isinstance(name, str) else "image"
        data = source.read(max_bytes + 1)
    if not data:
        raise ImageError("The file is empty (0 bytes); choose another picture.")
    if len(data) > max_bytes:
        raise ImageError(
            f"The file is larger than the limit of {max_bytes / 2**20:.3g} MB; "
            "save it smaller or as JPEG."
        )
    return data, stem or "image"


def _open(data: bytes, limits: Settings) -> Image.Image:
    """Read the header only."""
    if b"<svg" in data[:4096].lower():
        raise ImageError(f"SVG drawings are not accepted; {_WANTED}.")
    try:
        with warnings.catch_warnings():
            # Pillow's own warning is below our limit's refusal, which follows at once.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(
            "The picture has far more pixels than the limit of "
            f"{limits.max_pixels / 1e6:.3g} megapixels; scale it down first."
        ) from error
    except Exception as error:
        # Visitors' bytes: Pillow's header parsers raise many types on files made to break them.
        raise ImageError(f"The file is not a picture that can be read; {_WANTED}.") from error


def _check_size(width: int, height: int, limits: Settings) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"The picture has no pixels ({width}×{height}); choose another one.")
    if max(width, height) > limits.max_side:
        raise ImageError(
            f"The picture is {width}×{height} pixels; the limit is {limits.max_side} on the "
            "longer side, so scale it down first."
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            f"The picture is {width}×{height} pixels, {width * height / 1e6:.1f} megapixels; "
            f"the limit is {limits.max_pixels / 1e6:.3g} megapixels, so scale it down first."
        )


def _notices_on_frames(picture: Image.Image) -> tuple[str, ...]:
    # MPO, a phone's JPEG with a depth map or a second view behind it, counts as one picture.
    if picture.format == "MPO" or not getattr(picture, "is_animated", False):
        return ()
    if picture.format == "TIFF":
        return ("The file has several pages; the first one is used.",)
    return ("The picture is animated; its first frame is used.",)


def _upright(picture: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also rewrites the EXIF block and fails on odd ones.
    try:
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return picture
    turn = _TO_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _to_rgb(picture: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Convert any Pillow mode to RGB uint8 (H, W, 3)."""
    if picture.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(picture)
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"))  # (H, W, 4)
        return _on_white(rgba[:, :, :3], rgba[:, :, 3])
    return np.array(picture.convert("RGB")), ()


def _deep_grey_to_rgb(picture: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Scale one channel of 16-bit, 32-bit or float values; Pillow's own convert() clips them."""
    values = np.asarray(picture)  # (H, W)
    if picture.mode.startswith("I;16"):
        values = values.astype(np.uint16)
    grey, stretched = _to_uint8(values)
    transparent = picture.info.get("transparency")
    alpha = None
    if isinstance(transparent, int):
        alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    image, composited = _on_white(np.repeat(grey[:, :, None], 3, axis=2), alpha)
    return image, (*stretched, *composited)


def _to_uint8(values: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Bring numbers of any type to [0, 255]; says so if they had to be stretched."""
    if values.dtype == np.uint8:
        return np.array(values), ()
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255), ()
    if values.dtype == np.uint16:
        # 65535 = 255 · 257
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8), ()
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if values.dtype.kind == "f" and 0 <= low and high <= 1:
        return np.rint(numbers * 255).astype(np.uint8), ()
    if 0 <= low and high <= 255:
        return np.rint(numbers).astype(np.uint8), ()
    numbers = (numbers - low) / max(high - low, np.finfo(np.float64).tiny)
    notice = f"Values from {low:.4g} to {high:.4g} were stretched to black and white."
    return np.rint(numbers * 255).astype(np.uint8), (notice,)


def _on_white(
    colour: NDArray[np.uint8], alpha: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Composite (H, W, 3) with alpha (H, W) in [0, 255], not premultiplied, on white."""
    if alpha is None or alpha.min() == 255:
        return np.ascontiguousarray(colour), ()
    weight = alpha[:, :, None].astype(np.uint32)
    blended = (colour * weight + 255 * (255 - weight) + 127) // 255
    return blended.astype(np.uint8), ("Transparent parts were put on white.",)
