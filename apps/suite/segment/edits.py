"""What a visitor does in the Segment tab, each a plain function that changes the session.

None of them asks the model; `answers.refresh` does so afterwards, once for many quick clicks.
All arguments come from a browser and are checked here or in `scene`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from apps.suite.canvas import View
from apps.suite.components import TOOLS, Drawing
from apps.suite.notices import Notice, status_html
from apps.suite.segment import scene as scenes
from apps.suite.segment.patch import Patch
from apps.suite.segment.scene import Prompts, Scene
from apps.suite.segment.session import (
    Options,
    Picture,
    SegmentSession,
)
from core.errors import PromptError
from core.images import LoadedImage, load
from core.overlays import BACKGROUNDS
from core.prompts import Scribble
from core.settings import settings

S = TypeVar("S", bound=SegmentSession)

STROKES = ("scribble", "paint", "erase")  # tools that draw; a click alone is no point
MULTIMASK = ("auto", "on", "off")
PANELS = ("masks", "compare", "edges")
SCRIBBLE_SHARE = 1 / 60  # width of a scribble's stroke in the picture's long side
BRUSH_SHARE = 1 / 30  # of the brush that paints and erases
MOST_STROKE_PLACES = 5000


def read_upload(session: SegmentSession, path: str | None) -> None:
    """Take an uploaded file as the picture; on an error the picture before stays.

    Raises:
        ImageError: the file is no readable picture, or over a limit.
    """
    take_upload(session, path, use_picture)


def take_upload(session: S, path: str | None, use: Callable[[S, LoadedImage], None]) -> None:
    """Read an uploaded file and hand it to `use`; nothing happens without a file.

    Raises:
        ImageError: the file is no readable picture, or over a limit.
    """
    session.on_canvas = None  # the browser shows the file itself by now
    if path is None:
        return
    session.own_upload(path)
    use(session, load(path))


def use_picture(session: SegmentSession, loaded: LoadedImage) -> None:
    """Start on a picture with nothing selected."""
    with session.lock:
        session.forget_picture()
        session.picture = Picture(loaded, View.of(loaded.image))
        session.panel = "masks"
        session.notice = Notice("busy", "Reading the picture, once per picture…")


def remove_picture(session: SegmentSession) -> None:
    """Drop the picture and everything that belongs to it."""
    with session.lock:
        session.cancel_job()
        session.forget_picture()


def click(session: SegmentSession, x: float, y: float, tool: str) -> None:
    """Add what a click at a pixel of the shown picture means with the tool in hand.

    Raises:
        PromptError: no picture, an unknown tool, a box without area, or too many prompts.
    """
    with session.lock:
        picture = session.need_picture()
        scene, size = session.scene, picture.size
        place = picture.view.to_original(x, y)
        if tool == "box":
            session.put(scenes.add_corner(scene, *place, size))
        elif tool in ("foreground", "background"):
            label = int(tool == "foreground")
            session.put(scenes.add_points(scene, [(*place, label)], size))
        elif tool not in STROKES:
            raise PromptError(f"There is no tool {tool!r}; use one of {', '.join(TOOLS)}.")


def draw_stroke(session: SegmentSession, path: Any, tool: str) -> None:
    """Take a line drawn over the shown picture: a scribble, the diagonal of a box, or paint.

    Args:
        path: [[x, y], …] in pixels of the shown picture.

    Raises:
        PromptError: no picture, not a line, a box without area, or too many prompts.
    """
    with session.lock:
        picture = session.need_picture()
        places = [picture.view.to_original(x, y) for x, y in _read_path(path)]
        scene, size = session.scene, picture.size
        if tool == "box":
            (x0, y0), (x1, y1) = places[0], places[-1]
            session.put(scenes.add_box(replace(scene, corner=None), (x0, y0, x1, y1), size))
        elif tool in ("paint", "erase"):
            mask = paint(_present_mask(scene, size), places, erase=tool == "erase")
            put_mask(session, mask)
        else:
            points = _scribbled(picture, places, session.options.scribble_points)
            session.put(scenes.add_points(scene, points, size))


def put_mask(session: SegmentSession, mask: NDArray[np.bool_]) -> None:
    """Put a mask (H, W) that was drawn or uploaded in the place of the present object's."""
    with session.lock:
        shown = session.need_picture().view.mask(mask)
        session.put(scenes.with_mask(session.scene, Patch.of(mask), Patch.of(shown)))


def name_current(session: SegmentSession, label: str) -> None:
    """Name the object that is being worked on. Raises PromptError if there is none."""
    with session.lock:
        session.put(scenes.rename(session.scene, session.scene.next_number, label))


def undo(session: SegmentSession) -> None:
    """Take back the last step. Raises PromptError if there is none."""
    session.undo()


