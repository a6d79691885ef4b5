"""J and F as DAVIS has them, the clips, and DAVIS's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import ImageError
from core.evaluation import persam_video
from core.evaluation.persam_davis import (
    VideoSequence,
    boundary_f,
    boundary_map,
    davis_sequences,
    score_sequence,
    statistics,
)
from core.evaluation.persam_video import FRAMES, SIZE, evaluate_video, make_clips
from core.persam.video import FrameResult, VideoConfig
from core.stickers.atlas import Atlas


def square(top: int, left: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_boundary_f() -> None:
    """The diagonal of 100 allows one pixel."""
    mask = square(10, 10)
    assert boundary_f(mask, mask) == 1
    assert boundary_f(mask, square(11, 10)) == 1
    assert boundary_f(mask, square(14, 14)) < 0.5
    empty = np.zeros_like(mask)
    assert boundary_f(empty, empty) == 1
    assert boundary_f(mask, empty) == boundary_f(empty, mask) == 0


def test_boundary_map_is_thin() -> None:
    edge = boundary_map(square(10, 10))
    assert edge.sum() == 4 * 20
    assert edge[9, 15] and edge[15, 9] and edge[29, 15] and edge[15, 29]
    assert not boundary_map(np.ones((5, 6), bool)).any()


def test_statistics() -> None:
    values = [1.0, 1.0, 0.8, 0.6, 0.5, 0.4, 0.2, 0.0]
    found = statistics(values)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["recall"] == 0.5
    assert found["decay"] == pytest.approx(np.mean(values[:3]) - np.mean(values[5:]))
    assert np.isnan(statistics([])["mean"])


def test_first_and_last_frames_do_not_count() -> None:
    truth = np.stack([square(10, 10), square(10, 10), square(10, 10), square(10, 10)]).astype(
        np.uint8
    )
    ours = truth.copy()
    ours[[0, -1]] = 0
    assert score_sequence(truth, ours, 1)["j_mean"] == 1
    late = truth.copy()
    late[:1] = 0
    wrong = late.copy()
    wrong[1] = 0
    assert score_sequence(late, wrong, 1)["j_mean"] == 1, "an object's own first frame is given"


def test_clips_move_leave_and_return(small_atlas: Atlas) -> None:
    category = {info.object_id: "things" for info in small_atlas.infos}
    clips = list(make_clips(small_atlas, range(12), category, 2, seed=3))
    again = list(make_clips(small_atlas, range(12), category, 2, seed=3))
    assert np.array_equal(clips[1].frames[5], again[1].frames[5])
    for clip in clips:
        assert len(clip.frames) == FRAMES and clip.frames[0].shape == (*SIZE, 3)
        assert clip.objects == [1, 2]
        first = (clip.labels == 1).any(axis=(1, 2))
        assert first[0] and first[-1] and not first.all(), "it leaves the picture and comes back"
        assert clip.start(1) == clip.start(2) == 0


def test_figures_of_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.stack([square(10, 10 + t) * 1 + square(35, 30) * 4 for t in range(6)])
    sequence = VideoSequence("s", (np.zeros((60, 80, 3), np.uint8),) * 6, labels.astype(np.uint8))

    def perfect(predictor, frames, objects, config):
        assert [o.name for o in objects] == ["1", "4"]
        for t in range(6):
            slots = np.where(sequence.labels[t] == 4, 2, sequence.labels[t])
            yield FrameResult(t, slots.astype(np.uint8), np.ones(2, np.float32))

    monkeypatch.setattr(persam_video, "track", perfect)
    figures, details = evaluate_video(None, [sequence], VideoConfig())  # type: ignore[arg-type]
    assert figures["j_and_f"] == figures["j_mean"] == figures["f_recall"] == 1
    assert details["objects"].keys() == {"s_1", "s_4"}


def test_davis_folder(tmp_path: Path) -> None:
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("cows\n")
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "480p" / "cows").mkdir(parents=True)
    for n in range(3):
        stem = f"480p/cows/{n:05d}"
        Image.new("RGB", (80, 60), "teal").save(tmp_path / "JPEGImages" / f"{stem}.jpg")
        picture = Image.fromarray(square(10, 10 + n).astype(np.uint8) * 2)
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(tmp_path / "Annotations" / f"{stem}.png")
    (sequence,) = davis_sequences(tmp_path)
    assert sequence.objects == [2] and len(sequence.frames) == 3
    (tmp_path / "Annotations" / "480p" / "cows" / "00001.png").unlink()
    with pytest.raises(ImageError, match="00001.png"):
        list(davis_sequences(tmp_path))
    with pytest.raises(ImageError, match="val.txt"):
        list(davis_sequences(tmp_path / "JPEGImages"))
