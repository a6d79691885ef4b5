"""MUSE's figures by hand-made cases, and the whole protocol on a tiny model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import ImageError
from core.evaluation import __main__ as command
from core.evaluation import pixellm, pixellm_data, pixellm_published, pixellm_run
from core.evaluation.pixellm import ChatScores, Given, score
from core.evaluation.pixellm_data import Asked, Talk
from core.pixellm.codebook import Fusion
from core.stickers.atlas import Atlas
from tests.core.pixellm.conftest import small_config, small_model

SIZE = (8, 10)


def area(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


EVERYTHING = slice(None)
LEFT, RIGHT = area(EVERYTHING, slice(5)), area(EVERYTHING, slice(5, None))
CORNER = area(slice(4), slice(5))
NONE = np.zeros((0, *SIZE), bool)
CUPS = Asked(
    "name",
    "Where are they?",
    np.stack([LEFT, RIGHT]),
    (("cup", "mug"), ("clock",)),
    objects=np.stack([LEFT, RIGHT]),
)


def given(*masks: np.ndarray, phrases: tuple[str, ...] = ()) -> Given:
    texts = phrases or ("the cup", "a clock", "")[: len(masks)]
    return Given(np.array(masks, bool).reshape(-1, *SIZE), texts)


def figures(*scored: pixellm.Scored) -> dict[str, float]:
    return ChatScores(list(scored)).figures()


def test_the_truth_is_a_perfect_answer_in_any_order() -> None:
    swapped = given(RIGHT, LEFT, phrases=("a clock", "the cups"))
    for answer in (given(LEFT, RIGHT), swapped):
        own = figures(score(CUPS, answer))
        assert [own[name] for name in ("giou", "ciou", "giou_with_words", "exact_set")] == [1] * 4


def test_masks_without_a_partner_count_as_nothing_right() -> None:
    found = score(CUPS, given(CORNER))
    assert [(pair.intersection, pair.union) for pair in found.pairs] == [(20, 40), (0, 40)]
    own = figures(found)
    assert own["giou"] == pytest.approx(0.25) and own["ciou"] == pytest.approx(20 / 80)
    assert own["exact_set"] == own["right_number"] == 0
    extra = score(replace(CUPS, truth=LEFT[None]), given(LEFT, RIGHT))
    assert figures(extra)["giou"] == pytest.approx(0.5) and not extra.exact


def test_words_scale_the_iou() -> None:
    own = figures(score(CUPS, given(LEFT, RIGHT, phrases=("the mug", "a dog"))))
    assert own["giou"] == 1 and own["giou_with_words"] == pytest.approx(0.5)
    assert own["ciou_with_words"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("the cup on the left", 1),
        ("two mugs", 2 / 3),
        ("a red cup", 2 / 3),
        ("a dog", 0),
        ("", 0),
    ],
)
def test_phrases_are_scored_by_the_best_name(phrase: str, expected: float) -> None:
    assert pixellm.phrase_score(phrase, ("cup", "mug")) == pytest.approx(expected)


def test_matching_maximises_the_sum_and_drops_what_does_not_overlap() -> None:
    wide = area(EVERYTHING, slice(6))  # overlaps both, the left one more
    assert pixellm.match(np.stack([wide, LEFT]), np.stack([LEFT, RIGHT])) == [(0, 1), (1, 0)]
    assert pixellm.match(LEFT[None], RIGHT[None]) == []
    assert pixellm.match(NONE, RIGHT[None]) == []
    assert pixellm.match(LEFT[None], RIGHT[None], in_order=True) == [(0, 0)]


def test_an_exact_set_means_the_right_objects_however_rough_the_masks() -> None:
    rough = np.stack([CORNER, RIGHT])
    assert score(CUPS, given(*rough)).exact
    assert not score(CUPS, given(LEFT, LEFT)).exact, "one object twice"
    small = area(slice(1), slice(5))  # an eighth of the object
    assert not score(CUPS, given(small, RIGHT)).exact
    unknown = replace(CUPS, objects=None)
    assert score(unknown, given(CORNER, RIGHT)).exact
    assert not score(unknown, given(small, RIGHT)).exact


def test_refusals_are_counted_where_they_are_due() -> None:
    nothing = Asked("name", "Where is the dog?", NONE, nothing=True, objects=LEFT[None])
    refused, invented = score(nothing, given()), score(nothing, given(LEFT))
    wrongly = score(CUPS, given())
    own = figures(refused, invented, wrongly)
    assert own["refusal_accuracy"] == 0.5
    assert own["exact_set"] == 0, "over questions that have targets"
    assert own["giou"] == 0, "the invented mask and both missed ones"
    assert np.isnan(figures(refused)["giou"])
    assert score(nothing, given(np.zeros(SIZE, bool))).refused, "an empty mask marks nothing"


def test_merged_and_ignored_pixels() -> None:
    one = Asked("long", "", np.ones((1, *SIZE), bool), matching="merged")
    assert score(one, given(LEFT, RIGHT)).pairs[0].iou == 1
    part = replace(one, truth=CORNER[None], ignored=LEFT & ~CORNER)
    assert score(part, given(LEFT)).pairs[0].iou == 1


def test_by_kind_and_what_went_wrong() -> None:
    cut = replace(score(CUPS, given(LEFT, RIGHT)), kind="count", cut=True, broken=True)
    details = ChatScores([score(CUPS, given(LEFT, RIGHT)), cut]).details()
    assert details["by_kind"]["count"]["giou"] == 1 and details["answers"] == 2
    assert details["cut_answers"] == details["broken_groups"] == 0.5
    assert details["scorer"] == pixellm.SCORER


def test_ablations_are_undone() -> None:
    fusion = Fusion(small_config(learned_fusion=True))
    vectors = torch.randn(2, 2, 3, 4)
    whole, weights = fusion.fuse_tokens(vectors), fusion.scale_weights(torch.device("cpu"))
    with pixellm.ablated(fusion, "token_fusion"):
        torch.testing.assert_close(fusion.fuse_tokens(vectors), vectors[:, :, 0] / 2)
    with pixellm.ablated(fusion, "scale_fusion"):
        assert fusion.scale_weights(torch.device("cpu")).tolist() == [0, 1]
    assert torch.equal(fusion.fuse_tokens(vectors), whole)
    assert torch.equal(fusion.scale_weights(torch.device("cpu")), weights)
    with pytest.raises(ValueError, match="no part"), pixellm.ablated(fusion, "words"):
        pass


@pytest.fixture
def stickers(monkeypatch: pytest.MonkeyPatch, named_atlas: Atlas) -> Path:
    monkeypatch.setattr("core.stickers.atlas.load_atlas", lambda folder: named_atlas)
    monkeypatch.setattr(pixellm_data, "SIZE", 96)
    return Path("stickers")


def test_talks_about_stickers_have_the_truth_of_their_scene(stickers: Path) -> None:
    talks = list(pixellm_data.sticker_talks(stickers, 8))
    assert len(talks) == 8
    for talk in talks:
        assert talk.image.shape == (96, 96, 3) and 1 <= len(talk.asked) <= 3
        for asked in talk.asked:
            assert len(asked.truth) == len(asked.descriptions)
            objects = {mask.tobytes() for mask in asked.objects}
            assert {mask.tobytes() for mask in asked.truth} <= objects
            assert not asked.nothing or not len(asked.truth)
    unseen = list(pixellm_data.sticker_talks(stickers, 8, held_out_wording=True))
    for talk, other in zip(talks, unseen, strict=True):
        assert np.array_equal(talk.image, other.image), "the same scenes in other words"
    held = list(pixellm_data.sticker_talks(stickers, 2, held_out_style=True))
    assert not np.array_equal(held[0].image, talks[0].image)


def arguments(**values) -> argparse.Namespace:
    defaults = {"data": None, "format": None, "split": None, "limit": 2, "stickers": Path("x")}
    return argparse.Namespace(**{**defaults, **values})


def test_the_whole_protocol_on_a_tiny_model(
    stickers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixellm, "MAX_NEW_TOKENS", 10)
    model = small_model(learned_fusion=True)
    own, details = pixellm_run.run_pixellm(model, arguments())
    assert details["seen_styles"]["answers"] >= 2
    assert all(0 <= value <= 1 for value in own.values())
    assert set(details) == {"seen_styles", "unseen_wording", "held_out_style", "published"}


def test_a_perfect_model_would_have_perfect_figures(
    stickers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(model, talk):
        for asked in talk.asked:
            yield asked, asked

    def perfect(asked: Asked) -> Given:
        return Given(asked.truth, tuple(names[0] for names in asked.descriptions))

    monkeypatch.setattr(pixellm, "ask", answers)
    monkeypatch.setattr(pixellm, "given", perfect)
    talks = pixellm_data.sticker_talks(stickers, 30)
    own = pixellm_run.known(pixellm.evaluate(small_model(), talks).figures())
    assert set(own.values()) == {1.0}


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(ImageError, match="no picture with a question"):
        pixellm.evaluate(small_model(), [Talk(np.zeros((*SIZE, 3), np.uint8), ())])


def test_the_command_knows_the_protocol() -> None:
    protocol = command.PROTOCOLS["pixellm"]
    assert protocol.model == "pixellm_embedded"
    assert protocol.table is not None and "lisa_7b" in protocol.table({})
    rows = pixellm_published.beside("refcoco_testA", 0.78)
    assert [row["method"] for row in rows][2:4] == ["this run", "pixellm_7b"]
    lines = [line.split() for line in protocol.table({"beside": rows}).splitlines()]
    assert ["this", "run", "0.780", "-"] in lines
