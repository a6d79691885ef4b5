"""Contact sheets: degraded pictures in rows and columns, with their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.degradations.arrays import Picture

PAPER, INK = (255, 255, 255), (32, 32, 32)
_GAP = 6  # px


def draw_sheet(pictures: Sequence[Sequence[Picture]], titles: Sequence[Sequence[str]]) -> Picture:
    """Put equal pictures in rows and columns, each under its title; RGB uint8.

    Args:
        pictures: rows of RGB uint8 (H, W, 3), all of one size; a row may be short.
        titles: as many in the same rows; rows without any title take no room for them.
    """
    height, width = pictures[0][0].shape[:2]
    text_px = max(12, round(width / 13))
    bands = [round(1.5 * text_px) if any(row) else 0 for row in titles]
    columns = max(len(row) for row in pictures)
    sheet = Image.new(
        "RGB",
        (
            columns * (width + _GAP) + _GAP,
            sum(bands) + len(pictures) * (height + _GAP) + _GAP,
        ),
        PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for row, row_titles, band in zip(pictures, titles, bands, strict=True):
        for column, (picture, title) in enumerate(zip(row, row_titles, strict=True)):
            left = _GAP + column * (width + _GAP)
            _write(pen, title, (left, top + band / 2), width, text_px)
            sheet.paste(Image.fromarray(picture), (left, top + band))
        top += band + height + _GAP
    return np.asarray(sheet)


def _write(
    pen: ImageDraw.ImageDraw, text: str, left_middle: tuple[float, float], width: int, text_px: int
) -> None:
    """Write a line, in smaller letters if it would not fit."""
    font = ImageFont.load_default(text_px)
    if (length := font.getlength(text)) > width:
        font = ImageFont.load_default(text_px * width / length)
    pen.text(left_middle, text, INK, font, anchor="lm")
