"""Pictures of results: fills, outlines, numbers, points, boxes, heat maps. No model code.

Colours follow the instance: number k has `palette(k)` in every picture, table and file. Sizes
scale with the picture, so that a result reads the same on a phone, a page and a projector.
"""

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from core.masks import farthest_point, mask_to_box
from core.results import Segmentation

RGB = tuple[int, int, int]
Picture = NDArray[np.uint8]
Background = Literal["image", "grey", "blur", "black", "transparent"]
BACKGROUNDS: tuple[Background, ...] = ("image", "grey", "blur", "black", "transparent")

# Okabe and Ito's colours (Wong, Nature Methods 2011), ordered so that neighbours are far apart:
# blue, orange, bluish green, vermillion, reddish purple, sky blue, yellow.
OKABE_ITO: tuple[RGB, ...] = (
    (0x00, 0x72, 0xB2),
    (0xE6, 0x9F, 0x00),
    (0x00, 0x9E, 0x73),
    (0xD5, 0x5E, 0x00),
    (0xCC, 0x79, 0xA7),
    (0x56, 0xB4, 0xE9),
    (0xF0, 0xE4, 0x42),
)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
FOREGROUND_COLOR, BACKGROUND_COLOR = OKABE_ITO[0], OKABE_ITO[3]

_GOLDEN_ANGLE = 137.5  # degrees of hue from one further colour to the next
_LOW_CONTRAST = 2.0  # WCAG ratio of outline to picture under which a halo is drawn
_SUPERSAMPLING = 4
_SUBPIXEL_BITS = 3  # cv2's fixed-point coordinates


class _Layout(NamedTuple):
    """Sizes in pixels for a picture of a given long side."""

    line: int
    text: int

    @classmethod
    def of(cls, image: Picture) -> "_Layout":
        long_side = max(image.shape[:2])
        return cls(line=max(2, round(long_side / 500)), text=max(12, round(long_side / 45)))


