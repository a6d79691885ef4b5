import pytest
import torch

from core.engine import timing
from core.engine.timing import StageTimer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stages_and_total():
    clock = Clock()
    timer = StageTimer(clock=clock)
    assert timer.seconds == {"total": 0.0}
    clock.now += 1
    with timer.stage("encode"):
        clock.now += 2
    clock.now += 4
    for _ in range(3):
        with timer.stage("predict"):
            clock.now += 8
    clock.now += 1000  # after the last stage: not part of the request
    assert timer.seconds == {"encode": 2.0, "predict": 24.0, "total": 31.0}
    assert [*timer.seconds] == ["encode", "predict", "total"]


def test_a_failed_stage_is_counted():
    clock = Clock()
    timer = StageTimer(clock=clock)
    with pytest.raises(KeyError), timer.stage("encode"):
        clock.now += 2
        raise KeyError
    assert timer.seconds == {"encode": 2.0, "total": 2.0}


def test_the_device_is_waited_for_at_both_ends(monkeypatch):
    events = []
    monkeypatch.setattr(timing, "synchronize", lambda device: events.append(device.type))
    with StageTimer(torch.device("cuda")).stage("encode"):
        events.append("work")
    assert events == ["cuda", "work", "cuda"]
