"""The public endpoints: stateless, one for each task, everything needed is in the call.

Their parameters are unseen components, because only those take files; names, types, defaults and
the docstrings of the functions are what clients and the API page show.
"""

from __future__ import annotations

import gradio as gr

from apps.suite.api.dreambooth import add_dreambooth
from apps.suite.api.follow import add_follow
from apps.suite.api.persam import add_persam
from apps.suite.api.pixellm import add_chat
from apps.suite.api.robustsam import add_robustsam
from apps.suite.api.sam import add_sam
from apps.suite.api.service import add_service
from apps.suite.api.text import add_text
from apps.suite.limits import Doorkeeper


def add_endpoints(page: gr.Blocks, doorkeeper: Doorkeeper) -> None:
    """Add all endpoints to the page that is being built."""
    with gr.Row(visible=False):
        button = gr.Button()
        add_sam(button, doorkeeper)
        add_persam(button, doorkeeper)
        add_follow(button, doorkeeper)
        add_robustsam(button, doorkeeper)
        add_text(button, doorkeeper)
        add_chat(button, doorkeeper)
        add_dreambooth(button, doorkeeper)
    add_service(page)
