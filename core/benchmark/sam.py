"""SAM: our path against segment_anything's own predictor and mask generator, same weights.

ViT-B at 1024 px with random weights (relative position tables not zero, for a zero bias would be
free), and the embedded model. Expect on two CPU cores, in about five minutes: encoder 1.3 times
as fast or better at a half of the memory or less, 32 prompts 1.5, second click 5, everything 1.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from core.benchmark.harness import (
    OutputsDiffer,
    Pairs,
    check_close,
    environment,
    measure_pairs,
    peak_memory_mib,
)
from core.engine.cache import EmbeddingCache
from core.engine.device import MIB, describe, pick_device
from core.images import load
from core.masks import iou
from core.models.catalogue import PROJECT, catalogue
from core.models.loading import find_local, read_state_dict
from core.reports import Report
from core.sam.build import build_from_entry, build_sam
from core.sam.config import SamConfig
from core.sam.everything import EverythingConfig, segment_everything
from core.sam.fast_encoder import accelerate
from core.sam.predictor import Predictor
from core.settings import settings

SEED = 0
PICTURE = PROJECT / "assets" / "examples" / "coffee.jpg"
SIZES = {"256x256": (256, 256), "640x480": (480, 640), "1500x2250": (2250, 1500)}
MEGAPIXEL = (1000, 1000)
BATCH = 32
MANY = 64
EMBEDDING_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 1e-3
MASK_IOU = 0.99

Function = Callable[[], Any]


@dataclass(frozen=True)
class Bench:
    """Where and how long to measure; collects the rows of the report."""

    device: torch.device
    limit: int | None
    rows: list[dict[str, Any]]

    def compare(self, case: str, check: str, reference: Function, ours: Function) -> Pairs:
        """Time a case whose outputs were checked, and keep its row."""
        pairs = measure_pairs(reference, ours, device=self.device, limit=self.limit)
        self.rows.append({"case": case, "check": check, **pairs.row()})
        return pairs


def run(limit: int | None) -> Report:
    """Measure all cases; figures are ratios reference over ours.

    Args:
        limit: at most so many pairs of each case.

    Raises:
        OutputsDiffer: an output is not what the package computes.
    """
    bench = Bench(pick_device(settings.device), limit, [])
    with torch.no_grad():
        embedded, weights = embedded_sam()
        embedded = embedded.to(bench.device)
        figures = {
            "encoder_speedup": measure_encoder(bench),
            "batch_speedup": measure_batch(bench, embedded),
            "second_click_speedup": measure_second_click(bench, "embedded", embedded),
            "vit_b_second_click_speedup": measure_second_click(
                bench, "ViT-B", vit_b().to(bench.device)
            ),
            "everything_speedup": measure_everything(bench, embedded, weights),
        }
        for name in SIZES:
            measure_size(bench, embedded, name)
    memory = measure_encoder_memory()
    figures["encoder_memory_ratio"] = memory["reference_mib"] / memory["ours_mib"]
    details = {
        "rows": bench.rows,
        "encoder_memory": memory,
        "weights": {"sam_vit_b": f"random, seed {SEED}", "sam_embedded": weights},
        "pairs_limited_to": limit,
        "environment": environment(bench.device),
    }
    models = ["sam_vit_b (random weights)", f"sam_embedded ({weights})"]
    data = f"{PICTURE.name} and random pixels" + (f", {limit} pairs" if limit else "")
    return Report("benchmark sam", models, data, describe(bench.device), figures, details)


def vit_b() -> Sam:
    """The published ViT-B's sizes, with seeded random weights, by the package's own encoder."""
    torch.manual_seed(SEED)
    sam = build_sam(SamConfig.vit_b())
    for name, parameter in sam.image_encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return sam.eval().requires_grad_(False)


def embedded_sam() -> tuple[Sam, str]:
    """The embedded model, and whether its weights are the shipped ones."""
    entry = catalogue()["sam_embedded"]
    if path := find_local(entry):
        return build_from_entry(entry, read_state_dict(path)), "shipped weights"
    torch.manual_seed(SEED)
    sam = build_sam(SamConfig.embedded())
    return sam.eval().requires_grad_(False), f"random, seed {SEED}: its weights are not here"


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The example picture at a size (H, W)."""
    image = Image.fromarray(load(PICTURE).image)
    return np.array(image.resize(size[::-1], Image.Resampling.BICUBIC))