def clear(session: SegmentSession) -> None:
    """Drop the points and boxes of the present object; the kept objects stay."""
    with session.lock:
        session.put(scenes.clear_prompts(session.scene))


def new_object(session: SegmentSession) -> None:
    """Keep the mask and start the next object. Raises PromptError if there is no mask."""
    with session.lock:
        session.put(scenes.keep_current(session.scene))


def set_drawing(session: SegmentSession, **choices: Any) -> None:
    """Change how results are drawn, by the names of `Drawing`."""
    choices = {name: value for name, value in choices.items() if value is not None}
    if choices.get("background", "image") not in BACKGROUNDS:
        raise PromptError(f"The background must be one of {', '.join(BACKGROUNDS)}.")
    if "opacity" in choices:
        choices["opacity"] = min(max(float(choices["opacity"]), 0.0), 1.0)
    with session.lock:
        session.drawing = replace(session.drawing, **_known(Drawing, choices))


def set_options(session: SegmentSession, **choices: Any) -> None:
    """Change what the model is asked, by the names of `Options`."""
    if choices.get("multimask", "auto") not in MULTIMASK:
        raise PromptError(f"Several readings must be one of {', '.join(MULTIMASK)}.")
    if not math.isfinite(float(choices.get("mask_threshold", 0.0))):
        raise PromptError("The mask threshold must be a number.")
    most = settings.max_points
    choices["scribble_points"] = min(max(int(choices.get("scribble_points", 8)), 1), most)
    with session.lock:
        session.options = replace(session.options, **_known(Options, choices))
        forget_answers(session)


def edit(session: SegmentSession, action: dict[str, Any]) -> None:
    """Do what a button or field inside the page's tables asks for.

    Args:
        action: {"do": name, …} as static/suite.js sends it.

    Raises:
        PromptError: unknown, malformed, or not possible now.
    """
    name = str(action.get("do"))
    with session.lock:
        picture = session.need_picture()
        if name in ("edit-point", "remove-point", "add-point"):
            session.put(_edit_points(session.scene, name, action, picture.size))
        elif name in ("edit-box", "remove-box", "add-box"):
            session.put(_edit_boxes(session.scene, name, action, picture.size))
        elif name in _SCENE_EDITS:
            session.put(_SCENE_EDITS[name](session.scene, action))
        else:
            raise PromptError(f"The page asked for {name[:20]!r}, which is not known here.")


def set_panel(session: SegmentSession, panel: str) -> None:
    """Show the masks, the picture beside them, or the edges. Raises PromptError if unknown."""
    if panel not in PANELS:
        raise PromptError(f"There is no view {str(panel)[:20]!r}; use one of {', '.join(PANELS)}.")
    session.need_picture()
    session.panel = panel
    if panel == "edges" and session.edges is None:
        session.notice = Notice("hint", "Press Edges to draw them; it takes some seconds.")


def run_again(session: SegmentSession) -> None:
    """Ask the model once more. Raises PromptError without a picture or a prompt."""
    with session.lock:
        session.need_picture()
        if not session.scene.prompts:
            raise PromptError(
                "There is nothing to run yet: click an object, drag a box, or press Everything."
            )
    forget_answers(session)


def forget_answers(session: SegmentSession) -> None:
    """Make the next refresh ask the model again: another model, or other options."""
    with session.lock:
        session.history = [replace(scene, answer=None) for scene in session.history]


def begin_job(session: SegmentSession) -> None:
    """Get ready for work that can be cancelled. Raises PromptError without a picture."""
    session.need_picture()
    session.begin_job()
    session.notice = Notice("busy", "Waiting for the model…")


def cancel(session: SegmentSession) -> str:
    """Ask the running job to stop; its listener ends by itself and says how far it came."""
    session.cancel_job()
    return status_html(Notice("busy", "Stopping…"))


def _choose(scene: Scene, action: dict[str, Any]) -> Scene:
    return scenes.choose(scene, read_whole(action, "index"))


def _rename(scene: Scene, action: dict[str, Any]) -> Scene:
    return scenes.rename(scene, read_whole(action, "number"), str(action.get("value", "")))


def _toggle(scene: Scene, action: dict[str, Any]) -> Scene:
    return scenes.toggle_visible(scene, read_whole(action, "number"))


def _delete(scene: Scene, action: dict[str, Any]) -> Scene:
    return scenes.delete(scene, read_whole(action, "number"))


def _merge(scene: Scene, action: dict[str, Any]) -> Scene:
    numbers = action.get("numbers")
    if not isinstance(numbers, list):
        raise PromptError("Select at least two objects in the list to merge them.")
    return scenes.merge(scene, [read_whole({"number": k}, "number") for k in numbers])


