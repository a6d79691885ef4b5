"""The look of the suite as a Gradio theme; every font and colour is local."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors, sizes

# Shades around the first colour of the palette, #0072B2 (white text on it has contrast 5.2).
BLUE = colors.Color(
    name="studio-blue",
    c50="#eef6fb",
    c100="#d8eaf5",
    c200="#b3d6ea",
    c300="#83bcdc",
    c400="#4a9cca",
    c500="#1682bd",
    c600="#0072b2",
    c700="#005d92",
    c800="#064c75",
    c900="#0b3f60",
    c950="#072940",
)
GREY = colors.Color(
    name="studio-grey",
    c50="#f7f8fa",
    c100="#eff1f4",
    c200="#e2e5ea",
    c300="#cdd2da",
    c400="#9aa3b0",
    c500="#6b7583",
    c600="#4f5865",
    c700="#39414c",
    c800="#242a33",
    c900="#171c23",
    c950="#0e1217",
)


def build_theme() -> gr.themes.Base:
    """Return the theme; the page's own rules are in static/suite.css."""
    # 700 and not 600: gradio's file of the semi-bold holds only some of the letters.
    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400,))
    theme = gr.themes.Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=GREY,
        radius_size=sizes.radius_md,
        spacing_size=sizes.spacing_md,
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_radius="12px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="600",
        block_title_text_size="*text_sm",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_info_text_size="*text_xs",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_900",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_small_radius="9px",
        button_small_text_weight="500",
        button_large_radius="9px",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_500",
    )
