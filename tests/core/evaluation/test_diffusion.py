"""Judges with known answers, and the protocol on a tiny model."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from core.errors import ImageError
from core.evaluation import __main__ as command
from core.evaluation import diffusion as evaluation
from core.evaluation.diffusion import BackdropJudge, ObjectJudge, Plan, margin_features, rates
from core.stickers.atlas import Atlas, SpriteInfo
from core.stickers.objects import find_object
from core.training import diffusion_pictures as pictures
from core.training.diffusion_backdrops import BACKDROPS
from tests.core.benchmark import tiny
from tests.core.dreambooth.conftest import model, tokenizer  # noqa: F401  (fixtures)

NAMES = ("apple", "cat", "gift")


@pytest.fixture
def atlas(small_atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> Atlas:
    """The small atlas, its first sprites those of a world of three objects."""
    monkeypatch.setattr(pictures, "WORLD_NAMES", NAMES)
    known = [SpriteInfo(pictures.STYLE, find_object(n).code_point, n, "train") for n in NAMES]
    return Atlas(**{**small_atlas.__dict__, "infos": (*known, *small_atlas.infos[len(known) :])})


def test_a_plan_goes_through_all_pairs_before_it_repeats() -> None:
    plan = Plan.of(14, 3, 4)
    pairs = list(zip(plan.items, plan.backdrops, strict=True))
    assert len(set(pairs[:12])) == 12 and pairs[12:] == pairs[:2]
    assert len(set(plan.seeds)) == 14, "a repeated pair is drawn from another seed"
    assert plan == Plan.of(14, 3, 4)


def test_margins_are_measured_without_the_middle() -> None:
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[:, 0] = 255
    same = image.clone()
    same[..., 8:-8, 8:-8] = 77
    features = margin_features(image)
    assert features.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]
    torch.testing.assert_close(margin_features(same)[:, :6], features[:, :6])
    image[..., ::2] = 0
    across, down = margin_features(image)[0, 6:].tolist()
    assert across == pytest.approx(1 / 3) and down == 0, "stripes are steps across"


def test_real_backdrops_are_told_apart(atlas: Atlas) -> None:
    judge = BackdropJudge(pictures.WorldGenerator(atlas, seed=1), atlas)
    world = pictures.WorldGenerator(atlas, seed=2)
    backdrops = torch.arange(len(BACKDROPS)).repeat(4)
    images = world.batch(world.choose(torch.arange(3), len(backdrops)), backdrops).images
    assert judge.is_right(images, backdrops.tolist()).float().mean() > 0.9
    assert not judge.is_right(images, (backdrops + 1).remainder(12).tolist()).any()


def test_the_first_of_the_candidates_is_right(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = ObjectJudge(tiny.tiny_clip())
    assert judge.features.shape[0] == len(NAMES)
    seen = torch.stack([judge.features[0], judge.features[0], judge.features[2]])
    monkeypatch.setattr(evaluation, "encode_pictures", lambda clip, images: seen[: len(images)])
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    assert judge.is_right(images, [0, 1, 2]).tolist() == [True, False, True]


def test_rates_are_listed_from_the_worst() -> None:
    assert rates(["a", "b", "a"], torch.tensor([True, False, False])) == {"b": 0.0, "a": 0.5}
    assert list(rates(["a", "b", "a"], torch.tensor([True, False, False]))) == ["b", "a"]


def test_all_figures_of_the_protocol(atlas: Atlas, model) -> None:  # noqa: F811
    figures, details = evaluation.evaluate_diffusion(model, tiny.tiny_clip(), atlas, 4)
    rated = {"right_object_rate", "right_background_rate"}
    assert figures.keys() == {f"{p}{name}" for p in ("", "real_", "vae_") for name in rated} | {
        "vae_psnr"
    }
    assert all(0 <= figures[name] <= 1 for name in figures if name != "vae_psnr")
    assert figures["real_right_background_rate"] >= 0.75, "the judge knows real ones"
    assert sum(details["by_object"].values()) <= len(NAMES)


def test_drawing_depends_on_the_plan_only(atlas: Atlas, model) -> None:  # noqa: F811
    plan = Plan.of(3, 3, 2)
    first, again = (evaluation.draw_pictures(model, plan) for _ in range(2))
    assert first.shape == (3, 3, 32, 32) and torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_the_protocol_is_registered_and_takes_no_photographs() -> None:
    assert command.PROTOCOLS["diffusion"].model == "diffusion_embedded"
    with pytest.raises(ImageError, match="leave --data out"):
        evaluation.run_diffusion(None, argparse.Namespace(data=Path("somewhere")))
