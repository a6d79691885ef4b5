"""Frames of a clip in and out: decoded and encoded by PyAV, masks in DAVIS's layout."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ImageError

if TYPE_CHECKING:
    from av import VideoFrame

MIN_FRAMES = 2
# Demuxers of the kinds that are offered; others (ffconcat, playlists) open further files.
KINDS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
BIT_RATE = 4_000_000  # of overlay clips; enough for sharp outlines at 1280 px


@dataclass(frozen=True)
class ClipLimits:
    """What is taken of a clip; a public demo's."""

    max_bytes: int = 50 * 2**20
    max_frames: int = 300
    max_side: int = 1920  # px
    max_pixels: int = 200_000_000  # of all frames together


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames RGB uint8 (H, W, 3), all of one size, and how many of them make a second."""

    frames: tuple[NDArray[np.uint8], ...]
    frame_rate: float = 24.0

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.frames[0].shape[0], self.frames[0].shape[1]


def read_clip(source: Path | bytes, limits: ClipLimits | None = None) -> Clip:
    """Decode a clip, every frame of its first video track.

    Raises:
        ImageError: no video, damaged, or longer or larger than the limits.
    """
    import av

    limits = limits or ClipLimits()
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > limits.max_bytes:
        raise ImageError(
            f"The clip has {size / 2**20:.0f} MiB; the limit is {limits.max_bytes / 2**20:.0f}, "
            "so cut it or make it smaller."
        )
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        with av.open(file, "r", options={"format_whitelist": KINDS}) as container:
            if not container.streams.video:
                raise ImageError("The file holds no video: choose an MP4, MOV, WebM or GIF.")
            stream = container.streams.video[0]
            _check_side(stream.width, stream.height, limits)
            frames: list[NDArray[np.uint8]] = []
            for frame in container.decode(stream):
                if len(frames) == limits.max_frames:
                    raise ImageError(
                        f"The clip has more than {limits.max_frames} frames, the limit: cut it "
                        "to the part that matters."
                    )
                _check_side(frame.width, frame.height, limits)  # it may change on the way
                if (len(frames) + 1) * frame.width * frame.height > limits.max_pixels:
                    raise ImageError(
                        f"The clip's frames have more than {limits.max_pixels / 1e6:.0f} "
                        "megapixels together, the limit: cut it, or scale it down."
                    )
                frames.append(_upright(frame))
            rate = float(stream.average_rate or 24)
    except (av.FFmpegError, OSError) as error:
        raise ImageError(
            "The clip is damaged or of an unknown kind and cannot be decoded: "
            "use an MP4, MOV, WebM or GIF."
        ) from error
    if len(frames) < MIN_FRAMES:
        raise ImageError(f"The clip has {len(frames)} frames; {MIN_FRAMES} or more are needed.")
    if len({frame.shape for frame in frames}) > 1:
        raise ImageError("The clip's frames change their size: convert it to one size first.")
    return Clip(tuple(frames), rate)


def _check_side(width: int, height: int, limits: ClipLimits) -> None:
    if max(width, height) > limits.max_side:
        raise ImageError(
            f"The clip is {width}×{height} pixels; the limit is {limits.max_side} on the longer "
            "side, so scale it down first."
        )


def _upright(frame: VideoFrame) -> NDArray[np.uint8]:
    """A frame as RGB uint8 (H, W, 3), turned as its file says (phones film lying)."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def write_clip(path: Path, frames: Iterable[NDArray[np.uint8]], frame_rate: float) -> Path:
    """Encode RGB frames (H, W, 3) as H.264 in MP4; an odd last row or column is left out."""
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for frame in frames:
            height, width = (side - side % 2 for side in frame.shape[:2])  # H.264 wants even sides
            if stream is None:
                rate = Fraction(frame_rate).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate)
                stream.width, stream.height = width, height
                stream.pix_fmt = "yuv420p"
                stream.bit_rate = BIT_RATE
            pixels = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())
    return path


def write_davis(
    folder: Path, name: str, labels: Iterable[NDArray[np.uint8]], first: int = 0
) -> list[Path]:
    """Write label maps (H, W) as indexed PNGs: ``<folder>/<name>/00000.png`` and so on.

    Value k is object k in DAVIS's colours, 0 is background.
    """
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, label in enumerate(labels, start=first):
        picture = Image.fromarray(label)
        picture.putpalette(davis_palette())
        paths.append(target / f"{n:05d}.png")
        picture.save(paths[-1])
    return paths


def davis_palette() -> list[int]:
    """PASCAL VOC's and DAVIS's 256 colours: the bits of the number, spread over the channels."""
    colors = []
    for k in range(256):
        for channel in range(3):
            bits = ((k >> (3 * j + channel) & 1) << (7 - j) for j in range(8))
            colors.append(sum(bits))
    return colors
