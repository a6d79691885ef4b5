"""Files of the Text query tab, made when the visitor asks for them."""

from __future__ import annotations

from apps.suite.text.drawing import draw_whole
from apps.suite.text.session import NO_ANSWER, TextSession
from core.errors import NothingFound


def write_files(session: TextSession) -> list[str]:
    """Write the files into a folder of their own and return their paths, the archive first.

    Raises:
        PromptError: there is no picture.
        NothingFound: there is no answer yet.
    """
    from core.car.exports import write_text

    with session.lock:
        picture, found, drawing = session.need_picture(), session.found, session.drawing
    if found is None:
        raise NothingFound(NO_ANSWER)
    files = write_text(
        picture.image,
        found.whole(),
        picture.loaded.stem,
        session.new_file(""),
        overlay=draw_whole(picture.image, found, drawing),
        notices=picture.loaded.notices,
    )
    return [str(path) for path in files.all]
