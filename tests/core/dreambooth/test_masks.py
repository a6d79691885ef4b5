"""Masks of all pictures by PerSAM from one marked one, and their files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from core.dreambooth import masks
from core.dreambooth.masks import (
    MaskOrigin,
    load_pictures,
    name_pictures,
    propose_masks,
    save_pictures,
)
from core.dreambooth.subjects import SubjectPicture
from core.engine import CancelToken
from core.errors import Cancelled, PromptError
from core.persam.config import FitConfig, PersamConfig
from core.persam.pipeline import find, learn
from core.persam.target import Reference
from tests.core.dreambooth.conftest import make_picture
from tests.core.persam.conftest import GOLDEN_FILE

FIT = FitConfig(steps=5)


@pytest.fixture(scope="module")
def pictures():
    """The golden reference with its mask, and the golden test picture twice."""
    with np.load(GOLDEN_FILE) as golden:
        reference, test = golden["in.ref_image"], golden["in.test_image"]
        mask = (golden["in.ref_mask_rgb"] > 0).any(axis=2)
    return [
        SubjectPicture("other", test),
        SubjectPicture("marked", reference, mask),
        SubjectPicture("mirrored", test[:, ::-1].copy()),
    ]


def test_masks_are_persams(engine, pictures):
    done, origin = propose_masks(engine, "sam", pictures, 1, method="persam")
    learned = learn(engine, "sam", [Reference(pictures[1].image, pictures[1].mask)])
    answer = find(engine, "sam", pictures[0].image, learned.profile, PersamConfig())
    expected = answer.traces[0].found[0]
    assert_array_equal(done[0].mask, expected.mask)
    assert (done[0].source, done[0].decision) == ("persam", None)
    assert done[0].presence == pytest.approx(expected.presence.score)
    assert 0 <= done[0].score <= 1
    assert origin == MaskOrigin("persam", "sam")


def test_the_marked_mask_is_kept_and_counts_as_drawn(engine, pictures):
    done, origin = propose_masks(engine, "sam", pictures, 1, fit=FIT)
    assert_array_equal(done[1].mask, pictures[1].mask)
    assert (done[1].source, done[1].decision) == ("drawn", "redraw")
    assert done[0].source == "persam_f"
    assert len(origin.scale_weights) == 2


def test_decided_pictures_are_left_alone(engine, pictures):
    decided = [pictures[0].use_whole(), *pictures[1:]]
    done, _ = propose_masks(engine, "sam", decided, 1, method="persam")
    assert done[0] is decided[0]


def test_a_picture_without_the_subject_says_so(engine, pictures, monkeypatch):
    monkeypatch.setattr(masks, "calibrated_threshold", lambda entry: 1.1)
    done, origin = propose_masks(engine, "sam", pictures, 1, method="persam")
    assert "seems not to be in this picture" in done[0].warnings[0]
    assert done[0].decision is None
    assert done[0].mask.any()  # what came closest
    assert origin.presence_threshold == 1.1


def test_no_mask_no_reference(engine, pictures):
    with pytest.raises(PromptError, match="other has no mask: paint the subject"):
        propose_masks(engine, "sam", pictures, 0)


def test_two_pictures_are_too_few(engine, pictures):
    with pytest.raises(PromptError, match="There are 2 pictures"):
        propose_masks(engine, "sam", pictures[:2], 1)


def test_it_can_be_stopped(engine, pictures):
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        propose_masks(engine, "sam", pictures, 1, method="persam", cancel=cancel)


def test_progress_names_each_picture(engine, pictures):
    told = []
    propose_masks(
        engine, "sam", pictures, 1, method="persam", progress=lambda *args: told.append(args)
    )
    assert [fraction for fraction, _ in told] == [0, 1 / 3, 2 / 3]
    assert told[2][1] == "Looking for the subject in mirrored"


def test_files_give_back_the_same_pictures(tmp_path):
    pictures = [
        make_picture(0),
        replace(make_picture(1), score=0.5, presence=0.25, warnings=("odd",)),
        SubjectPicture("bare", make_picture(2).image).use_whole(),
    ]
    save_pictures(tmp_path, pictures, MaskOrigin("persam_f", "sam", (0.2, 0.3), 0.5))
    back = load_pictures(tmp_path)
    assert [one.digest for one in back] == [one.digest for one in pictures]
    assert back[1].warnings == ("odd",)
    assert (back[1].score, back[1].presence) == (0.5, 0.25)
    with Image.open(tmp_path / "masks" / "photo-0.png") as file:
        assert file.mode == "L"
        assert set(np.unique(np.asarray(file))) == {0, 255}
        assert file.size == (56, 40)
    record = json.loads((tmp_path / "masks.json").read_text())
    assert (record["method"], record["scale_weights"]) == ("persam_f", [0.2, 0.3])
    assert record["pictures"][0]["area_share"] == pytest.approx(256 / (40 * 56))


@settings(max_examples=20)
@given(seed=st.integers(0, 99), share=st.floats(0, 1), size=st.tuples(*[st.integers(1, 40)] * 2))
def test_any_mask_survives_its_file(tmp_path_factory, seed, share, size):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    folder = tmp_path_factory.mktemp("any")
    picture = SubjectPicture("a", image, random.random(size) < share, "drawn")
    save_pictures(folder, [picture])
    (back,) = load_pictures(folder)
    assert_array_equal(back.image, picture.image)
    assert_array_equal(back.mask, picture.mask)
    assert back.area_share == picture.area_share


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(PromptError, match="missing or damaged"):
        load_pictures(tmp_path)
    save_pictures(tmp_path, [make_picture(0)])
    (tmp_path / "masks" / "photo-0.png").write_bytes(b"no picture")
    with pytest.raises(PromptError, match="missing or damaged"):
        load_pictures(tmp_path)


def test_names_become_safe_and_different():
    assert name_pictures(["a b.c", "A-b-c", "../../etc", "", ""]) == [
        "a-b-c",
        "A-b-c-2",
        "etc",
        "picture",
        "picture-2",
    ]
