"""Turn a session into what the page's components show."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from apps.suite.canvas import grey_png
from apps.suite.notices import Notice, say_seconds, status_html
from apps.suite.segment.drawing import (
    build_result,
    draw_candidates,
    draw_instances,
    draw_scene,
    save_png,
)
from apps.suite.segment.markup import objects_html, prompts_html, readings_html
from apps.suite.segment.session import FIRST_CLICK, NO_PICTURE, SegmentSession
from core.overlays import describe, draw_heatmap


class Shown(NamedTuple):
    """Updates of the tab's components, in the order that the tab lists them as outputs."""

    canvas: Any
    compare: Any
    edges: Any
    panel: Any
    status: Any
    readings: Any
    objects: Any
    prompts: Any
    undo: Any
    clear: Any
    new_object: Any
    cancel: Any
    prepare: Any
    files: Any
    maps: Any


NOTHING = Shown(*[gr.skip()] * len(Shown._fields))


def show(session: SegmentSession) -> Shown:
    """Draw everything that the session's last change can have changed."""
    with session.lock:
        picture, scene = session.picture, session.scene
        thumbnails = draw_candidates(picture, scene) if picture else []
        return Shown(
            canvas=show_canvas(session),
            compare=show_compare(session),
            edges=show_edges(session),
            panel=session.panel,
            status=status_of(session),
            readings=readings_html(scene, thumbnails),
            objects=objects_html(scene),
            prompts=prompts_html(scene, picture.size if picture else None),
            undo=gr.update(interactive=len(session.history) > 1),
            clear=gr.update(interactive=bool(scene.prompts or scene.corner or scene.answer)),
            new_object=gr.update(interactive=bool(scene.current)),
            cancel=gr.update(interactive=False),
            prepare=gr.update(interactive=bool(scene.instances) or session.edges is not None),
            files=gr.update(value=None, visible=False),
            maps=show_maps(session) if session.maps_open else gr.skip(),
        )


def show_only_status(session: SegmentSession, notice: Notice) -> Shown:
    """Change the status line only, while work that can be cancelled is going on."""
    session.notice = notice
    return NOTHING._replace(status=status_html(notice), cancel=gr.update(interactive=True))


def status_of(session: SegmentSession) -> str:
    """Write the session's notice, or what there is to say when nothing went wrong."""
    notice = session.notice
    return status_html(notice if notice.text else Notice("ready", _say_state(session)))


def _say_state(session: SegmentSession) -> str:
    scene = session.scene
    if session.picture is None:
        return NO_PICTURE
    if scene.corner is not None:
        return "First corner set: click the opposite corner of the box."
    if scene.answer is not None and scene.answer.is_drawn:
        share = 100 * scene.answer.masks[0].share
        return f"Mask drawn by hand, {share:.1f} % of the picture. Click to let the model go on."
    if scene.answer is not None:
        scores = ", ".join(f"{instance.score:.2f}" for instance in scene.current[:4])
        count = len(scene.current)
        what = "Mask" if count == 1 else f"{count} masks"
        took = say_seconds(scene.answer.seconds.get("predict", 0.0))
        said = f"{what} in {took}, predicted IoU {scores}{', …' if count > 4 else ''}. "
        next_step = "Click again to correct it, or New object." if count == 1 else ""
        return said + (" ".join(scene.answer.warnings) or next_step)
    if scene.kept:
        return f"{len(scene.kept)} kept. Click the next object."
    if "encode" not in session.seconds:
        return FIRST_CLICK
    read = say_seconds(session.seconds["encode"])
    return f"Picture read in {read}, once per picture. {FIRST_CLICK}"


def show_canvas(session: SegmentSession) -> Any:
    """Draw the clickable picture, unless it is what the browser shows already.

    A picture that is sent again would take the place of the one under a click.
    """
    wanted: tuple[Any, ...] = ()
    if session.picture is not None:
        wanted = (session.picture, session.scene, session.drawing, session.panel)
    if wanted == session.on_canvas:
        return gr.skip()
    session.on_canvas = wanted
    if session.picture is None:
        return gr.update(value=None, alt_text=None)
    drawn = draw_scene(session.picture, session.scene, session.drawing)
    return gr.update(
        value=save_png(session, drawn),
        alt_text=_alt_text(session),
        visible=session.panel == "masks",
    )


def _alt_text(session: SegmentSession) -> str:
    picture = session.need_picture()
    if not session.scene.instances:
        return f"The picture {picture.loaded.stem}, nothing selected yet."
    return describe(build_result(session, session.scene))


def show_compare(session: SegmentSession) -> Any:
    """Draw picture and result for the slider, if it is what the visitor looks at."""
    if session.panel != "compare" or session.picture is None:
        return gr.update(visible=False)
    picture = session.picture
    drawn = draw_instances(picture.view, session.scene.instances, session.drawing)
    if drawn.shape[2] == 4:
        drawn = np.ascontiguousarray(drawn[:, :, :3])
    pair = (save_png(session, picture.view.image), save_png(session, drawn))
    return gr.update(value=pair, visible=True)


def show_edges(session: SegmentSession) -> Any:
    """Draw the edge map, dark on white, if it is what the visitor looks at."""
    if session.panel != "edges" or session.picture is None:
        return gr.update(visible=False)
    if session.edges is None:
        return gr.update(value=None, visible=True)
    path = session.new_view(".png")
    path.write_bytes(grey_png(1 - session.edges))
    return gr.update(value=str(path), visible=True)


def show_maps(session: SegmentSession) -> Any:
    """Draw the logits that the mask was cut from, blue below the threshold, orange above."""
    answer = session.scene.answer
    if session.picture is None or answer is None or answer.is_drawn:
        return None
    chosen = answer.low_res_logits[answer.indices[0]]  # (4g, 4g)
    side = max(1, 512 // chosen.shape[0])
    return save_png(session, draw_heatmap(np.kron(chosen, np.ones((side, side))), signed=True))
