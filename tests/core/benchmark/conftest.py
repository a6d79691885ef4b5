"""Benchmarks in a test warm up once."""

import pytest

from core.benchmark import harness


@pytest.fixture
def one_warm_up(monkeypatch):
    monkeypatch.setattr(harness, "WARM_UPS", 1)
