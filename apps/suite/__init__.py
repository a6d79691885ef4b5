"""The Gradio suite: one page with a tab for each method."""
