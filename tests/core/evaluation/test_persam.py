"""PerSAM's protocol: pooled figures, the benchmark's pictures, PerSeg's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import ImageError
from core.evaluation import persam
from core.evaluation.data import Example
from core.evaluation.persam import Pooled, boundary_band, evaluate, presence_figures
from core.evaluation.persam_data import (
    DISTRACTORS,
    MIN_AREA,
    PICTURES,
    Subject,
    make_subjects,
    perseg_subjects,
)
from core.persam.config import FitConfig
from core.persam.target import Reference
from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.sam.predictor import Predictor
from core.stickers.atlas import Atlas


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    config = SamConfig(
        image_size=64,
        embed_dim=32,
        depth=1,
        num_heads=2,
        window_size=0,
        global_attn_indexes=(0,),
        out_chans=32,
        decoder_mlp_dim=16,
        iou_head_hidden_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Predictor(build_sam(config).eval().requires_grad_(False))


@pytest.fixture
def subject() -> Subject:
    random = np.random.default_rng(0)
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:50] = True

    def picture() -> np.ndarray:
        return random.integers(0, 255, (48, 64, 3)).astype(np.uint8)

    examples = tuple(Example(str(k), picture(), mask[None]) for k in range(2))
    return Subject("box", "boxes", Reference(picture(), mask), examples, (picture(),))


def test_iou_is_pooled_over_pictures() -> None:
    """Sums, not a mean of ratios: a small picture counts little."""
    pooled = Pooled()
    truth = np.zeros((10, 10), bool)
    truth[0, :2] = True
    pooled.add(truth, truth)
    large = np.ones((10, 10), bool)
    pooled.add(np.zeros_like(large), large)
    assert pooled.figures["miou"] == pytest.approx(2 / 102)
    assert pooled.figures["macc"] == pytest.approx(2 / 102)


def test_boundary_bands_have_the_width_of_the_definition() -> None:
    mask = np.zeros((300, 400), bool)
    mask[50:150, 60:200] = True  # 2 % of the diagonal of 500 is 10
    band = boundary_band(mask)
    assert band.sum() == 100 * 140 - 80 * 120
    assert boundary_band(np.ones((300, 400), bool))[0, 0], "the frame is an edge"


def test_all_variants_are_scored(predictor: Predictor, subject: Subject) -> None:
    scores = evaluate(predictor, [subject], fit=FitConfig(steps=3))
    figures = scores.figures()
    names = {*persam.MAIN, *persam.ABLATIONS, *persam.BUILD_UP, *persam.F_ABLATION}
    names |= {"centre_point", "nearest_feature", "persam_oracle", "persam_f_oracle"}
    assert {f"{name}_miou" for name in names} <= figures.keys()
    assert all(0 <= value <= 1 for value in figures.values())
    assert figures["persam_oracle_miou"] >= 0
    assert (len(scores.present), len(scores.absent)) == (2, 1)
    presence = presence_figures(scores, scores)
    assert presence.keys() == {
        "absent_recall",
        "absent_false_alarm",
        "presence_auc",
        "presence_threshold",
    }
    assert scores.details()["pictures"] == 2
    quick = evaluate(predictor, [subject], ablations=False, fit=FitConfig(steps=3))
    assert quick.figures()["persam_miou"] == figures["persam_miou"]


def test_subjects_keep_their_promises(small_atlas: Atlas) -> None:
    category = {info.object_id: "things" for info in small_atlas.infos}

    def subjects() -> list[Subject]:
        return list(make_subjects(small_atlas, category, 2, False, training_objects=True, seed=1))

    made = subjects()
    assert len({subject.name for subject in made}) == 2
    for subject in made:
        assert subject.distractors >= DISTRACTORS
        assert len(subject.examples) == len(subject.absent) == PICTURES
        for example in subject.examples:
            assert example.image.shape == (256, 256, 3)
            assert example.masks.shape == (1, 256, 256) and example.masks.mean() >= MIN_AREA
    again = subjects()
    assert np.array_equal(again[1].examples[2].image, made[1].examples[2].image)


def test_perseg_folder(tmp_path: Path) -> None:
    """The red channel at 128 is the object; pictures and masks are paired by name."""
    for name in ("cup00", "dog"):
        for kind in ("Images", "Annotations"):
            (tmp_path / kind / name).mkdir(parents=True)
        for stem in ("00", "01", "02"):
            Image.new("RGB", (30, 20), "teal").save(tmp_path / "Images" / name / f"{stem}.jpg")
            mask = Image.new("RGB", (30, 20))
            mask.paste((128, 0, 0), (3, 4, 13, 9))
            mask.save(tmp_path / "Annotations" / name / f"{stem}.png")
    cup, dog = perseg_subjects(tmp_path)
    assert (cup.name, dog.name) == ("cup00", "dog")
    assert cup.reference.mask.sum() == 50
    assert [example.name for example in cup.examples] == ["01", "02"]
    assert cup.examples[0].masks.shape == (1, 20, 30)
    (tmp_path / "Annotations" / "dog" / "01.png").unlink()
    with pytest.raises(ImageError, match="01.png"):
        list(perseg_subjects(tmp_path))
    with pytest.raises(ImageError, match="PerSeg"):
        list(perseg_subjects(tmp_path / "Images"))
