"""Colour words from pixels."""

from __future__ import annotations

import pytest
import torch

from core.stickers.colours import COLOURS, colour_ids, colour_shares


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 30, 30), "red"),
        ((245, 140, 30), "orange"),
        ((250, 215, 40), "yellow"),
        ((60, 170, 70), "green"),
        ((50, 100, 220), "blue"),
        ((130, 60, 190), "purple"),
        ((240, 100, 190), "pink"),
        ((250, 170, 175), "pink"),
        ((120, 70, 30), "brown"),
        ((15, 15, 18), "black"),
        ((245, 245, 245), "white"),
        ((128, 130, 128), "grey"),
    ],
)
def test_a_plain_colour_has_its_name(rgb: tuple[int, int, int], name: str) -> None:
    image = torch.tensor(rgb, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert {COLOURS[i] for i in colour_ids(image).flatten().tolist()} == {name}


def test_shares_are_of_the_visible_pixels_of_each_object() -> None:
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[:, 0, :, :2] = 220  # red, then black
    ids = torch.zeros(1, 4, 4, dtype=torch.uint8)
    ids[:, :3] = 1
    shares = colour_shares(image, ids, 2)[0]
    assert shares[0, COLOURS.index("red")] == shares[0, COLOURS.index("black")] == 0.5
    assert shares[0].sum() == 1
    assert not shares[1].any(), "an object without pixels has no colour"
