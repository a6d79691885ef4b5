"""Decisions about the subject's pictures, and what is refused before a training begins."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from core.dreambooth.subjects import SubjectPicture, area_warnings, training_pictures
from core.errors import PromptError
from tests.core.dreambooth.conftest import make_picture


@pytest.fixture
def pictures():
    return [make_picture(k) for k in range(4)]


def bare(number):
    return SubjectPicture(f"bare-{number}", make_picture(number).image)


def test_decided_pictures_are_used_and_told_of(pictures, caplog):
    pictures[1] = pictures[1].exclude()
    pictures[2] = pictures[2].use_whole()
    with caplog.at_level(logging.INFO):
        used = training_pictures(pictures)
    assert [picture.stem for picture in used] == ["photo-0", "photo-2", "photo-3"]
    assert used[1].training_mask.all()
    assert not used[0].training_mask.all()
    assert "photo-0: mask persam_f, 11.4 % of the picture counts" in caplog.text
    assert "photo-2: used as a whole, 100.0 %" in caplog.text


def test_masks_missing_is_an_error_and_not_silence(pictures):
    with pytest.raises(PromptError, match="bare-9 has no mask: make the masks first"):
        training_pictures([*pictures, bare(9)])
    with pytest.raises(PromptError, match="bare-5, bare-6, bare-7 and 1 more have no mask"):
        training_pictures([*pictures, *(bare(k) for k in range(5, 9))])


def test_unmasked_pictures_are_used_as_a_whole_on_request(pictures):
    used = training_pictures([*pictures, bare(9)], allow_unmasked=True)
    assert used[-1].decision == "whole"
    assert used[-1].training_mask.all()


def test_every_picture_needs_a_decision(pictures):
    pictures[3] = replace(pictures[3], decision=None)
    with pytest.raises(PromptError, match="photo-3 has no decision yet"):
        training_pictures(pictures)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "There are 0 pictures of the subject: give 3 to 20"),
        (1, "There is 1 picture of the subject: give 3 to 20"),
        (2, "There are 2 pictures of the subject: give 3 to 20"),
        (21, "There are 21 pictures of the subject; the limit is 20"),
    ],
)
def test_too_few_and_too_many(count, message):
    with pytest.raises(PromptError, match=message):
        training_pictures([make_picture(k) for k in range(count)])


def test_excluded_pictures_do_not_count(pictures):
    with pytest.raises(PromptError, match="There are 2 pictures"):
        training_pictures([picture.exclude() for picture in pictures[:2]] + pictures[2:])


def test_masks_of_another_size_and_empty_ones_are_refused():
    picture = make_picture(0)
    with pytest.raises(PromptError, match="mask of photo-0 is 5×4 pixels and the picture is 56×40"):
        replace(picture, mask=np.ones((4, 5), bool))
    empty = np.zeros((40, 56), bool)
    with pytest.raises(PromptError, match="mask of photo-0 is empty"):
        picture.redraw(empty)
    with pytest.raises(PromptError, match="no mask to accept"):
        replace(picture, mask=empty).accept()
    with pytest.raises(PromptError, match="no mask to accept"):
        bare(1).accept()


def test_an_empty_accepted_mask_never_trains(pictures):
    pictures[0] = replace(pictures[0], mask=np.zeros((40, 56), bool))
    with pytest.raises(PromptError, match="mask of photo-0 is empty"):
        training_pictures(pictures)


def test_a_drawn_mask_replaces_persams():
    drawn = np.ones((40, 56), bool)
    picture = replace(make_picture(0), score=0.9, presence=0.8).redraw(drawn)
    assert (picture.source, picture.decision, picture.score) == ("drawn", "redraw", None)
    assert picture.area_share == 1


def test_odd_areas_are_warned_of():
    mask = np.zeros((100, 100), bool)
    assert "covers 0.00%" in area_warnings(mask)[0]
    mask[:96] = True
    assert "takes in the background" in area_warnings(mask)[0]
    mask[50:] = False
    assert area_warnings(mask) == ()


def test_the_digest_follows_picture_mask_and_decision():
    picture = make_picture(0)
    same = replace(picture, warnings=("something",))
    assert same.digest == picture.digest
    assert len({picture.digest, picture.use_whole().digest, make_picture(1).digest}) == 3
