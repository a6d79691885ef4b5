"""Files of the Personalize tab's results, made when the visitor asks for them."""

from __future__ import annotations

from apps.suite.personalize.session import PersonalizeSession
from core.errors import NothingFound
from core.overlays import draw


def write_files(session: PersonalizeSession) -> list[str]:
    """Write the files into a folder of their own and return their paths.

    Raises:
        NothingFound: there is no result yet.
    """
    from core.persam.exports import FoundPicture, write_follow, write_pictures

    with session.lock:
        variant, drawing = session.variant, session.drawing
        results = [(query, query.result(variant)) for query in session.queries]
        clip, followed, facts = session.clip, session.followed, session.followed_facts
        profiles = [
            item.profile or session.learned[item.number][1].profile
            for item in session.objects()
            if item.profile or item.number in session.learned
        ]
    folder = session.new_file("")
    if clip is not None and followed is not None:
        written = write_follow(clip, followed, session.clip_stem, folder, facts=facts)
        return [str(path) for path in written.all]
    found = [(query, result) for query, result in results if result is not None]
    if not found:
        raise NothingFound("There is nothing to download yet: press Find first.")
    pictures = (
        FoundPicture(
            query.loaded.stem,
            query.loaded.image,
            result,
            draw(
                query.loaded.image,
                result.segmentation.masks,
                ids=list(result.segmentation.numbers),
                opacity=drawing.opacity,
                outline=drawing.outline,
                numbers=drawing.numbers,
                background=drawing.background if len(result.segmentation) else "image",
            ),
        )
        for query, result in found
    )
    files = write_pictures(pictures, profiles, folder)
    return [str(path) for path in (files.archive, *files.summaries, *files.overlays)]
