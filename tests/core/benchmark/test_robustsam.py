"""RobustSAM's benchmark on models small enough for a test."""

from dataclasses import replace

import pytest
import torch

from core.benchmark import robustsam
from core.benchmark.harness import OutputsDiffer
from core.robustsam.build import build_robust_sam
from core.robustsam.config import RobustSamConfig
from core.sam.predictor import Predictor
from tests.core.benchmark import tiny

TINY = replace(tiny.TINY, out_chans=64, decoder_num_heads=2)


def tiny_pair(norm_stats="running"):
    sam = tiny.tiny_sam(TINY)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        robust = build_robust_sam(RobustSamConfig(sam=TINY, early_dim=24, norm_stats=norm_stats))
        for name, parameter in robust.mask_decoder.named_buffers():
            if name.endswith("running_mean"):
                parameter.normal_()
    robust.load_state_dict(sam.state_dict(), strict=False)
    robust = robustsam.accelerate(robust.eval().requires_grad_(False))
    return sam, robust, "random, for a test"


@pytest.fixture
def small(one_warm_up, monkeypatch):
    monkeypatch.setattr(robustsam, "embedded_pair", tiny_pair)
    sizes = {"vit_b": TINY, "vit_l": TINY, "vit_h": TINY}
    monkeypatch.setattr(robustsam, "FULL_SIZES", sizes)
    monkeypatch.setattr(robustsam, "SIZE", (48, 64))
    monkeypatch.setattr(robustsam, "PROMPTS", 3)
    monkeypatch.setattr(robustsam, "FULL_PROMPTS", 2)
    monkeypatch.setattr(robustsam, "arithmetic_share", lambda config: 0.1)  # tested below
    memory = {"sam_mib": 1.0, "reference_mib": 9.0, "ours_mib": 3.0}
    monkeypatch.setattr(robustsam, "measure_memory", lambda: memory)


def test_all_figures_and_rows(small):
    report = robustsam.run(limit=1)
    assert report.figures.keys() == {
        "one_prompt_speedup",
        "sixteen_prompts_speedup",
        "comparison_speedup",
        "vit_b_prompts_speedup",
        "added_time_share",
        "added_arithmetic_share",
        "added_arithmetic_share_vit_b",
        "added_arithmetic_share_vit_l",
        "added_arithmetic_share_vit_h",
        "added_parameters",
        "memory_ratio",
        "added_memory_mib",
    }
    assert report.figures["memory_ratio"] == 3 and report.figures["added_memory_mib"] == 2
    assert len(report.details["rows"]) == 5
    assert all(row["pairs"] == 1 for row in report.details["rows"])
    assert "random" in report.models[0]


@pytest.mark.parametrize("norm_stats", ["image", "running"])
def test_the_reference_computes_what_ours_does(norm_stats, small):
    """Written anew from the published steps, so that equality means something."""
    _, robust, _ = tiny_pair(norm_stats)
    image, points = robustsam.picture((48, 64)), robustsam.clicks(3, (48, 64))
    published = robustsam.PublishedPath(robust)
    encoded = published.encode(image)
    with torch.no_grad():
        theirs = torch.cat([published.predict(*encoded, point) for point in points])
        ours = robustsam.our_masks(robustsam.RobustPredictor(robust), image, points)
        wrong = robustsam.our_masks(Predictor(robust), image, points)
    assert "max difference" in robustsam.check_logits(ours, theirs)
    with pytest.raises(OutputsDiffer, match="logits"):
        robustsam.check_logits(wrong, theirs)


def test_the_package_encoder_gives_the_same_early_feature(small):
    """The reference reads it off the package's encoder by a hook."""
    torch.manual_seed(0)
    robust = robustsam.random_robust("vit_b")
    image = robustsam.picture((48, 64))
    with torch.no_grad():
        embedding, early, _ = robustsam.PublishedPath(robust).encode(image)
        fast = robustsam.accelerate(robust)
        ours = robustsam.RobustPredictor(fast)
        pixels = ours._pixels(image, ours.encode(image).geometry)
        expected = fast.image_encoder.forward_features(pixels)
    torch.testing.assert_close((embedding, early), expected, rtol=1e-4, atol=1e-4)


def test_parameters_and_operations():
    _, robust, _ = tiny_pair()
    plain = sum(p.numel() for p in tiny.tiny_sam(TINY).parameters())
    assert plain + robustsam.added_parameters(robust) == sum(
        p.numel() for p in build_robust_sam(RobustSamConfig(sam=TINY, early_dim=24)).parameters()
    )
    a, b = torch.ones(4, 8), torch.ones(8, 16)
    assert robustsam.operations(lambda: a @ b) == 2 * 4 * 8 * 16
    maps = torch.ones(3, 8, 8)
    assert robustsam.operations(lambda: torch.fft.rfft2(maps)) >= 5 * 3 * 64 * 6


def test_what_robustsam_adds_grows_with_its_feature():
    small, large = (
        robustsam.arithmetic_share(RobustSamConfig(sam=TINY, early_dim=width)) for width in (8, 32)
    )
    assert 0 < small < large


def test_weights_of_another_sam_are_replaced(monkeypatch, tmp_path):
    entry = robustsam.catalogue()["robustsam_embedded"]
    missing = replace(entry, file=str(tmp_path / "none.safetensors"))
    monkeypatch.setattr(robustsam, "catalogue", lambda: {entry.id: missing})
    monkeypatch.setattr(robustsam, "embedded_sam", lambda: (tiny_pair()[0], "shipped weights"))
    monkeypatch.setattr(
        RobustSamConfig, "embedded", classmethod(lambda cls: cls(sam=TINY, early_dim=24))
    )
    sam, robust, weights = robustsam.embedded_pair()
    assert weights.startswith("random") and "none.safetensors" in weights
    assert torch.equal(sam.mask_decoder.iou_token.weight, robust.mask_decoder.iou_token.weight)
