"""The Reasoning chat tab: its layout. What its parts do is wired in apps.suite.chat.wiring."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from apps.suite.chat import examples
from apps.suite.chat.help import API_HELP, HOW_IT_WORKS, INFO
from apps.suite.chat.inputs import chat_models
from apps.suite.chat.markup import inside_html, log_html
from apps.suite.chat.session import NO_PICTURE, STYLES, Asked, ChatSession
from apps.suite.chat.wiring import wire
from apps.suite.frame import Frame
from apps.suite.layout import begin_tab, downloads_row, drawing_controls, html, marking_picture
from apps.suite.notices import Notice, status_html
from apps.suite.services import Services
from core.settings import settings

TAB = "chat"
INVITATION = "# Drop a picture here\nor click to choose one, or paste it"


def build(frame: Frame, services: Services) -> None:
    """Lay the tab out and wire it."""
    parts = begin_tab(TAB, ChatSession, services)
    session = ChatSession()
    with gr.Row(elem_id="chat_main"):
        with gr.Column(scale=7, min_width=320, elem_id="chat_stage"):
            _lay_out_stage(parts)
        with gr.Column(scale=5, min_width=300, elem_id="chat_side"):
            _lay_out_talk(parts, session)
    with gr.Column(elem_id="chat_below"):
        _lay_out_parameters(parts, session)
        with gr.Accordion("How it works", open=False):
            gr.Markdown(HOW_IT_WORKS)
            parts.inside = html(inside_html(session), elem_id="chat_inside")
        with gr.Accordion("API", open=False):
            gr.Markdown(API_HELP)
    wire(parts, frame, services)


def _lay_out_stage(parts: SimpleNamespace) -> None:
    """The picture, the status line under it, how masks are drawn, examples."""
    marking_picture(parts, TAB, INVITATION, buttons=["download"])
    parts.status = html(status_html(Notice("hint", NO_PICTURE)), elem_id="chat_status")
    drawing_controls(parts, TAB)
    html(examples.gallery_html(), elem_id="chat_examples")


def _lay_out_talk(parts: SimpleNamespace, session: ChatSession) -> None:
    """The conversation, questions to press, the box to ask in, what is done with it all."""
    with gr.Column(elem_id="chat_scroll"):
        parts.log = html(log_html(session), elem_id="chat_log")
        parts.live = html("", elem_id="chat_live")
    parts.suggestions = html("", elem_id="chat_suggestions")
    with gr.Row(elem_id="chat_box"):
        parts.question = gr.Textbox(
            lines=1,
            max_lines=5,
            label="Question",
            show_label=False,
            container=False,
            placeholder="Ask about the picture",
            elem_id="chat_question",
            scale=5,
        )
        parts.run = gr.Button("Ask", size="sm", variant="primary", elem_id="chat_run")
        parts.cancel = gr.Button(
            "Stop", size="sm", variant="stop", interactive=False, elem_id="chat_cancel"
        )
    with gr.Row(elem_id="chat_actions", elem_classes="buttons"):
        parts.new = gr.Button("New picture", size="sm", elem_id="chat_new_picture")
        parts.clear = gr.Button("Clear", size="sm", elem_id="chat_forget")
        downloads_row(parts, TAB)


def _lay_out_parameters(parts: SimpleNamespace, session: ChatSession) -> None:
    asked = Asked()
    with gr.Accordion("Parameters", open=False, elem_id="chat_parameters"):
        with gr.Row():
            parts.model = gr.Dropdown(
                chat_models(),
                value=session.model,
                label="PixelLM",
                info=INFO["model"],
                elem_id="chat_model",
                min_width=180,
            )
            parts.style = gr.Radio(
                [(title, name) for name, title in STYLES.items()],
                value=asked.style,
                label="Answer",
                info=INFO["style"],
                elem_id="chat_style",
                min_width=280,
            )
        with gr.Row():
            parts.tokens_limit = _number(asked.tokens, "Longest answer, tokens", "tokens")
            parts.temperature = gr.Slider(
                0,
                2,
                value=asked.temperature,
                step=0.1,
                label="Temperature",
                info=INFO["temperature"],
                buttons=[],
                elem_id="chat_temperature",
                min_width=180,
            )
            parts.seed = _number(asked.seed, "Seed", "seed")
            parts.threshold = _number(asked.threshold, "Mask threshold", "threshold", 0.5)


def _number(value: float, label: str, name: str, step: float = 1) -> gr.Number:
    most = settings.max_new_tokens if name == "tokens" else None
    info = f"{INFO[name]} At most {most}." if most else INFO[name]
    return gr.Number(
        value, label=label, info=info, step=step, elem_id=f"chat_{name}_number", min_width=180
    )
