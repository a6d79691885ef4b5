"""Files of the chat tab, made when the visitor asks for them."""

from __future__ import annotations

from apps.suite.chat.drawing import draw_whole
from apps.suite.chat.session import ChatSession


def write_files(session: ChatSession) -> list[str]:
    """Write the files into a folder of their own and return their paths, the archive first.

    Raises:
        PromptError: there is no picture.
        NothingFound: nothing was said yet.
    """
    from core.pixellm.exports import write_chat

    with session.lock:
        picture, turns, drawing = session.need_picture(), session.need_turns(), session.drawing
    files = write_chat(
        picture.image,
        [told.whole() for told in turns],
        picture.loaded.stem,
        session.new_file(""),
        overlay=draw_whole(picture.image, turns, drawing),
        notices=picture.loaded.notices,
    )
    return [str(path) for path in files.all]