def clicks(count: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Seeded points (N, 2) as x, y within a picture (H, W)."""
    random = np.random.default_rng(SEED)
    return (random.random((count, 2)) * (size[1] - 1, size[0] - 1)).astype(np.float32)


def pixels(device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(1, 3, 1024, 1024, generator=generator).to(device)


def measure_encoder(bench: Bench) -> float:
    """ViT-B's encoder on a normalised picture, and its decoder on one and on 32 prompts."""
    sam = vit_b().to(bench.device)
    fast = accelerate(sam)
    x = pixels(bench.device)
    check = check_close(
        "embeddings", fast.image_encoder(x), sam.image_encoder(x), EMBEDDING_TOLERANCE
    )
    pairs = bench.compare(
        "ViT-B, encode 1024x1024",
        check,
        lambda: sam.image_encoder(x),
        lambda: fast.image_encoder(x),
    )
    measure_prompts(bench, "ViT-B", sam, fast, picture(SIZES["640x480"]), 1)
    measure_prompts(bench, "ViT-B", sam, fast, picture(SIZES["640x480"]), 8)
    return pairs.ratio


def measure_prompts(
    bench: Bench, name: str, sam: Sam, fast: Sam, image: NDArray[np.uint8], count: int
) -> Pairs:
    """Points on an encoded picture to masks of its size: one by one against our batch."""
    reference = SamPredictor(sam)
    reference.set_image(image)
    ours = Predictor(fast)
    embedding = ours.encode(image)
    points = clicks(count, image.shape[:2])

    def one_by_one() -> list[NDArray]:
        return [reference.predict(point[None], np.ones(1))[2] for point in points]

    def batch() -> torch.Tensor:
        prediction = ours.predict_batch(
            embedding, point_coords=points[:, None], point_labels=np.ones((count, 1))
        )
        prediction.masks()
        return prediction.low_res_logits.cpu()

    expected = torch.from_numpy(np.stack(one_by_one()))
    check = check_close("logits", batch(), expected, LOGIT_TOLERANCE)
    height, width = image.shape[:2]
    case = f"{name}, {count} prompts on an encoded picture of {width}x{height}"
    return bench.compare(case, check, one_by_one, batch)


def measure_batch(bench: Bench, sam: Sam) -> float:
    """32 prompts at once against the package one by one, masks included."""
    image = picture(SIZES["640x480"])
    return measure_prompts(bench, "embedded", sam, accelerate(sam), image, BATCH).ratio


def measure_second_click(bench: Bench, name: str, sam: Sam) -> float:
    """A second click on a picture of a megapixel, in a server that keeps no visitor's state.

    The package's predictor has to encode again; ours finds the embedding by the content.
    """
    image = picture(MEGAPIXEL)
    point = clicks(1, MEGAPIXEL)
    reference = SamPredictor(sam)
    ours = Predictor(accelerate(sam), cache=EmbeddingCache(64 * MIB))

    def encode_again() -> NDArray:
        reference.set_image(image)
        return reference.predict(point, np.ones(1))[2]

    def from_cache() -> torch.Tensor:
        prediction = ours.predict(ours.encode(image), point_coords=point, point_labels=np.ones(1))
        prediction.masks()
        return prediction.low_res_logits[0].cpu()

    check = check_close("logits", from_cache(), torch.from_numpy(encode_again()), LOGIT_TOLERANCE)
    case = f"{name}, second click on 1000x1000"
    return bench.compare(case, check, encode_again, from_cache).ratio


def measure_everything(bench: Bench, sam: Sam, weights: str) -> float:
    """Everything mode on a megapixel, encoding included, with the embedded settings."""
    image = picture(MEGAPIXEL)
    ours = Predictor(accelerate(sam))
    values = vars(EverythingConfig.embedded())
    shared = {
        "points_per_side": values["points_per_side"],
        "pred_iou_thresh": values["pred_iou_thresh"],
        "stability_score_thresh": values["stability_score_thresh"],
    }
    if weights != "shipped weights":  # random scores: let a third of the masks pass
        shared |= {"pred_iou_thresh": upper_third(ours, image), "stability_score_thresh": 0.0}
    config = EverythingConfig(**shared)
    generator = SamAutomaticMaskGenerator(sam, **shared)
    check = compare_records(segment_everything(ours, image, config), generator.generate(image))
    pairs = bench.compare(
        f"embedded, everything on 1000x1000, {shared['points_per_side']} points per side",
        check,
        lambda: generator.generate(image),
        lambda: segment_everything(ours, image, config),
    )
    return pairs.ratio


def upper_third(predictor: Predictor, image: NDArray[np.uint8]) -> float:
    """The predicted IoU that a third of the masks at random points exceed."""
    points = clicks(MANY, image.shape[:2])
    prediction = predictor.predict_batch(
        predictor.encode(image), point_coords=points[:, None], point_labels=np.ones((MANY, 1))
    )
    return float(prediction.iou_predictions.quantile(2 / 3))


def compare_records(ours: list[Any], reference: list[dict[str, Any]]) -> str:
    """Check that both found the same masks in the same order."""
    if len(ours) != len(reference):
        raise OutputsDiffer(f"{len(ours)} masks against the package's {len(reference)}")
    overlaps = [iou(a.mask, b["segmentation"]) for a, b in zip(ours, reference, strict=True)]
    worst = min(overlaps, default=1.0)
    if worst < MASK_IOU:
        raise OutputsDiffer(f"masks agree at IoU {worst:.3f}; {MASK_IOU} is required")
    return f"{len(ours)} masks, lowest IoU {worst:.4f}"


def measure_size(bench: Bench, sam: Sam, name: str) -> None:
    """Rows for a picture's size: encoding it, and one and 64 prompts on its embedding."""
    image = picture(SIZES[name])
    fast = accelerate(sam)
    reference, ours = SamPredictor(sam), Predictor(fast)
    reference.set_image(image)
    features = ours.encode(image).features
    check = check_close("embeddings", features, reference.features, EMBEDDING_TOLERANCE)
    bench.compare(
        f"embedded, encode {name}",
        check,
        lambda: reference.set_image(image),
        lambda: ours.encode(image),
    )
    for count in (1, MANY):
        measure_prompts(bench, "embedded", sam, fast, image, count)


def measure_encoder_memory() -> dict[str, float]:
    """Peak memory of one ViT-B encode on each side, and of the model alone, MiB."""
    target = "core.benchmark.sam:encode_once"
    return {f"{side}_mib": peak_memory_mib(target, side) for side in ("model", "reference", "ours")}


@torch.no_grad()
def encode_once(side: str) -> None:
    """Build ViT-B and, but for side "model", encode one picture; for a fresh process."""
    device = pick_device(settings.device)
    sam = vit_b().to(device)
    x = pixels(device)
    if side != "model":
        (accelerate(sam) if side == "ours" else sam).image_encoder(x)
