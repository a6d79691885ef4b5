"""Files of the Degraded tab, made when the visitor asks for them."""

from __future__ import annotations

from apps.suite.canvas import View
from apps.suite.degraded.drawing import draw_answer
from apps.suite.degraded.session import DegradedSession
from core.errors import NothingFound


def write_files(session: DegradedSession) -> list[str]:
    """Write the files into a folder of their own and return their paths.

    Raises:
        PromptError: there is no picture.
        NothingFound: there is no answer yet.
    """
    from core.robustsam.exports import comparison_record, write_comparison

    with session.lock:
        picture, found, ious = session.need_picture(), session.comparison, session.ious
        degraded, drawing = session.degraded, session.drawing
        restored = session.restored.results if session.restored else ()
    if found is None:
        raise NothingFound("There is nothing to download yet: click an object first.")
    parameters = degraded.parameters if degraded else {}
    told = comparison_record(found, parameters, ious, picture.loaded.notices, restored)
    whole = View(picture.image, picture.size)
    overlays = {
        name: draw_answer(whole, answer, drawing)
        for name, answer in (("sam", found.sam), ("robustsam", found.robust))
    }
    files = write_comparison(
        picture.image,
        found,
        told,
        picture.loaded.stem,
        session.new_file(""),
        overlays,
        restored=restored,
    )
    return [str(path) for path in files.all]
