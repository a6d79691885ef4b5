"""Files of what was learned and drawn, made when the visitor asks for them."""

from __future__ import annotations

from apps.suite.dreambooth.session import DreamBoothSession


def write_files(session: DreamBoothSession) -> list[str]:
    """Write the files into a folder of their own and return their paths.

    Raises:
        SuiteError: nothing was learned yet.
    """
    from core.dreambooth.exports import write_drawn, write_training, write_weights

    with session.lock:
        learned, pairs, is_ours = session.need_learned(), session.pairs, bool(session.learned_id)
    folder = session.new_file("")
    files = [write_weights(learned, folder)]
    if pairs:
        files.append(write_drawn(pairs, learned, folder))
    if is_ours:  # uploaded weights come without their training
        files.append(write_training(learned, folder))
    return [str(path) for path in files]
