"""Segment Studio without its pages: pictures, prompts, masks, results, models and methods."""
