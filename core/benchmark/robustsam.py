"""RobustSAM: our path against the published code's way of doing it, same weights.

That way: anti-degradation features of the picture worked out again for each prompt, by a full
complex Fourier transform with angles; tokens one by one, and all sixteen masks of which one is
used; one prompt at a time (several crash it); SAM and RobustSAM each encode the picture. In the
reference's favour, its prompts share one encoding here; its only entry point encodes for each.

Measured too: what RobustSAM adds to SAM in time, arithmetic, parameters and memory. Expect on two
CPU cores, in about five minutes: one prompt 1.2 times as fast, sixteen on an encoded picture 4,
both models on a new picture 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from core.benchmark._robustsam_published import PublishedPath
from core.benchmark.harness import check_close, environment, measure_pairs, peak_memory_mib
from core.benchmark.sam import Bench, clicks, embedded_sam, picture
from core.engine.device import describe, pick_device
from core.errors import ModelUnavailable
from core.models.catalogue import catalogue
from core.models.loading import read_state_dict
from core.reports import Report
from core.robustsam.build import build_from_entry, build_robust_sam
from core.robustsam.config import RobustSamConfig
from core.robustsam.predictor import RobustEmbedding, RobustPredictor
from core.sam.build import build_sam
from core.sam.config import SamConfig
from core.sam.fast_decoder import decode_prompts
from core.sam.fast_encoder import accelerate
from core.sam.geometry import Geometry
from core.sam.predictor import Predictor
from core.settings import settings

SEED = 0
SIZE = (480, 640)
PROMPTS = 16
FULL_PROMPTS = 4  # of ViT-B: one takes the published way seconds
LOGIT_TOLERANCE = 1e-3  # of the range of the logits
FULL_SIZES = {"vit_b": SamConfig.vit_b(), "vit_l": SamConfig.vit_l(), "vit_h": SamConfig.vit_h()}
BARS = {"added_time_share": 0.25, "added_arithmetic_share": 0.15}

Image = NDArray[np.uint8]


def run(limit: int | None) -> Report:
    """Measure all cases; speed-ups are ratios reference over ours, shares are of SAM's cost.

    Args:
        limit: at most so many pairs of each case.

    Raises:
        OutputsDiffer: a mask is not what the published way computes.
    """
    bench = Bench(pick_device(settings.device), limit, [])
    sam, robust, weights = embedded_pair()
    sam, robust = sam.to(bench.device), robust.to(bench.device)
    with torch.no_grad():
        figures = {
            "one_prompt_speedup": measure_new_picture(bench, robust),
            "sixteen_prompts_speedup": measure_prompts(bench, robust),
            "comparison_speedup": measure_comparison(bench, sam, robust),
            "vit_b_prompts_speedup": measure_full_prompts(bench),
            "added_time_share": measure_added_time(bench, sam, robust),
            **added_arithmetic(),
            "added_parameters": float(added_parameters(robust)),
        }
    memory = measure_memory()
    figures["memory_ratio"] = memory["reference_mib"] / memory["ours_mib"]
    figures["added_memory_mib"] = memory["ours_mib"] - memory["sam_mib"]
    details = {
        "rows": bench.rows,
        "vit_b_memory": memory,
        "bars": BARS,
        "weights": {"vit_b": f"random, seed {SEED}", "robustsam_embedded": weights},
        "pairs_limited_to": limit,
        "environment": environment(bench.device),
    }
    models = [f"robustsam_embedded ({weights.split(':')[0]})", "robustsam_vit_b (random weights)"]
    data = "an example picture" + (f", {limit} pairs" if limit else "")
    return Report("benchmark robustsam", models, data, describe(bench.device), figures, details)


def embedded_pair() -> tuple[Sam, Sam, str]:
    """The embedded SAM, the RobustSAM on it, and whether the latter's weights are shipped ones.

    Weights that are missing, or belong to another SAM by now, are replaced by random ones: no
    figure here depends on them.
    """
    sam, weights = embedded_sam()
    entry = catalogue()["robustsam_embedded"]
    try:
        return sam, build_from_entry(entry, read_state_dict(Path(entry.file))), weights
    except ModelUnavailable as error:
        weights = f"random, seed {SEED}: {error}"
    torch.manual_seed(SEED)
    robust = build_robust_sam(RobustSamConfig.embedded())
    robust.load_state_dict(sam.state_dict(), strict=False)
    return sam, robust.eval().requires_grad_(False), weights


def measure_new_picture(bench: Bench, robust: Sam) -> float:
    """One click on a new picture, encoding included."""
    image, (point,) = picture(SIZE), clicks(1, SIZE)
    published, ours = PublishedPath(robust), RobustPredictor(robust)

    def theirs() -> Tensor:
        return published.predict(*published.encode(image), point)

    def mine() -> Tensor:
        return our_masks(ours, image, point[None])

    check = check_logits(mine(), theirs())
    return bench.compare("embedded, one click on a new picture", check, theirs, mine).ratio


def measure_prompts(bench: Bench, robust: Sam) -> float:
    """Sixteen clicks on an encoded picture: one by one against our batch."""
    image, points = picture(SIZE), clicks(PROMPTS, SIZE)
    published, ours = PublishedPath(robust), RobustPredictor(robust)
    encoded, embedding = published.encode(image), ours.encode(image)

    def theirs() -> Tensor:
        return torch.cat([published.predict(*encoded, point) for point in points])

    def mine() -> Tensor:
        return our_prompts(ours, embedding, points)

    case = f"embedded, {PROMPTS} clicks on an encoded picture"
    return bench.compare(case, check_logits(mine(), theirs()), theirs, mine).ratio


def measure_comparison(bench: Bench, sam: Sam, robust: Sam) -> float:
    """SAM and RobustSAM on a new picture: two encodings and the package against one of ours."""
    image, points = picture(SIZE), clicks(1, SIZE)
    stock, published = SamPredictor(sam), PublishedPath(robust)
    plain, ours = Predictor(accelerate(sam)), RobustPredictor(robust)

    def theirs() -> Tensor:
        stock.set_image(image)
        stock.predict(points, np.ones(1))
        return published.predict(*published.encode(image), points[0])

    def mine() -> Tensor:
        embedding = ours.encode(image)
        plain.predict(embedding, point_coords=points, point_labels=np.ones(1)).masks()
        return our_prompts(ours, embedding, points)

    case = "embedded, one click answered by both models on a new picture"
    return bench.compare(case, check_logits(mine(), theirs()), theirs, mine).ratio


def measure_full_prompts(bench: Bench) -> float:
    """Prompts on an encoded picture at ViT-B's size, where the features are expensive."""
    robust = random_robust("vit_b").to(bench.device)
    decoder, ours = robust.mask_decoder, RobustPredictor(robust)
    generator = torch.Generator().manual_seed(SEED)
    grid = robust.prompt_encoder.image_embedding_size
    embedding, early = (
        torch.randn(1, width, *grid, generator=generator).to(bench.device)
        for width in (decoder.transformer_dim, decoder.early_dim)
    )
    geometry = Geometry.of(SIZE, robust.image_encoder.img_size)
    points = clicks(FULL_PROMPTS, SIZE)
    published = PublishedPath(robust)
    image_features = decoder.image_features(early, embedding)

    def theirs() -> Tensor:
        return torch.cat([published.predict(embedding, early, geometry, p) for p in points])

    def mine() -> Tensor:
        encoded = RobustEmbedding(embedding, geometry, "", "", image_features)
        return our_prompts(ours, encoded, points)

    case = f"ViT-B, {FULL_PROMPTS} clicks on an encoded picture"
    return bench.compare(case, check_logits(mine(), theirs()), theirs, mine).ratio


