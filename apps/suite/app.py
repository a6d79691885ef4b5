"""Build the page and serve it; every launch setting is here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import PIL.Image

from apps.suite import api, models
from apps.suite.frame import build_header
from apps.suite.limits import Doorkeeper
from apps.suite.services import Services
from apps.suite.sessions import Visitors
from apps.suite.tabs import TABS, Tab
from apps.suite.theme import build_theme
from core.settings import Settings, settings

STATIC = Path(__file__).with_name("static")
CLEAN_UP = (1800, 3600)  # s: look this often, delete what is older than that

_log = logging.getLogger(__name__)


def build(options: Settings = settings, tabs: Sequence[Tab] = TABS) -> gr.Blocks:
    """Lay out the page with the given tabs; nothing of torch is imported by it."""
    # Gradio's own image code opens files too: it shall refuse what core.images refuses.
    PIL.Image.MAX_IMAGE_PIXELS = options.max_pixels
    services = Services(settings=options, visitors=Visitors(), doorkeeper=Doorkeeper())
    with gr.Blocks(
        title="Segment Studio",
        analytics_enabled=False,
        delete_cache=CLEAN_UP,
        fill_width=True,
    ) as page:
        frame = build_header(options)
        with gr.Tabs(elem_id="studio_tabs"):
            for tab in tabs:
                with gr.Tab(tab.title, id=tab.name, elem_id=f"tab_{tab.name}"):
                    tab.build(frame, services)
        api.add_endpoints(page, services.doorkeeper)
        page.load(
            device_line,
            outputs=frame.device,
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )

        def leave(request: gr.Request) -> None:
            services.visitors.leave(request.session_hash)

        page.unload(leave)
    page.queue(max_size=options.queue_size, default_concurrency_limit=1)
    return page


def device_line() -> str:
    """Say where the models run, as soon as that is known."""
    models.wait_until_ready()
    return models.device_html()


def launch(page: gr.Blocks, options: Settings = settings, **more: Any) -> str:
    """Start the server and the warm-up behind it; return the page's address."""
    address = page.launch(
        server_name=options.host,
        server_port=options.port,
        share=False,
        show_error=False,
        allowed_paths=[],
        # core.images looks at each picture's own size again.
        max_file_size=max(options.max_upload_bytes, options.max_clip_bytes),
        max_threads=16,
        state_session_capacity=200,
        strict_cors=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=options.mcp_server,
        enable_monitoring=False,
        run_history=False,
        footer_links=["api"],
        theme=build_theme(),
        # Not as css=: gradio would add a copy of each rule with a weight of its own.
        head=f"<style>{(STATIC / 'suite.css').read_text('utf-8')}</style>",
        js=(STATIC / "suite.js").read_text("utf-8"),
        **{"prevent_thread_lock": True, "quiet": True, **more},
    )[1]
    threading.Thread(target=models.warm_up, daemon=True).start()
    return address
