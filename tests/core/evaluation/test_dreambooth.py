"""Figures with known answers, the published layout, and the whole protocol on tiny models."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from core.errors import ImageError
from core.evaluation import __main__ as command
from core.evaluation import dreambooth, dreambooth_data, dreambooth_published, dreambooth_run
from core.evaluation.dreambooth import Judges, Setting, Taught
from core.evaluation.dreambooth_layout import (
    LIST,
    GivenSubject,
    Prompt,
    google_subjects,
    read_classes,
    read_prompts,
)
from core.stickers.atlas import Atlas, SpriteInfo
from core.stickers.objects import find_object
from core.training import diffusion_pictures as pictures
from tests.core.dreambooth.conftest import (  # noqa: F401  (fixtures)
    FAST,
    engine,
    make_picture,
    model,
    tokenizer,
)

WORDS = """Classes

subject_name,class
can,can
dog,dog

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a red {0} {1}'.format(unique_token, class_token),
'a cube shaped {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} on the beach'.format(unique_token, class_token),
'a {0} {1} wearing a red hat'.format(unique_token, class_token),
'a {0} {1} in a chef outfit'.format(unique_token, class_token)
]
"""


def unit(*rows: list[int]) -> torch.Tensor:
    return F.normalize(torch.tensor(rows).float(), dim=-1)


def scores(fidelity: float, background: float, leak: float) -> dict[str, float]:
    values = dict.fromkeys(dreambooth.SCORES, 0.5)
    return values | {
        "subject_fidelity": fidelity,
        "background_fidelity": background,
        "leak": leak,
    }


def taught(name: str, *ways: tuple[float, float, float]) -> Taught:
    by_way = {way: scores(*row) for way, row in zip(dreambooth.WAYS, ways, strict=True)}
    return Taught(name, by_way, {"masked": 1.0, "unmasked": 2.0}, 0.9, {"masked": [], "x": []})


def test_fidelity_leak_and_diversity_of_known_features() -> None:
    drawn, given = unit([1, 0], [0, 1]), unit([1, 0], [1, 0], [0, 1])
    assert dreambooth.pair_fidelity(drawn, given) == pytest.approx(0.5)
    assert dreambooth.leak(drawn, given) == pytest.approx(1)
    assert dreambooth.leak(drawn, given[:2]) == pytest.approx(0.5)
    assert dreambooth.diversity(drawn, ["a", "b"]) == pytest.approx(1)
    assert dreambooth.diversity(drawn, ["a", "a"]) == 0, "pictures of one prompt are no pair"


def test_a_picture_is_cut_to_its_subject_and_the_subject_out_of_it() -> None:
    image = np.full((10, 12, 3), 200, np.uint8)
    mask = np.zeros((10, 12), bool)
    mask[0:4, 8:12] = True
    image[mask] = 50
    (cut,) = dreambooth.cut_out([image], [mask])
    assert cut.shape[0] == cut.shape[1] and set(np.unique(cut)) == {50, 127}
    assert (cut == 50).sum() == 3 * mask.sum(), "all of it, though it lies at the edge"
    (rest,) = dreambooth.take_out([image], [mask])
    assert set(np.unique(rest)) == {127, 200}
    nothing = np.zeros_like(mask)
    assert dreambooth.cut_out([image], [nothing])[0] is image


def test_the_comparisons_follow_their_definitions() -> None:
    subjects = [
        taught("a", (0.4, 0.9, 0.2), (0.8, 0.6, 0.3), (0.7, 0.4, 0.5)),
        taught("b", (0.6, 0.9, 0.2), (0.5, 0.6, 0.3), (0.5, 0.4, 0.7)),
    ]
    figures = dreambooth.summarise(subjects, pictures=4)
    expected = {
        "subject_fidelity": 0.65,
        "subject_fidelity_change": 0.05,
        "background_fidelity_gain": 0.5,
        "leak_change": -0.3,
        "every_subject_gains": 0.5,
        "minutes": 1.0,
        "longest_minutes": 2.0,
        "mask_iou": 0.9,
        "untouched_subject_fidelity": 0.5,
        "unmasked_leak": 0.6,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_gain_over_nothing_is_counted_in_pictures() -> None:
    row = taught("a", (0, 0, 0), (0, 0.5, 0), (0, 0, 0))
    assert dreambooth.summarise([row], 8)["background_fidelity_gain"] == pytest.approx(4)


def test_masks_are_compared_without_the_marked_picture() -> None:
    one, half = np.ones((2, 2), bool), np.array([[True, True], [False, False]])
    subject = GivenSubject("x", "x", (one,) * 3, (half, one, None), ())
    assert dreambooth.mask_iou(subject, [one, half, one]) == 0.5
    assert dreambooth.mask_iou(replace(subject, masks=(one, None, None)), [one] * 3) is None


def test_prompts_are_scenes_or_change_the_subject() -> None:
    things, animals = read_prompts(WORDS)
    assert [prompt.is_scene for prompt in (*things, *animals)] == [True, False, False] + [
        True,
        False,
        False,
    ]
    assert things[1].fill("sks", "can") == "a red sks can"
    assert things[1].fill("", "can") == "a red can"
    assert Prompt("a photo of a {0} {1} on grass", 0).is_scene


def test_subjects_of_the_published_layout(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    for name in ("can", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (6, 4), (9, 9, 9)).save(root / name / f"{number:02d}.jpg")
    (root / LIST).write_text(WORDS)
    (tmp_path / "masks" / "dog").mkdir(parents=True)
    Image.fromarray(np.full((4, 6), 255, np.uint8)).save(tmp_path / "masks" / "dog" / "00.png")
    can, dog = google_subjects(tmp_path)
    assert (can.name, can.noun, len(can.images)) == ("can", "can", 2)
    assert can.masks == (None, None) and dog.masks[0].all() and dog.masks[1] is None
    assert can.prompts[0].template == "a {0} {1} in the jungle"
    assert dog.prompts[0].template == "a {0} {1} on the beach"
    assert read_classes(WORDS) == {"can": "can", "dog": "dog"}


def test_a_damaged_layout_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="give the folder"):
        next(google_subjects(tmp_path))
    (tmp_path / LIST).write_text(WORDS)
    with pytest.raises(ImageError, match="no photographs of can"):
        next(google_subjects(tmp_path))
    with pytest.raises(ImageError, match="no subjects"):
        read_classes("nothing")
    with pytest.raises(ImageError, match="no prompts"):
        read_prompts("nothing")


def test_published_figures_stand_below_ours() -> None:
    lines = dreambooth_published.table({"masked": {"dino": 0.7, "clip_i": 0.8}}).splitlines()
    assert "0.700" in lines[2] and lines[2].split()[-1] == "-"
    assert "0.668" in dreambooth_published.table() and "other data" in dreambooth_published.table()


@pytest.fixture
def atlas(small_atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> Atlas:
    monkeypatch.setattr(pictures, "WORLD_NAMES", ("apple",))
    named = [
        SpriteInfo(pictures.STYLE, find_object(name).code_point, name, split)
        for name, split in (("apple", "train"), ("lemon", "test"), ("book", "test"))
    ]
    return Atlas(**{**small_atlas.__dict__, "infos": (*named, *small_atlas.infos[3:])})


def test_sticker_subjects_are_held_out_on_two_backdrops(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreambooth_data, "load_atlas", lambda folder: atlas)
    subjects = list(dreambooth_data.sticker_subjects(Path(), 5))
    assert {subject.name for subject in subjects} == {"lemon", "book"}
    for subject in subjects:
        assert len(subject.images) == 5 and len(set(subject.backdrops)) == 2
        assert all(mask.any() for mask in subject.masks)
        named = {prompt.backdrop for prompt in subject.prompts}
        assert len(named) == 4 and not named & set(subject.backdrops)
    again = list(dreambooth_data.sticker_subjects(Path(), 1))[0]
    assert np.array_equal(again.images[0], subjects[0].images[0])


def colours(images: list[np.ndarray]) -> torch.Tensor:
    """An encoder by mean colours."""
    means = [image.reshape(-1, 3).mean(axis=0) + 1 for image in images]
    return F.normalize(torch.tensor(np.array(means), dtype=torch.float32), dim=-1)


JUDGES = Judges(
    {"colour": colours, "other": colours},
    lambda images, texts: torch.full((len(images),), 0.3),
    lambda images, prompts, noun: torch.tensor([prompt.backdrop == 1 for prompt in prompts]),
)


@pytest.fixture
def subject() -> GivenSubject:
    own = [make_picture(k) for k in range(3)]
    return GivenSubject(
        name="clock",
        noun="clock",
        images=tuple(picture.image for picture in own),
        masks=tuple(picture.mask for picture in own),
        prompts=(Prompt("a {0} {1} on sand", 1), Prompt("a {0} {1} on snow", 2)),
    )


def test_one_subject_in_all_three_ways(engine, subject, tmp_path: Path) -> None:  # noqa: F811
    setting = Setting(engine, "tiny", "sam", JUDGES, FAST, tmp_path, seeds=(0, 1))
    one = dreambooth.teach(setting, subject, 0)
    assert set(one.drawn) == set(dreambooth.WAYS)
    assert all(len(images) == 4 for images in one.drawn.values())
    kinds = [np.stack(one.drawn[way]) for way in dreambooth.WAYS]
    assert not np.array_equal(kinds[0], kinds[1]) and not np.array_equal(kinds[1], kinds[2])
    for way in dreambooth.WAYS:
        assert set(dreambooth.SCORES) < set(one.scores[way])
        assert one.scores[way]["background_fidelity"] == 0.5
        assert one.scores[way]["leak"] == one.scores[way]["other_leak"]
    assert 0 <= one.mask_iou <= 1 and one.minutes["masked"] > 0
    figures = dreambooth.summarise([one], 4)
    assert figures["background_fidelity_gain"] == 0
    assert "clock" in dreambooth.details([one])


def test_a_photograph_without_mask_is_marked_by_sam(
    engine,  # noqa: F811
    subject: GivenSubject,
    tmp_path: Path,
) -> None:
    setting = Setting(engine, "tiny", "sam", JUDGES, FAST, tmp_path)
    found = dreambooth.find_subject(setting, replace(subject, masks=(None,) * 3))
    assert len(found) == 3 and all(picture.is_used for picture in found)
    assert found[0].training_mask.shape == subject.images[0].shape[:2]


def test_the_command_reports_the_sticker_world(
    engine,  # noqa: F811
    subject: GivenSubject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def judges(*_: object):
        yield JUDGES

    monkeypatch.setattr(dreambooth_run, "embedded_judges", judges)
    monkeypatch.setattr(dreambooth_run, "get_engine", lambda: engine)
    monkeypatch.setattr(dreambooth_run, "catalogue", lambda: {"tiny": engine.entry("tiny")})
    monkeypatch.setattr(dreambooth_run, "SAM", "sam")
    preset = dreambooth_run.DreamBoothConfig
    monkeypatch.setattr(preset, "preset", classmethod(lambda *_, **__: FAST))
    monkeypatch.setattr(dreambooth_data, "sticker_subjects", lambda *_: iter([subject]))
    args = argparse.Namespace(data=None, stickers=Path(), limit=1, model="tiny")
    figures, told = dreambooth_run.run_dreambooth(None, args)
    assert {"background_fidelity_gain", "subject_fidelity_change", "leak_change"} < figures.keys()
    assert told["settings"]["steps"] == FAST.steps and "clock" in told["subjects"]


def test_another_format_is_refused() -> None:
    assert command.PROTOCOLS["dreambooth"].count >= 10
    args = argparse.Namespace(data=Path("x"), format="coco")
    with pytest.raises(ImageError, match="reads dreambooth"):
        dreambooth_run.run_photographs(None, args)
