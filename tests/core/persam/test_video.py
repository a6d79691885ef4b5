"""Slots, exits and re-entries, with a tracker's parts replaced by known answers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.engine import CancelToken
from core.errors import PromptError
from core.persam import video
from core.persam.cascade import as_prediction, stage_of
from core.persam.config import FitConfig
from core.persam.presence import Presence
from core.persam.video import FrameResult, VideoConfig, VideoObject, follow, track, widened_box
from core.sam.geometry import Geometry

SIZE = (40, 64)


class Scripted:
    """Stands in for one object's step: the columns where it is in each frame, and its score."""

    def __init__(self, monkeypatch, script: dict[str, list[tuple[int, float]]]) -> None:
        self.frame = -1
        self.script = script
        monkeypatch.setattr(video, "_step", self.step)
        monkeypatch.setattr(video, "pool_target", lambda *args: (SimpleNamespace(), ()))

    def encode(self, frame):
        self.frame += 1
        return SimpleNamespace()

    def step(self, predictor, embedding, slot, config):
        column, score = self.script[slot.source.name][self.frame]
        logits = np.full((1, 16, 16), -5, np.float32)
        if column >= 0:
            logits[:, 4:8, column // 4 : column // 4 + 3] = 5
        geometry = Geometry(64, SIZE, SIZE)
        stage = stage_of("first", as_prediction(logits, geometry), 0)
        return stage, Presence(score, score, 0.9, 1.0)


def run(monkeypatch, script, starts=None) -> list[FrameResult]:
    predictor = Scripted(monkeypatch, script)
    count = len(next(iter(script.values())))
    objects = []
    for name, places in script.items():
        mask = np.zeros(SIZE, bool)
        start = places[0][0]
        mask[16:32, start : start + 12] = True
        objects.append(VideoObject(name, (starts or {}).get(name, 0), mask))
    frames = [np.zeros((*SIZE, 3), np.uint8)] * count
    return list(track(predictor, frames, objects, VideoConfig(lost=0.7, reentry=0.9)))


def test_objects_keep_their_slots_and_come_back(monkeypatch):
    script = {
        "a": [(4, 0.8), (4, 0.8), (-1, 0.3), (8, 0.5), (12, 0.8), (12, 0.8)],
        "b": [(40, 0.8)] * 6,
    }
    results = run(monkeypatch, script)
    assert [1 in r.labels for r in results] == [True, True, False, False, True, True]
    assert all(2 in r.labels for r in results[1:]), "the other one keeps its number"
    assert results[3].scores[0] == pytest.approx(0.5), "the score says why it was not taken back"


def test_an_object_that_no_longer_resembles_itself_is_lost(monkeypatch):
    results = run(monkeypatch, {"a": [(0, 0.8), (4, 0.5), (4, 0.75)]})
    assert [1 in r.labels for r in results] == [True, False, True]


def test_objects_may_start_later(monkeypatch):
    script = {"a": [(0, 0.8)] * 4, "b": [(40, 0.8)] * 4}
    results = run(monkeypatch, script, {"b": 2})
    assert [2 in r.labels for r in results] == [False, False, True, True]
    assert np.isnan(results[1].scores[1])


def test_objects_need_a_source():
    with pytest.raises(PromptError, match="neither"):
        VideoObject("cup")
    with pytest.raises(PromptError, match="empty"):
        VideoObject("cup", mask=np.zeros(SIZE, bool))


@given(
    st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1), st.integers(1, 40), st.floats(0, 99)
)
def test_boxes_stay_in_the_picture(y, x, reach, margin):
    mask = np.zeros(SIZE, bool)
    mask[y : y + reach, x : x + reach] = True
    x0, y0, x1, y1 = widened_box(mask, margin)
    assert 0 <= x0 <= x <= x1 <= SIZE[1] - 1
    assert 0 <= y0 <= y <= y1 <= SIZE[0] - 1


@pytest.fixture(scope="module")
def clip(golden):
    """The golden test picture, drifting."""
    image = golden["in.test_image"]
    return [np.roll(image, 3 * n, axis=1) for n in range(5)], golden["in.test_gt"]


@pytest.mark.parametrize("config", [VideoConfig(), VideoConfig(points=1, fit=FitConfig(steps=5))])
def test_the_real_passes_run(predictor, clip, config):
    frames, mask = clip
    other = np.zeros_like(mask)
    other[:20, :20] = True
    objects = [VideoObject("a", 0, mask), VideoObject("b", 1, other)]
    results = list(track(predictor, frames, objects, config))
    assert [r.index for r in results] == [0, 1, 2, 3, 4]
    assert np.array_equal(results[0].labels == 1, mask), "the given mask is the answer"
    assert np.array_equal(results[1].labels == 2, other)
    assert all(r.labels.max() <= 2 and r.labels.shape == mask.shape for r in results)


class OneModel:
    """An engine's part that following a clip uses."""

    def __init__(self, sam):
        self.sam = sam

    def entry(self, model_id):
        return SimpleNamespace(id=model_id, title=model_id, sha256=None)

    def model(self, model_id, cancel, progress):
        from contextlib import nullcontext

        return nullcontext(self.sam)

    def out_of_memory_guard(self):
        from contextlib import nullcontext

        return nullcontext()


def test_cancelling_keeps_what_is_done(sam, clip):
    frames, mask = clip
    cancel, told = CancelToken(), []

    def progress(fraction, message):
        told.append((fraction, message))
        if len(told) == 2:
            cancel.cancel()

    result = follow(
        OneModel(sam),
        "golden",
        frames,
        [VideoObject("a", 0, mask)],
        cancel=cancel,
        progress=progress,
    )
    assert len(result.frames) == 2 and not result.complete
    assert told[-1] == (0.4, "Frame 2 of 5")
    assert result.names == ("a",) and json.dumps(result.seconds)
    whole = follow(OneModel(sam), "golden", frames, [VideoObject("a", 0, mask)])
    assert whole.complete and len(whole.frames) == 5
    for part, again in zip(result.frames, whole.frames, strict=False):
        assert torch.equal(torch.from_numpy(part.labels), torch.from_numpy(again.labels))


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([], "0 objects"),
        ([VideoObject("a", 9, np.ones((4, 4), bool))], "frame 9"),
        ([VideoObject("a", 0, np.ones((4, 4), bool))], "size"),
    ],
)
def test_wrong_objects_are_named(sam, clip, objects, message):
    with pytest.raises(PromptError, match=message):
        follow(OneModel(sam), "golden", clip[0], objects)
