"""Files of a result, made when the visitor asks for them."""

from __future__ import annotations

from apps.suite.canvas import grey_png
from apps.suite.segment.drawing import build_result
from apps.suite.segment.session import SegmentSession
from core.errors import NothingFound
from core.exports import slug, write_all
from core.overlays import draw


def write_files(session: SegmentSession) -> list[str]:
    """Write the files into a folder of their own and return their paths.

    Raises:
        PromptError: there is no picture.
        NothingFound: there is neither a visible mask nor an edge map.
    """
    with session.lock:
        picture, scene, drawing = session.need_picture(), session.scene, session.drawing
        result, edges = build_result(session, scene), session.edges
    if len(result) == 0 and edges is None:
        raise NothingFound("There is no mask to download yet; click an object first.")
    folder = session.new_file("")
    paths = []
    if len(result):
        overlay = draw(
            picture.image,
            result.masks,
            ids=result.numbers,
            opacity=drawing.opacity,
            outline=drawing.outline,
            numbers=drawing.numbers,
            background=drawing.background,
        )
        files = write_all(picture.image, result, picture.loaded.stem, folder, overlay=overlay)
        paths = [files.archive, *files.all]
    if edges is not None:
        folder.mkdir(exist_ok=True)
        path = folder / f"{slug(picture.loaded.stem) or 'image'}_sam_edges.png"
        path.write_bytes(grey_png(edges))
        paths.append(path)
    return [str(path) for path in paths]
