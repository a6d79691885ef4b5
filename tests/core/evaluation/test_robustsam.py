"""RobustSAM's protocol: with predictors whose answers are known, and whole on tiny models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import ImageError, ModelUnavailable
from core.evaluation import __main__ as command
from core.evaluation import robustsam
from core.evaluation.data import Example
from core.evaluation.layouts import DegradedExample
from core.evaluation.robustsam import AS_TAKEN, CLEAR, Plan, Version, evaluate, gain_table
from core.evaluation.robustsam_published import INDEPENDENT, PAPER
from core.reports import Report
from core.robustsam.build import build_robust_sam
from core.robustsam.config import RobustSamConfig
from core.robustsam.pipeline import SharedEncoding
from core.robustsam.predictor import RobustPredictor
from core.sam.config import SamConfig
from core.sam.geometry import Geometry
from core.sam.predictor import Prediction

SIZE = 64
DARK_AND_NOISY = ("brightness", "gauss_noise")
QUICK = Plan(kinds=DARK_AND_NOISY, severities=(1, 3, 5), three=False, restored=False)


class Known:
    """Answers with a share of each true mask, by what the picture looks like.

    Args:
        shares: of the masks' columns, from the left, that it finds in pictures of the names
            "clear", "dark" and "noisy"; the best of three readings is the second.
        of_three: the share that this one has everywhere; None: as the single mask.
    """

    def __init__(
        self, masks: np.ndarray, shares: dict[str, float], of_three: float | None = None
    ) -> None:
        self.truth, self.shares, self.of_three = masks, shares, of_three
        self.multimask = True
        self.asked: list[dict[str, Any]] = []

    def encode(self, image: np.ndarray) -> str:
        if np.ptp(image) == 0:
            return "clear" if image[0, 0, 0] == 200 else "dark"
        return "noisy"

    def predict_batch(self, embedding: str, **prompt: Any) -> Prediction:
        self.asked.append(prompt)
        three = prompt["multimask_output"]
        share = self.shares[embedding]
        if three and self.of_three is not None:
            share = self.of_three
        found = np.zeros_like(self.truth)
        for mask, answer in zip(self.truth, found, strict=True):
            columns = np.flatnonzero(mask.any(axis=0))
            kept = columns[: round(share * len(columns))]
            answer[:, kept] = mask[:, kept]
        logits = torch.from_numpy(found).float()[:, None] * 20 - 10
        scores = torch.full((len(logits), 1), 0.7)
        if three:
            logits = torch.cat([-logits, logits, -logits], dim=1)
            scores = torch.tensor([[0.1, 0.9, 0.2]]).expand(len(logits), 3)
        return Prediction(logits, scores, Geometry.of((SIZE, SIZE), SIZE))


@pytest.fixture
def example() -> Example:
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 8:24, 8:24] = True
    masks[1, 40:60, 30:50] = True
    return Example("two", np.full((SIZE, SIZE, 3), 200, np.uint8), masks)


def known(example: Example, of_three: float | None = None, **shares: float) -> Any:
    return Known(example.masks, {"clear": 1, "dark": 1, "noisy": 1, **shares}, of_three)


def test_every_figure_has_its_meaning(example: Example) -> None:
    """SAM finds a half in the dark and a quarter in noise, RobustSAM all but a quarter in noise."""
    sam, robust = known(example, dark=0.5, noisy=0.25), known(example, noisy=0.75)
    scores = evaluate(sam, robust, [example, example], QUICK)
    figures = scores.figures(unseen=("gauss_noise", "snow"))
    expected = {
        "sam_points_miou": (0.5 + 0.25) / 2,
        "robust_points_miou": (1 + 0.75) / 2,
        "sam_points_dice": (2 / 3 + 0.4) / 2,
        "gain_points": 0.5,
        "gain_boxes": 0.5,
        "gain_points_best_ways": 0.5,
        "worst_gain": 0.5,
        "worst_gain_boxes": 0.5,
        "gain_clear": 0,
        "gain_clear_boxes": 0,
        "gain_unseen": 0.5,
        "gain_unseen_boxes": 0.5,
        "sam_clear_points_miou": 1,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    area = example.masks.mean(axis=(1, 2)).mean()
    accuracy = 1 - area * (0.5 + 0.75) / 2
    assert figures["sam_points_pixel_accuracy"] == pytest.approx(accuracy)
    assert not any("restored" in name or "single" in name for name in figures), "not asked for"
    assert "gain_unseen" not in scores.figures(unseen=("snow",))


def test_the_worst_kind_and_the_severities_that_count(example: Example) -> None:
    """RobustSAM is worse than SAM in the dark alone; severity 1 is in the table only."""
    sam, robust = known(example, noisy=0.5), known(example, dark=0.75)
    scores = evaluate(sam, robust, [example], QUICK)
    assert scores.figures()["gain_points"] == pytest.approx((0.5 - 0.25) / 2)
    assert scores.figures()["worst_gain"] == pytest.approx(-0.25)
    assert scores.kind_gains("boxes") == pytest.approx({"brightness": -0.25, "gauss_noise": 0.5})
    shown = [(v.kind, v.severity) for v in (scores.versions[i] for i in scores.harsh())]
    assert shown == [(kind, severity) for kind in DARK_AND_NOISY for severity in (3, 5)]
    rows = scores.details()["table"]
    assert len(rows) == 1 + 2 * 3
    assert rows[1]["severity"] == 1
    assert rows[1]["robust_points"]["iou"] == 0.75
    low, high = scores.details(["gauss_noise"])["interval_95"]["gain_unseen_points"]
    assert (low, high) == pytest.approx((0.5, 0.5))


def test_the_table_on_the_terminal_has_every_kind_and_severity(example: Example) -> None:
    """SAM finds a half in the dark and a quarter in noise, RobustSAM all but a quarter in noise."""
    sam, robust = known(example, dark=0.5, noisy=0.25), known(example, clear=0.5, noisy=0.75)
    details = evaluate(sam, robust, [example], QUICK).details()
    lines = [line.split() for line in gain_table(details["table"]).splitlines()]
    assert lines[1:3] == [["points", "boxes"], ["severity", *"135135"]]
    assert lines[3:] == [
        ["brightness", *["+0.500"] * 6],
        ["gauss_noise", *["+0.500"] * 6],
        ["clear", "points", "-0.500,", "boxes", "-0.500"],
    ]
    narrow = evaluate(sam, robust, [example], Plan(kinds=(), restored=False)).table()
    assert gain_table(narrow).splitlines()[-1].split() == [AS_TAKEN, "-0.500", "-0.500"]
    del narrow[0]["robust_boxes"]
    assert gain_table(narrow).splitlines()[-1].split() == [AS_TAKEN, "-0.500", "-"]


def test_the_command_prints_the_table_and_the_report_holds_it(
    example: Example, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluate(known(example, dark=0.25), known(example), [example], QUICK)
    both = {"seen_styles": scores.details(), "held_out_style": scores.details()}
    for details, count in ((both, 2), (scores.details(), 1)):
        report = Report("robustsam", ["m"], "d", "cpu", scores.figures(), details, commit="x")
        monkeypatch.setattr(command, "run", lambda args, report=report: report)
        command.main(["robustsam"])
        printed = capsys.readouterr().out
        assert printed.count("RobustSAM - SAM") == count
        assert printed.count("+0.750 +0.750 +0.750") == 2 * count
        assert ("held out style: RobustSAM" in printed) == (count == 2)


def test_both_ways_of_both_models_are_reported(example: Example) -> None:
    """A model that answers better by its other way is not compared by the worse one alone."""
    sam, robust = known(example, of_three=0.75, dark=0.5), known(example, of_three=0.25)
    plan = Plan(kinds=("brightness",), severities=(1, 4), restored=False)
    scores = evaluate(sam, robust, [example], plan)
    figures = scores.figures()
    for prompt in ("points", "boxes"):
        assert figures[f"sam_{prompt}_miou"] == pytest.approx(0.5)
        assert figures[f"sam_{prompt}_three_miou"] == pytest.approx(0.75)
        assert figures[f"gain_{prompt}"] == pytest.approx(0.5)
        assert figures[f"gain_{prompt}_three"] == pytest.approx(0.25 - 0.75)
        assert figures[f"gain_{prompt}_best_ways"] == pytest.approx(1 - 0.75)
        assert figures[f"gain_clear_{prompt}_three"] == pytest.approx(0.25 - 0.75)
    assert "sam_points_three" not in scores.table()[1], "not at severity 1"


def test_prompts_are_the_same_for_all(example: Example) -> None:
    sam, robust = known(example), known(example)
    evaluate(sam, robust, [example], QUICK)
    assert len(sam.asked) == len(robust.asked) == 2 * (1 + 2 * 3)
    for ours, theirs in zip(robust.asked, sam.asked, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    points, boxes = sam.asked[:2]
    assert not points["multimask_output"] and not boxes["multimask_output"]
    for mask, ((x, y),) in zip(example.masks, points["point_coords"], strict=True):
        assert mask[int(y), int(x)]
    assert boxes["boxes"].tolist() == [[8, 8, 24, 24], [30, 40, 50, 60]]


def test_masks_follow_the_pixels_unless_published() -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:44, 20:44] = True
    image = np.where(mask[..., None], np.uint8(250), np.uint8(10)).repeat(3, axis=2)
    example, version = Example("one", image, mask[None]), Version("elastic_transform", 5)
    moved_image, moved = Plan().show(example, version, 0)
    same_image, same = Plan(move_masks=False).show(example, version, 0)
    assert np.array_equal(moved_image, same_image) and np.array_equal(same[0], mask)
    white = moved_image[..., 0] > 128
    assert (white & moved[0]).sum() / (white | moved[0]).sum() > 0.95
    assert (white & mask).sum() / (white | mask).sum() < 0.95


def test_objects_that_left_the_frame_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, :, 0], masks[1, 20:40, 20:40] = True, True
    example = Example("edge", np.zeros((SIZE, SIZE, 3), np.uint8), masks)

    class Pushed:
        image, moves_pixels = example.image, True

        @staticmethod
        def displace_mask(mask: np.ndarray) -> np.ndarray:
            return np.pad(mask, ((0, 0), (0, 1)))[:, 1:]

    monkeypatch.setattr(robustsam, "degrade", lambda *args, **options: Pushed)
    _, left = Plan().show(example, Version("elastic_transform", 3), 0)
    assert len(left) == 1 and left[0, 30, 30]
    gone = Example("gone", example.image, masks[:1])
    scores = evaluate(
        known(example), known(example), [gone], Plan(kinds=("elastic_transform",), restored=False)
    )
    assert np.isnan(scores.mean("sam_points", scores.harsh()))


def test_a_folder_brings_its_own_degradations(example: Example, tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE), (90, 90, 90)).save(tmp_path / "a.png")
    own = DegradedExample("a", example.image, example.masks, {"sandstorm": tmp_path / "a.png"})
    scores = evaluate(known(example, dark=0.5), known(example), [own], QUICK)
    assert scores.versions == [Version(CLEAR, None), Version("sandstorm", None)]
    assert scores.figures()["gain_points"] == pytest.approx(0.5)
    average = scores.published_average()
    assert average["sam_points_average_iou"] == pytest.approx((0.5 + 1) / 2)
    other = DegradedExample("b", example.image, example.masks, {})
    with pytest.raises(ImageError, match="b comes in other degradations"):
        evaluate(known(example), known(example), [own, other], QUICK)


def test_pictures_of_bad_weather_are_taken_as_they_are(example: Example) -> None:
    plan = Plan(kinds=(), restored=False)
    scores = evaluate(known(example, clear=0.5), known(example), [example], plan)
    assert scores.versions == [Version(AS_TAKEN, None)]
    figures = scores.figures()
    assert figures["gain_points"] == pytest.approx(0.5)
    assert "gain_clear" not in figures
    with pytest.raises(ImageError, match="no picture"):
        evaluate(known(example), known(example), [], plan)


@pytest.fixture(scope="module")
def models() -> tuple[SharedEncoding, RobustPredictor]:
    config = SamConfig(
        image_size=64,
        embed_dim=32,
        depth=2,
        num_heads=2,
        window_size=0,
        global_attn_indexes=(0, 1),
        out_chans=64,
        decoder_mlp_dim=16,
        decoder_num_heads=2,
        iou_head_hidden_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_robust_sam(RobustSamConfig(sam=config, early_dim=32, multimask=True))
    from core.engine.cache import EmbeddingCache
    from core.sam.fast_encoder import accelerate

    sam = accelerate(sam.eval().requires_grad_(False))
    robust = RobustPredictor(sam, model_id="tiny", cache=EmbeddingCache(2**20))
    return SharedEncoding(sam, source=robust), robust


def test_the_whole_protocol_on_tiny_models(
    models: tuple[SharedEncoding, RobustPredictor], example: Example, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, SIZE, 3)).astype(np.uint8)
    noisy = Example("noise", image, example.masks[:, :48])
    scores = evaluate(*models, [noisy], Plan(kinds=DARK_AND_NOISY, severities=(1, 3)))
    figures = scores.figures(unseen=("brightness",))
    for model in ("sam", "robust", "restored"):
        for prompt in ("points", "boxes"):
            for name in (f"{prompt}_miou", f"{prompt}_three_miou", f"clear_{prompt}_miou"):
                assert 0 <= figures[f"{model}_{name}"] <= 1
    assert {"gain_unseen", "gain_unseen_boxes", "worst_gain", "worst_gain_boxes"} <= figures.keys()
    report = Report("robustsam", ["tiny"], "noise", "cpu", figures, scores.details(["brightness"]))
    report.write(tmp_path / "report.json")
    assert "gain_points" in report.table()


def test_published_figures_are_told_with_their_remarks() -> None:
    dice = PAPER["bdd100k_lis"]["robustsam"]["points_dice"]
    assert str(dice) in PAPER["remarks"][0] and "0.542" in PAPER["remarks"][0]
    assert INDEPENDENT["msra10k_points"]["robustsam_l"] == {
        "degrade_iou": 0.876,
        "clear_iou": 0.901,
    }


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (["robustsam"], "robustsam_embedded"),
        (["robustsam-prior"], "robustsam_embedded"),
        (["sam"], "sam_embedded"),
        (["robustsam", "--model", "robustsam_vit_b"], "robustsam_vit_b"),
    ],
)
def test_the_default_model_is_the_protocols(
    arguments: list[str], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> Report:
        seen.append(args)
        return Report(args.name, [], "d", "cpu", {}, commit="x")

    monkeypatch.setattr(command, "run", run)
    command.main([*arguments, "--published-masks"])
    assert seen[0].model == model and seen[0].published_masks


def test_a_sam_without_a_robust_path_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="sam_embedded has no robust path"):
        with command._both_paths(None, "sam_embedded"):  # type: ignore[arg-type]
            pass


def test_published_models_saw_all_kinds() -> None:
    assert command._unseen_kinds("robustsam_vit_b") == ()
    assert command._unseen_kinds("robustsam_embedded") == ("snow", "motion_blur")
