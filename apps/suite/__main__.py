"""`python -m apps.suite`: serve the suite on http://127.0.0.1:7860."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace

from core.settings import settings


def main() -> None:
    """Read the command line, prepare the environment, then import and serve the page."""
    parser = argparse.ArgumentParser(prog="python -m apps.suite", description=__doc__)
    parser.add_argument("--models", choices=("embedded", "full"), default=settings.model_set)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    parser.add_argument("--tab", help="show only the tab of this name")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    from apps.suite import offline

    folder = offline.prepare(arguments.models)

    from apps.suite import app
    from apps.suite.tabs import TABS

    chosen = tuple(tab for tab in TABS if arguments.tab in (None, tab.name))
    if not chosen:
        parser.error(f"--tab is one of {', '.join(tab.name for tab in TABS)}")
    options = replace(
        settings, model_set=arguments.models, host=arguments.host, port=arguments.port
    )
    # Files in the working directory could be published by a listener's mistake: have none there.
    os.chdir(folder)
    page = app.build(options, chosen)
    print(f"Segment Studio is on {app.launch(page, options)}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