def palette(k: int) -> RGB:
    """Return the colour of number k, from 1; beyond seven, hues by the golden angle."""
    if k <= len(OKABE_ITO):
        return OKABE_ITO[max(k, 1) - 1]
    step = k - len(OKABE_ITO)
    hue = (202 + _GOLDEN_ANGLE * step) % 360  # 202°: the hue of the first colour
    lightness = 0.40 if step % 2 else 0.70
    red, green, blue = colorsys.hls_to_rgb(hue / 360, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def hex_color(k: int) -> str:
    """Return the colour of number k as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*palette(k))


def contrast(a: RGB, b: RGB) -> float:
    """WCAG 2 contrast ratio of two colours, 1 to 21."""
    low, high = sorted(float(_luminance(np.array(color, np.uint8))) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


def text_color(rgb: RGB) -> RGB:
    """Return black or white, whichever reads better on the colour."""
    return WHITE if contrast(rgb, WHITE) > contrast(rgb, BLACK) else BLACK


def draw(
    image: Picture,
    masks: NDArray[np.bool_],
    *,
    ids: Sequence[int] | None = None,
    colors: Sequence[RGB] | None = None,
    opacity: float = 0.45,
    outline: bool = True,
    numbers: bool = True,
    background: Background = "image",
) -> Picture:
    """Draw instances over their picture, large ones first.

    Where masks overlap the smallest is seen, unmixed, so that each colour is the legend's.

    Args:
        image: RGB uint8 (H, W, 3).
        masks: bool (N, H, W).
        ids: N numbers to write on the masks; 1 to N if not given.
        colors: N colours; those of the ids if not given.
        opacity: of the fill, 0 to 1.
        background: what becomes of the pixels outside all masks.

    Returns:
        RGB uint8 (H, W, 3); RGBA (H, W, 4) for the transparent background.
    """
    ids = range(1, len(masks) + 1) if ids is None else ids
    colors = [palette(k) for k in ids] if colors is None else colors
    order = sorted(range(len(masks)), key=lambda i: -np.count_nonzero(masks[i]))
    layers = _stack(masks, order)
    covered = (layers > 0).view(np.uint8)

    canvas = _with_background(image, covered, background)
    if opacity > 0 and len(masks):
        lookup = np.array([BLACK, *(colors[index] for index in order)], np.uint8)
        fills = cv2.addWeighted(canvas, 1 - opacity, _look_up(layers, lookup), opacity, 0)
        cv2.copyTo(fills, covered, canvas)
    if outline:
        _draw_outlines(canvas, masks, [(index, colors[index]) for index in order])
    if background == "transparent":
        alpha = cv2.GaussianBlur(covered * np.uint8(255), (3, 3), 0)
        canvas = np.asarray(cv2.merge([*cv2.split(canvas), alpha]), np.uint8)  # (H, W, 4)
    if numbers:
        for layer, index in enumerate(order, start=1):
            _draw_number(canvas, masks[index], layers, layer, str(ids[index]), colors[index])
    return canvas


def draw_points(image: Picture, coords: ArrayLike, labels: ArrayLike) -> Picture:
    """Mark clicks: blue discs with "+" are foreground, vermillion ones with "–" background.

    Args:
        image: RGB(A) uint8 (H, W, 3 or 4).
        coords: (N, 2) as (x, y) in pixels.
        labels: (N,), 1 foreground, 0 background.
    """
    canvas = image.copy()
    diameter = max(17, round(max(image.shape[:2]) / 36))
    for (x, y), label in zip(np.asarray(coords), np.asarray(labels), strict=True):
        _paste(canvas, _disc(bool(label), diameter), x, y)
    return canvas


def draw_boxes(image: Picture, xyxy: ArrayLike, colors: Sequence[RGB] | None = None) -> Picture:
    """Outline boxes (M, 4), x0, y0, x1, y1 in pixels, with marked corners; `palette` colours."""
    canvas = image.copy()
    boxes = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
    width = _Layout.of(image).line
    for k, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        color = palette(k) if colors is None else colors[k - 1]
        arm = min(max(8.0 * width, 12.0), max(x1 - x0, y1 - y0) / 3)
        frame = _fixed_point([[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]])
        marks = [
            _fixed_point([[x + arm * dx, y], [x, y], [x, y + arm * dy]])
            for x, dx in ((x0, 1), (x1 - 1, -1))
            for y, dy in ((y0, 1), (y1 - 1, -1))
        ]
        for stroke, extra in ((WHITE, 2), (color, 0)):
            _polylines(canvas, [frame], stroke, width + extra, closed=True)
            _polylines(canvas, marks, stroke, 2 * width + 1 + extra, closed=False)
    return canvas


def draw_heatmap(values: NDArray[np.floating], *, signed: bool = False) -> Picture:
    """Paint a map in perceptually even colours, over a bar that says its least and greatest value.

    Args:
        values: (H, W); what is not finite is painted grey.
        signed: centre the colours at 0, blue below, white at 0, orange above; else viridis from
            the least to the greatest value.

    Returns:
        RGB uint8 (H + bar, W, 3).
    """
    finite = np.isfinite(values)
    low = float(values[finite].min()) if finite.any() else 0.0
    high = float(values[finite].max()) if finite.any() else 0.0
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    span = high - low if high > low else 1.0
    levels = np.where(finite, (values - low) / span, 0)  # (H, W) in [0, 1]
    colormap = _colormap(signed)
    picture = colormap[np.rint(levels * 255).astype(np.uint8)]  # (H, W, 3)
    picture[~finite] = 128
    return np.vstack([picture, _color_bar(values.shape[1], max(values.shape), low, high, colormap)])


def describe(result: Segmentation, most: int = 8) -> str:
    """Say in words what a result's picture shows, for its alternative text.

    For instance "2 masks: dog 0.91, 12.4 %; cat 0.88, 3.0 %."; at most `most` are listed.
    """
    if len(result) == 0:
        return "No mask."
    total = result.size[0] * result.size[1]
    rows = zip(result.numbers, result.labels, result.scores, result.areas, strict=True)
    parts = [
        f"{label or f'number {k}'}{'' if math.isnan(score) else f' {score:.2f}'}, "
        f"{100 * pixels / total:.1f} %"
        for k, label, score, pixels in list(rows)[:most]
    ]
    if len(result) > most:
        parts.append(f"and {len(result) - most} more")
    return f"{len(result)} mask{'s' if len(result) > 1 else ''}: {'; '.join(parts)}."


def _luminance(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """WCAG relative luminance of colours (…, 3), in [0, 1]."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def _stack(masks: NDArray[np.bool_], order: Sequence[int]) -> NDArray[np.uint8 | np.uint16]:
    """Number the layers by drawing order, 1 at the bottom; (H, W), 0 where there is no mask."""
    layers = np.zeros(masks.shape[1:], np.uint8 if len(masks) < 256 else np.uint16)
    for layer, index in enumerate(order, start=1):
        np.copyto(layers, layer, where=masks[index])
    return layers


def _look_up(layers: NDArray[np.uint8 | np.uint16], colors: NDArray[np.uint8]) -> Picture:
    """Replace layer numbers (H, W) by colours (H, W, 3)."""
    if layers.dtype != np.uint8:
        return colors[layers]
    table = np.zeros((1, 256, 3), np.uint8)
    table[0, : len(colors)] = colors
    return np.asarray(cv2.LUT(cv2.merge([layers] * 3), table), np.uint8)


def _with_background(image: Picture, covered: NDArray[np.uint8], background: Background) -> Picture:
    """Copy the picture with the pixels outside all masks changed; `covered` is 0/1 (H, W)."""
    if background == "image":
        return image.copy()
    if background == "grey":
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        canvas = cv2.cvtColor(cv2.addWeighted(grey, 0.75, grey, 0, 48), cv2.COLOR_GRAY2RGB)
    elif background == "blur":
        # At a quarter of the size, where a wide kernel is cheap and looks the same.
        height, width = image.shape[:2]
        small = cv2.resize(image, (-(-width // 4), -(-height // 4)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), max(1.0, max(small.shape) / 60))
        canvas = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        canvas = np.zeros_like(image)
    return np.asarray(cv2.copyTo(image, covered, canvas), np.uint8)


def _draw_outlines(
    canvas: Picture, masks: NDArray[np.bool_], colored: Sequence[tuple[int, RGB]]
) -> None:
    """Trace masks (index and colour, bottom first), with a halo where the picture is too alike."""
    width = _Layout.of(canvas).line
    bare = canvas.copy()
    for index, color in colored:
        x0, y0, x1, y1 = mask_to_box(masks[index])
        if x0 == x1:
            continue
        crop = np.ascontiguousarray(masks[index, y0:y1, x0:x1]).view(np.uint8)
        traced, _ = cv2.findContours(
            crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(int(x0), int(y0))
        )
        # Half a pixel of tolerance takes the stairs out of the line and most points with them.
        lines = [_fixed_point(cv2.approxPolyDP(line, 0.5, True)[:, 0]) for line in traced]
        if _is_lost_in(bare, np.vstack([line[:, 0] for line in traced]), color):
            _polylines(canvas, lines, BLACK, width + 4, closed=True)
            _polylines(canvas, lines, WHITE, width + 2, closed=True)
        _polylines(canvas, lines, color, width, closed=True)


def _is_lost_in(image: Picture, points: NDArray[Any], color: RGB) -> bool:
    """Tell whether a line of this colour along points (K, 2) hardly stands out of the picture."""
    points = points[:: max(1, len(points) // 128)]
    behind = _luminance(image[points[:, 1], points[:, 0]])
    own = _luminance(np.array(color, np.uint8))
    ratio = (np.maximum(behind, own) + 0.05) / (np.minimum(behind, own) + 0.05)
    return bool(np.median(ratio) < _LOW_CONTRAST)


def _fixed_point(points: ArrayLike) -> NDArray[np.int32]:
    return np.rint(np.asarray(points, np.float64) * 2**_SUBPIXEL_BITS).astype(np.int32)


def _polylines(
    canvas: Picture, lines: list[NDArray[np.int32]], color: RGB, width: int, *, closed: bool
) -> None:
    cv2.polylines(canvas, lines, closed, color, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def _draw_number(
    canvas: Picture,
    mask: NDArray[np.bool_],
    layers: NDArray[np.uint8 | np.uint16],
    layer: int,
    text: str,
    color: RGB,
) -> None:
    """Write a number in the middle of what is seen of its mask, or beside a mask it would hide."""
    x0, y0, x1, y1 = mask_to_box(mask)
    if x0 == x1:
        return
    chip = _chip(text, color, _Layout.of(canvas).text)
    height, width = chip.shape[:2]
    if np.count_nonzero(mask) < 1.5 * height * width:
        above = y0 - height / 2 - 1
        y = above if above > height / 2 else y1 + height / 2
        return _paste(canvas, chip, (x0 + x1 - 1) / 2, y)
    # A grid of at most 256 points a side places the number well enough, and fast.
    step = max(1, max(y1 - y0, x1 - x0) // 256)
    window = slice(y0, y1, step), slice(x0, x1, step)
    seen = layers[window] == layer
    if np.count_nonzero(seen) < 0.1 * np.count_nonzero(mask[window]):
        seen = mask[window]
    x, y = farthest_point(seen if seen.any() else mask[y0:y1, x0:x1])
    return _paste(canvas, chip, x0 + x * step, y0 + y * step)


@lru_cache(maxsize=1024)
def _chip(text: str, color: RGB, text_px: int) -> Picture:
    """Draw a number on a rounded plate with a white ring, RGBA (h, w, 4)."""
    scale = _SUPERSAMPLING
    font = ImageFont.load_default(text_px * scale)
    height = round(1.35 * text_px) * scale
    width = max(height, round(font.getlength(text) + 0.75 * text_px * scale))
    ring = max(1.5, text_px / 12) * scale
    plate = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(plate)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), height / 2, (0, 0, 0, 150))
    edge = 0.4 * ring
    pen.rounded_rectangle(
        (edge, edge, width - 1 - edge, height - 1 - edge), height / 2 - edge, (*WHITE, 255)
    )
    edge += ring
    pen.rounded_rectangle(
        (edge, edge, width - 1 - edge, height - 1 - edge), height / 2 - edge, (*color, 255)
    )
    ink = (*text_color(color), 255)
    weight = text_px * scale // 32  # the built-in font is thin for a projector
    pen.text((width / 2, height / 2), text, ink, font, anchor="mm", stroke_width=weight)
    return np.asarray(plate.reduce(scale))


@lru_cache(maxsize=64)
def _disc(foreground: bool, diameter: int) -> Picture:
    """Draw a click's mark, RGBA (d, d, 4)."""
    side = (diameter | 1) * _SUPERSAMPLING  # odd, so that its middle is a pixel
    mark = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(mark)
    color = FOREGROUND_COLOR if foreground else BACKGROUND_COLOR
    for inset, fill in ((0, (0, 0, 0, 150)), (0.04, (*WHITE, 255)), (0.15, (*color, 255))):
        edge = inset * side
        pen.ellipse((edge, edge, side - 1 - edge, side - 1 - edge), fill)
    middle, arm, half = (side - 1) / 2, 0.20 * side, 0.055 * side
    pen.rectangle((middle - arm, middle - half, middle + arm, middle + half), WHITE)
    if foreground:
        pen.rectangle((middle - half, middle - arm, middle + half, middle + arm), WHITE)
    return np.asarray(mark.reduce(_SUPERSAMPLING))


def _paste(canvas: Picture, sprite: Picture, x: float, y: float) -> None:
    """Blend an RGBA sprite in place, centred at (x, y) but kept inside the frame."""
    height, width = (min(a, b) for a, b in zip(sprite.shape[:2], canvas.shape[:2], strict=True))
    left = int(np.clip(round(x - (width - 1) / 2), 0, canvas.shape[1] - width))
    top = int(np.clip(round(y - (height - 1) / 2), 0, canvas.shape[0] - height))
    region = canvas[top : top + height, left : left + width]
    sprite = sprite[:height, :width]
    alpha = sprite[:, :, 3:] / 255.0
    region[:, :, :3] = np.rint(region[:, :, :3] * (1 - alpha) + sprite[:, :, :3] * alpha)
    if canvas.shape[2] == 4:
        region[:, :, 3] = np.maximum(region[:, :, 3], sprite[:, :, 3])


@lru_cache(maxsize=2)
def _colormap(signed: bool) -> NDArray[np.uint8]:
    """256 colours (256, 3): viridis, or blue over white to orange."""
    if signed:
        stops = np.array([OKABE_ITO[0], WHITE, OKABE_ITO[1]], np.float64)
        at = np.linspace(0, 2, 256)
        return np.stack([np.interp(at, range(3), stops[:, c]) for c in range(3)], 1).astype(
            np.uint8
        )
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.asarray(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1], np.uint8)


def _color_bar(
    width: int, long_side: int, low: float, high: float, colormap: NDArray[np.uint8]
) -> Picture:
    """Draw the colours from left to right between their two values, RGB (bar height, W, 3)."""
    text_px = max(12, round(long_side / 45))
    height = round(1.8 * text_px)
    bar = Image.new("RGB", (width, height), WHITE)
    pen = ImageDraw.Draw(bar)
    font = ImageFont.load_default(text_px)
    margin, middle = text_px / 3, height / 2
    first, last = f"{low:.3g}", f"{high:.3g}"
    pen.text((margin, middle), first, BLACK, font, anchor="lm")
    pen.text((width - margin, middle), last, BLACK, font, anchor="rm")
    left = round(2 * margin + font.getlength(first))
    right = round(width - 2 * margin - font.getlength(last))
    if right > left:
        ramp = colormap[np.linspace(0, 255, right - left).astype(np.uint8)]
        strip = Image.fromarray(np.repeat(ramp[None], round(0.9 * text_px), axis=0))
        bar.paste(strip, (left, round(0.45 * text_px)))
    return np.asarray(bar)
