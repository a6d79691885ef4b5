"""Pictures of the DreamBooth tab: the frame, cards with masks, samples, before and after."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from apps.suite.dreambooth.session import DreamBoothSession, Item
from core.exports import picture_png
from core.images import fit_within
from core.overlays import draw

if TYPE_CHECKING:
    from core.dreambooth.serving import Pair

CARD_SIDE = 240  # px
SAMPLE_SIDE = 192
PAIR_SIDE = 360
JPEG_QUALITY = 84


def draw_card(item: Item) -> str:
    """Draw a picture small, with the mask that would be used, as an address."""
    subject = item.subject
    small = fit_within(subject.image, CARD_SIDE)
    if subject.mask is None or subject.decision in ("whole", "exclude") or not subject.mask.any():
        return jpeg_address(small)
    height, width = small.shape[:2]
    grey = subject.mask.astype(np.uint8) * np.uint8(255)
    mask = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA) > 127
    return jpeg_address(draw(small, mask[None], ids=[1], opacity=0.5, numbers=False)[:, :, :3])


def cards(session: DreamBoothSession) -> list[str]:
    """Addresses of all pictures' cards; those that did not change are not drawn again."""
    addresses = []
    for item in session.items:
        known, address = session.thumbnails.get(id(item), (None, ""))
        if known is not item.subject:
            address = draw_card(item)
            session.thumbnails[id(item)] = (item.subject, address)
        addresses.append(address)
    return addresses


@lru_cache(maxsize=512)
def sample_address(path: Path) -> str:
    """A sample picture small, as an address; "" if it is gone."""
    try:
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
    except OSError:
        return ""
    return jpeg_address(fit_within(image, SAMPLE_SIDE))


def pair_addresses(pair: Pair) -> tuple[str | None, str]:
    """Both pictures of a pair, before (if there is one) and after, as addresses."""
    before = None if pair.before is None else jpeg_address(fit_within(pair.before, PAIR_SIDE))
    return before, jpeg_address(fit_within(pair.after, PAIR_SIDE))


def write_gallery(session: DreamBoothSession) -> list[tuple[str, str]]:
    """(path, caption) of everything that was drawn with the subject, the newest first."""
    for gone in [pair for pair in session.files if pair not in session.pairs]:
        Path(session.files.pop(gone)).unlink(missing_ok=True)
    for pair in session.pairs:
        if pair not in session.files:
            path = session.new_file(".png")
            path.write_bytes(picture_png(pair.after))
            session.files[pair] = str(path)
    return [
        (session.files[pair], f"{pair.prompt} · seed {pair.seed}")
        for pair in reversed(session.pairs)
    ]


def jpeg_address(image: NDArray[np.uint8]) -> str:
    """Encode a small picture RGB uint8 (h, w, 3) as an address that needs no request."""
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