def measure_added_time(bench: Bench, sam: Sam, robust: Sam) -> float:
    """One click on a new picture by RobustSAM, as a share of SAM's time more; and its row."""
    case = "embedded, one click on a new picture: SAM (reference) and RobustSAM (ours)"
    functions = [click_once(Predictor(accelerate(sam))), click_once(RobustPredictor(robust))]
    return 1 / bench.compare(case, "timing only", *functions).ratio - 1


def added_time_share(sam: Predictor, robust: Predictor) -> float:
    """The same for two predictors; whatever they have cached is left aside."""
    functions = [click_once(Predictor(sam.sam)), click_once(RobustPredictor(robust.sam))]
    return 1 / measure_pairs(*functions, device=robust.device).ratio - 1


def click_once(predictor: Predictor) -> Callable[[], Any]:
    """One click in the model's documented way on the example picture, to masks."""
    image, points = picture(SIZE), clicks(1, SIZE)

    def click() -> NDArray[np.bool_]:
        prediction = predictor.predict(
            predictor.encode(image),
            point_coords=points,
            point_labels=np.ones(1),
            multimask_output=predictor.multimask,
        )
        return prediction.masks()

    return click


def our_masks(predictor: Predictor, image: Image, points: NDArray[np.float32]) -> Tensor:
    return our_prompts(predictor, predictor.encode(image), points)


