"""The page around the tabs: title, choice of models, device line, keys, presentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from apps.suite import models
from apps.suite.layout import html
from apps.suite.notices import escape, notice_of, status_html
from core.errors import SuiteError
from core.settings import Settings

TAGLINE = "Point at something in a picture and get its mask."
SETS = {
    "embedded": (
        "Embedded",
        "Small models trained by this project on drawn scenes: quick and offline, coarser than "
        "the published ones on photographs.",
    ),
    "full": (
        "Full",
        "The published models: they know far more of the world; each is downloaded once, at its "
        "first use.",
    ),
}

# Key, what it does, the button that it presses on the tab in front, if that has it.
# suite.js reads them from the list on the page.
KEYS = (
    ("F", "Foreground point", "#{tab}_tool input[value=foreground]"),
    ("B", "Background point", "#{tab}_tool input[value=background]"),
    ("X", "Box: drag, or click two corners", "#{tab}_tool input[value=box]"),
    ("S", "Scribble along the object", "#{tab}_tool input[value=scribble]"),
    ("M", "Paint the mask, in Personalize", "#{tab}_tool input[value=paint]"),
    ("R", "Erase from the mask, in Personalize", "#{tab}_tool input[value=erase]"),
    ("U", "Undo (also Ctrl+Z)", "#{tab}_undo"),
    ("Delete", "Clear the points and boxes", "#{tab}_clear"),
    ("N", "New object: keep this mask", "#{tab}_new"),
    ("1", "First reading of the click", "#{tab}_reading_1"),
    ("2", "Second reading", "#{tab}_reading_2"),
    ("3", "Third reading", "#{tab}_reading_3"),
    ("→", "Next test picture, or step of a search", "#{tab}_next"),
    ("←", "Previous one", "#{tab}_previous"),
    ("E", "Everything in the picture", "#{tab}_everything"),
    ("O", "Masks on or off", "#{tab}_overlay input"),
    ("[", "Less opacity", "#{tab}_fainter"),
    ("]", "More opacity", "#{tab}_stronger"),
    ("Ctrl+Enter", "Run", "#{tab}_run"),
    ("Esc", "Cancel what is running", "#{tab}_cancel"),
    ("P", "Presentation mode", "#studio_present"),
    ("?", "This list", "#studio_keys_button"),
)

_LOGO = (
    '<svg class="logo" viewBox="0 0 40 40" aria-hidden="true"><rect x="1" y="1" width="38" '
    'height="38" rx="10" fill="#0072b2"/><path d="M11 25c-3-7 2-14 9-14 6 0 6 4 10 6 4 3 1 12-6 '
    '12-4 0-10 1-13-4z" fill="#e69f00"/><circle cx="20" cy="20" r="3.6" fill="#fff"/><path '
    'd="M20 18v4M18 20h4" stroke="#0072b2" stroke-width="1.3"/></svg>'
)


@dataclass(frozen=True)
class Frame:
    """What the tabs need of the page around them.

    Args:
        in_use: id of the model that is in use; `in_use.change` tells when it is another one.
        device: the line about device and times.
    """

    in_use: gr.State
    device: gr.HTML


def header_html(model_set: str) -> str:
    """Write title, sentence about the models in use, and the page's own buttons."""
    return (
        f'<header class="studio-head">{_LOGO}<div class="words"><h1>Segment Studio</h1>'
        f"<p>{escape(TAGLINE)} <span>{escape(SETS[model_set][1])}</span></p></div></header>"
    )


def tools_html() -> str:
    """Write the page's own buttons; suite.js answers them."""
    return (
        '<div class="studio-tools"><button type="button" id="studio_theme" class="small" '
        'aria-label="Dark or light">◐</button>'
        '<button type="button" id="studio_present" class="small" aria-pressed="false">'
        "Present <kbd>P</kbd></button>"
        '<button type="button" id="studio_keys_button" class="small">Keys <kbd>?</kbd></button>'
        "</div>"
    )


def keys_html() -> str:
    """Write the dialog that lists the keys; suite.js finds here what each one presses."""
    rows = "".join(
        f'<li data-key="{escape(key)}" data-target="{escape(target)}">'
        f"<kbd>{escape(key)}</kbd> {escape(text)}</li>"
        for key, text, target in KEYS
    )
    return (
        '<dialog id="studio_keys" aria-labelledby="studio_keys_title"><form method="dialog">'
        '<h2 id="studio_keys_title">Keys</h2><button class="small">Close</button></form>'
        f"<ul>{rows}</ul><p>In presentation mode 1 to 9 load an example, and Shift with 1, 2, 3 "
        "chooses a reading.</p></dialog>"
    )


def build_header(settings: Settings) -> Frame:
    """Lay out the header and wire the choice of models."""
    with gr.Row(elem_id="studio_header"):
        title = html(header_html(settings.model_set), elem_id="studio_title", scale=1)
        model_set = gr.Dropdown(
            [(name, key) for key, (name, _) in SETS.items()],
            value=settings.model_set,
            label="Model set",
            elem_id="studio_set",
            min_width=110,
            scale=0,
        )
        model = gr.Dropdown(
            models.choices(settings.model_set),
            value=models.default_model(settings.model_set),
            label="Model",
            elem_id="studio_model",
            min_width=170,
            scale=0,
        )
        html(tools_html(), elem_id="studio_tools")
    with gr.Row(elem_id="studio_line"):
        device = html(models.device_html(), elem_id="studio_device")
        notice = html("", elem_id="studio_notice")
        fetch = gr.Button("Download", size="sm", visible=False, scale=0, elem_id="studio_fetch")
    html(keys_html())
    in_use = gr.State(models.default_model())

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    model_set.input(list_set, model_set, [title, model], queue=False, **quiet)
    model.change(use_model, model, [in_use, notice, fetch], queue=False, **quiet)
    fetch.click(fetch_model, model, [in_use, notice, fetch], concurrency_id="model", **quiet)
    return Frame(in_use=in_use, device=device)


def list_set(model_set: str) -> tuple[str, Any]:
    """Describe a set of models and list them, saying which are not downloaded."""
    listed = models.choices(model_set, look=True)
    return header_html(model_set), gr.update(choices=listed, value=listed[0][1])


def use_model(model_id: str) -> tuple[str, str, Any]:
    """Put a model in use, or the embedded one with a sentence about what is missing."""
    try:
        in_use, notice = models.usable(model_id)
    except SuiteError as error:
        in_use, notice = models.default_model(), notice_of(error)
    missing = in_use != model_id and models.can_download()
    return in_use, status_html(notice) if notice else "", gr.update(visible=missing)


def fetch_model(model_id: str) -> Iterator[tuple[Any, str, Any]]:
    """Download a model, saying how far it is, and put it in use."""
    for notice in models.download(model_id):
        yield gr.skip(), status_html(notice), gr.update(interactive=notice.kind != "busy")
    if models.is_here(model_id):
        yield model_id, "", gr.update(visible=False)
