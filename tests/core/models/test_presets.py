"""Settings that suit a model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.models.presets import calibrated_threshold


@pytest.mark.parametrize(("card", "expected"), [({}, None), ({"presence_threshold": 0.8}, 0.8)])
def test_a_card_carries_its_models_threshold(card, expected):
    assert calibrated_threshold(SimpleNamespace(read_card=lambda: card)) == expected