def our_prompts(predictor: Predictor, embedding: Any, points: NDArray[np.float32]) -> Tensor:
    """Low-res logits (B, 1, 4g, 4g) of clicks (B, 2), brought to masks too."""
    prediction = predictor.predict_batch(
        embedding,
        point_coords=points[:, None],
        point_labels=np.ones((len(points), 1)),
        multimask_output=False,
    )
    prediction.masks()
    return prediction.low_res_logits


def check_logits(ours: Tensor, reference: Tensor) -> str:
    """Compare logits by their own range: random weights give any."""
    size = float(reference.abs().max())
    return check_close("logits", ours / size, reference / size, LOGIT_TOLERANCE)


def random_robust(size: str) -> Sam:
    """A published size with seeded random weights and the package's own encoder."""
    torch.manual_seed(SEED)
    robust = build_robust_sam(RobustSamConfig.published(FULL_SIZES[size]))
    return robust.eval().requires_grad_(False)


def added_parameters(robust: Sam) -> int:
    """Parameters that RobustSAM has beyond SAM; buffers are none."""
    added = robust.mask_decoder.added_parameters()
    return sum(p.numel() for name, p in robust.mask_decoder.named_parameters() if name in added)


def added_arithmetic() -> dict[str, float]:
    """RobustSAM's operations for a new picture and one prompt over SAM's, less one, by size."""
    configs = {f"_{size}": RobustSamConfig.published(sam) for size, sam in FULL_SIZES.items()}
    return {
        f"added_arithmetic_share{suffix}": arithmetic_share(config)
        for suffix, config in ({"": RobustSamConfig.embedded()} | configs).items()
    }


def arithmetic_share(config: RobustSamConfig) -> float:
    """Count both models on tensors without data, with the package's own encoder.

    Products, convolutions and Fourier transforms count; normalisations and activations do not.
    """
    with torch.device("meta"):
        robust = build_robust_sam(config).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        robust.to_empty(device="cpu")
        decoder, sizes = robust.mask_decoder, config.sam
        grid, width = (sizes.grid_size, sizes.grid_size), sizes.out_chans
        pixels = torch.empty(1, 3, sizes.image_size, sizes.image_size)
        embedding, early = (torch.empty(1, c, *grid) for c in (width, config.early_dim))
        features = torch.empty(1, width // 8, 4 * grid[0], 4 * grid[1])
        prompt = {
            "image_embedding": embedding,
            "image_pe": torch.empty(1, width, *grid),
            "sparse_prompt_embeddings": torch.empty(1, 2, width),
            "dense_prompt_embeddings": torch.empty(1, width, *grid),
        }
        encoder = operations(lambda: robust.image_encoder(pixels))
        sam = operations(lambda: decode_prompts(decoder, **prompt, multimask_output=True))
        ours = operations(lambda: decoder.image_features(early, embedding)) + operations(
            lambda: decoder.decode_robust_prompts(
                image_features=features, **prompt, multimask_output=decoder.multimask
            )
        )
    return (encoder + ours) / (encoder + sam) - 1


def operations(function: Callable[[], Any]) -> float:
    """Floating-point operations of a function's products, convolutions and transforms."""
    aten = torch.ops.aten
    transforms = (aten._fft_r2c, aten._fft_c2c, aten._fft_c2r)
    with FlopCounterMode(display=False, custom_mapping={op: _fft for op in transforms}) as counter:
        function()
    return float(counter.get_total_flops())


def _fft(shape: list[int], dims: list[int], *args: Any, **kwargs: Any) -> int:
    """5 N log2 N for each transform of N complex values, the usual count."""
    length = math.prod(shape[dim] for dim in dims)
    return int(5 * math.prod(shape) * math.log2(max(length, 2)))


def measure_memory() -> dict[str, float]:
    """Peak memory of a new picture and 16 prompts at ViT-B's size, MiB, in fresh processes."""
    target = "core.benchmark.robustsam:segment_once"
    return {f"{side}_mib": peak_memory_mib(target, side) for side in ("sam", "reference", "ours")}


@torch.no_grad()
def segment_once(side: str) -> None:
    """Build one side's ViT-B and click sixteen times on one picture; for a fresh process."""
    device = pick_device(settings.device)
    image, points = picture(SIZE), clicks(PROMPTS, SIZE)
    if side == "sam":
        sam = build_sam(SamConfig.vit_b()).eval().requires_grad_(False)
        our_masks(Predictor(accelerate(sam.to(device))), image, points)
        return
    robust = random_robust("vit_b").to(device)
    if side == "ours":
        our_masks(RobustPredictor(accelerate(robust)), image, points)
        return
    published = PublishedPath(robust)
    encoded = published.encode(image)
    for point in points:
        published.predict(*encoded, point)