_SCENE_EDITS: dict[str, Callable[[Scene, dict[str, Any]], Scene]] = {
    "choose": _choose,
    "rename": _rename,
    "toggle": _toggle,
    "delete": _delete,
    "merge": _merge,
}


def _edit_points(scene: Scene, name: str, action: dict[str, Any], size: tuple[int, int]) -> Scene:
    rows = [list(point) for point in scene.prompts.points]
    if name == "add-point":
        rows.append([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
    else:
        _change_row(rows, name, action, ("x", "y", "label"))
    points = tuple((float(x), float(y), int(label)) for x, y, label in rows)
    return _with_prompts(scene, replace(scene.prompts, points=points), size)


def _edit_boxes(scene: Scene, name: str, action: dict[str, Any], size: tuple[int, int]) -> Scene:
    rows = [list(box) for box in scene.prompts.boxes]
    if name == "add-box":
        height, width = size
        rows.append([width / 4, height / 4, 3 * width / 4, 3 * height / 4])
    else:
        _change_row(rows, name, action, ("x0", "y0", "x1", "y1"))
    boxes = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in rows)
    return _with_prompts(scene, replace(scene.prompts, boxes=boxes), size)


def _with_prompts(scene: Scene, prompts: Prompts, size: tuple[int, int]) -> Scene:
    return scenes.with_prompts(scene, prompts, size)


def _change_row(
    rows: list[list[float]], name: str, action: dict[str, Any], columns: tuple[str, ...]
) -> None:
    """Remove a row of a table of prompts, or change one number in it."""
    row = read_whole(action, "row")
    if not 0 <= row < len(rows):
        raise PromptError(f"There is no row {row + 1} in the table any more.")
    if name.startswith("remove"):
        del rows[row]
        return
    column = action.get("column")
    if column not in columns:
        raise PromptError(f"There is no column {str(column)[:20]!r} in the table.")
    try:
        value = float(action.get("value", ""))
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise PromptError(f"{str(action.get('value'))[:20]!r} is not a number.")
    rows[row][columns.index(column)] = value


def read_whole(action: dict[str, Any], key: str) -> int:
    """Read a whole number that the page sent. Raises PromptError if it is none."""
    try:
        return int(action[key])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise PromptError("The page sent something that cannot be read; reload it.") from None


def _read_path(path: Any) -> list[tuple[float, float]]:
    try:
        places = np.asarray(path, dtype=np.float64)
    except (TypeError, ValueError):
        places = np.zeros(0)
    if places.ndim != 2 or places.shape[1] != 2 or not 1 <= len(places) <= MOST_STROKE_PLACES:
        raise PromptError("That line cannot be read; draw it again.")
    return [(float(x), float(y)) for x, y in places]


def _scribbled(
    picture: Picture, places: list[tuple[float, float]], count: int
) -> list[scenes.Point]:
    """Spread points along a stroke given in original coordinates."""
    height, width = picture.size
    stroke = np.zeros((height, width), np.uint8)
    line = np.rint(np.array(places)).astype(np.int32).reshape(-1, 1, 2)
    thickness = max(1, round(max(height, width) * SCRIBBLE_SHARE))
    cv2.polylines(stroke, [line], False, (1,), thickness)
    points = Scribble.parse(stroke, picture.size).to_points(count)
    return [
        (float(x), float(y), int(label))
        for (x, y), label in zip(points.coords, points.labels, strict=True)
    ]


def paint(
    mask: NDArray[np.bool_], places: list[tuple[float, float]], *, erase: bool
) -> NDArray[np.bool_]:
    """Add a brush's line of places (x, y) to a mask (H, W), or take it away."""
    width = max(2, round(max(mask.shape) * BRUSH_SHARE))
    canvas = mask.astype(np.uint8)
    line = np.rint(np.array(places)).astype(np.int32).reshape(-1, 1, 2)
    value = (int(not erase),)
    cv2.polylines(canvas, [line], False, value, width)
    for x, y in line[:, 0].tolist():  # round ends, and a dab where the brush did not move
        cv2.circle(canvas, (x, y), width // 2, value, cv2.FILLED)
    return canvas.astype(bool)


def _present_mask(scene: Scene, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask that painting goes on from: the present object's, or an empty one."""
    if scene.answer is None or scene.prompts.is_batch:
        return np.zeros(size, bool)
    return scene.answer.masks[scene.answer.chosen].full()


def _known(kind: type, choices: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in choices.items() if name in names}


def read_example(session: SegmentSession, path: Path) -> None:
    """Take one of the suite's own pictures. Raises ImageError if it cannot be read."""
    use_picture(session, load(path))
