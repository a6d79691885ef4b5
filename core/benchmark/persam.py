"""PerSAM: our path against the published code's way of doing it, same weights, embedded model.

That way: the package's predictor, every picture encoded on every call (the reference picture
too), guidance by a second softmax inside of a private copy of the model, full-size masks of all
readings, and for PerSAM-F a decoder pass in each of 1000 steps. Expect on two CPU cores, in about
five minutes: one picture 1.5 times as fast, twenty of one subject 1.5, the fit 50.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from core.benchmark.harness import OutputsDiffer, environment, measure_pairs
from core.benchmark.sam import Bench, embedded_sam, picture
from core.engine.device import describe, pick_device
from core.masks import iou
from core.persam.config import FitConfig, PersamConfig
from core.persam.instances import find_instances
from core.persam.pipeline import fit_weights
from core.persam.scale import ADAM_EPS, FOCAL_ALPHA
from core.persam.target import Reference, pool_target
from core.reports import Report
from core.sam.predictor import Predictor
from core.settings import settings

SIZE = (480, 640)
PICTURES = 20
STEPS = 1000
MASK_IOU = 0.999
WEIGHT_TOLERANCE = 1e-3
GUIDED_PASSES = 3


def run(limit: int | None) -> Report:
    """Measure all cases; speed-ups are ratios reference over ours.

    Args:
        limit: at most so many pairs of each case.

    Raises:
        OutputsDiffer: a mask or a weight is not what the published way computes.
    """
    device = pick_device(settings.device)
    bench = Bench(device, limit, [])
    sam, weights = embedded_sam()
    sam = sam.to(device)
    reference, images = subject(PICTURES)
    theirs, ours = PublishedPersam(sam), Predictor(sam)
    one = measure_pictures(bench, theirs, ours, reference, images[:1])
    many = measure_pictures(bench, theirs, ours, reference, images)
    figures = {
        "one_picture_speedup": one,
        "twenty_pictures_speedup": many,
        "persam_f_fit_speedup": measure_fit(bench, theirs, ours, reference),
        **measure_overhead(bench, ours, reference, images[0]),
    }
    details = {
        "rows": bench.rows,
        "weights": weights,
        "pairs_limited_to": limit,
        "environment": environment(device),
    }
    models = [f"sam_embedded ({weights})"]
    data = "a shifted example picture" + (f", {limit} pairs" if limit else "")
    return Report("benchmark persam", models, data, describe(device), figures, details)


def subject(count: int) -> tuple[Reference, list[NDArray[np.uint8]]]:
    """A reference with a disc as its object, and ``count`` pictures of other content."""
    image = picture(SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = (y - 0.45 * SIZE[0]) ** 2 + (x - 0.5 * SIZE[1]) ** 2 < (0.25 * SIZE[0]) ** 2
    shifted = [np.roll(image, 7 * k + 3, axis=1) for k in range(count)]
    return Reference(image, mask), shifted


def ours_on(
    predictor: Predictor, reference: Reference, images: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.bool_]]:
    """Learn once, find in each picture."""
    config = PersamConfig()
    embedding = predictor.encode(reference.image)
    target, _ = pool_target(predictor, embedding, reference.mask, config)
    masks = []
    for image in images:
        _, (found,) = find_instances(predictor, predictor.encode(image), target, None, config)
        masks.append(found.mask)
    return masks


def measure_pictures(
    bench: Bench,
    theirs: PublishedPersam,
    ours: Predictor,
    reference: Reference,
    images: Sequence[NDArray[np.uint8]],
) -> float:
    """One subject in some pictures, the reference picture included."""

    def published() -> list[NDArray[np.bool_]]:
        return [theirs.segment(reference, image)[-1] for image in images]

    pairs = zip(ours_on(ours, reference, images), published(), strict=True)
    worst = min(iou(a, b) for a, b in pairs)
    if worst < MASK_IOU:
        raise OutputsDiffer(f"masks agree at IoU {worst:.4f}; {MASK_IOU} is required")
    case = f"PerSAM, {len(images)} pictures of {SIZE[1]}x{SIZE[0]}"
    check = f"lowest IoU {worst:.4f}"
    return bench.compare(case, check, published, lambda: ours_on(ours, reference, images)).ratio


def measure_fit(
    bench: Bench, theirs: PublishedPersam, ours: Predictor, reference: Reference
) -> float:
    """PerSAM-F's weights, apart from encoding the reference."""
    config = PersamConfig.persam_f()
    embedding = ours.encode(reference.image)
    target, _ = pool_target(ours, embedding, reference.mask, config)

    def fit() -> NDArray[np.float32]:
        steps = FitConfig(steps=STEPS)
        return fit_weights(ours, [embedding], [reference], target, config, steps).weights.vector

    theirs.predictor.set_image(reference.image)
    feature = target.feature(config.pooling)
    expected = theirs.fit(reference, feature, STEPS)
    difference = float(np.abs(fit() - expected).max())
    if difference > WEIGHT_TOLERANCE:
        raise OutputsDiffer(f"weights differ by {difference:.2g}; {WEIGHT_TOLERANCE} is allowed")
    return bench.compare(
        f"PerSAM-F, {STEPS} steps on {SIZE[1]}x{SIZE[0]}",
        f"max difference {difference:.1e}",
        lambda: theirs.fit(reference, feature, STEPS),
        fit,
    ).ratio


def measure_overhead(
    bench: Bench, predictor: Predictor, reference: Reference, image: NDArray[np.uint8]
) -> dict[str, float]:
    """A picture of a known subject against its encoder and three passes of the package's decoder.

    ``picture_overhead`` is what all the rest adds, as a fraction of those.
    """
    config = PersamConfig()
    target, _ = pool_target(predictor, predictor.encode(reference.image), reference.mask, config)
    stock = SamPredictor(predictor.sam)
    point = np.array([[SIZE[1] / 2, SIZE[0] / 2]])

    def bare() -> None:
        stock.set_image(image)
        for _ in range(GUIDED_PASSES):
            stock.predict(point, np.ones(1))

    def whole() -> None:
        find_instances(predictor, predictor.encode(image), target, None, config)

    pairs = measure_pairs(bare, whole, device=bench.device, limit=bench.limit)
    case = "PerSAM on one picture against the encoder and three plain passes"
    bench.rows.append({"case": case, "check": "timing only", **pairs.row()})
    return {
        "picture_overhead": 1 / pairs.ratio - 1,
        "picture_seconds": float(np.median(pairs.ours)),
    }


class PublishedPersam:
    """PerSAM and PerSAM-F as the published scripts do it, on a private copy of a model."""

    def __init__(self, sam: Sam) -> None:
        self.predictor = SamPredictor(copy.deepcopy(sam))
        self.grid = sam.prompt_encoder.image_embedding_size
        transformer = self.predictor.model.mask_decoder.transformer
        transformer.forward = types.MethodType(_semantic_forward, transformer)
        transformer.target = None
        for layer in transformer.layers:
            attention = layer.cross_attn_token_to_image
            attention.forward = types.MethodType(_guided_forward, attention)
            attention.guidance = None

    def segment(
        self, reference: Reference, image: NDArray[np.uint8], mask_value: int = 255
    ) -> list[NDArray[np.bool_]]:
        """PerSAM on one picture, both encoded; the masks of the three passes."""
        predictor = self.predictor
        predictor.set_image(reference.image)
        target = self._target(reference, mask_value)  # (1, C)
        predictor.set_image(image)
        similarity = self.similarity(target / target.norm(dim=-1, keepdim=True))
        points = np.array(
            [_place(similarity, similarity.max()), _place(similarity, similarity.min())]
        )
        prompt: dict[str, Any] = {"point_coords": points, "point_labels": np.array([1, 0])}
        z = (similarity - similarity.mean()) / similarity.std()
        guidance = F.interpolate(z[None, None], self.grid, mode="bilinear").sigmoid()
        with self._guided(guidance.flatten(2)[:, None], target[None]):
            masks, scores, logits = predictor.predict(**prompt, multimask_output=False)
        stages = [masks[0]]
        prompt["mask_input"] = logits[:1]
        for use_box in (False, True):
            if use_box:
                y, x = np.nonzero(stages[-1])
                prompt["box"] = np.array([x.min(), y.min(), x.max(), y.max()])
            masks, scores, logits = predictor.predict(**prompt)
            best = int(scores.argmax())
            stages.append(masks[best])
            prompt["mask_input"] = logits[best][None]
        return stages

    def fit(self, reference: Reference, feature: Tensor, steps: int) -> NDArray[np.float32]:
        """PerSAM-F's weights (3,), a pass of the decoder in each step."""
        similarity = self.similarity(feature.to(self.predictor.device))
        point = np.array([_place(similarity, similarity.max())])
        truth = torch.from_numpy(reference.mask).float().flatten()[None].to(self.predictor.device)
        free = torch.full((2, 1), 1 / 3, device=truth.device, requires_grad=True)
        optimizer = torch.optim.AdamW([free], lr=1e-3, eps=ADAM_EPS)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        coords = self.predictor.transform.apply_coords(point, self.predictor.original_size)
        coords = torch.as_tensor(coords, dtype=torch.float32, device=truth.device)[None]
        labels = torch.ones(1, 1, device=truth.device)
        for _ in range(steps):
            logits, _, _ = self.predictor.predict_torch(coords, labels, return_logits=True)
            weights = torch.cat([1 - free.sum(0, keepdim=True), free])
            loss = mask_loss((logits[0].flatten(1) * weights).sum(0, keepdim=True), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        w1, w2 = free.detach().flatten().tolist()
        return np.array([1 - w1 - w2, w1, w2], np.float32)

    def similarity(self, feature: Tensor) -> Tensor:
        """Cosine map (H, W) of a unit feature (1, C) with the picture that is set."""
        predictor = self.predictor
        cells = F.normalize(predictor.features[0].flatten(1), dim=0)
        grid = (feature @ cells).view(1, 1, *self.grid)
        low_res = F.interpolate(grid, scale_factor=4, mode="bilinear")
        size, original = predictor.input_size, predictor.original_size
        return predictor.model.postprocess_masks(low_res, size, original)[0, 0]

    def _target(self, reference: Reference, mask_value: int) -> Tensor:
        drawn = np.repeat((reference.mask * np.uint8(mask_value))[..., None], 3, axis=2)
        resized = torch.from_numpy(self.predictor.transform.apply_image(drawn))
        pixels = resized.permute(2, 0, 1)[None].to(self.predictor.device)
        grid = F.interpolate(self.predictor.model.preprocess(pixels), self.grid, mode="bilinear")
        features = self.predictor.features[0].permute(1, 2, 0)
        return features[grid[0, 0] > 0].mean(0, keepdim=True)

    def _guided(self, guidance: Tensor, target: Tensor) -> _Switched:
        return _Switched(self.predictor.model.mask_decoder.transformer, guidance, target)


class _Switched:
    """Turns both techniques on while the block runs."""

    def __init__(self, transformer: Any, guidance: Tensor, target: Tensor) -> None:
        self.transformer, self.values = transformer, (guidance, target)

    def __enter__(self) -> None:
        self._set(*self.values)

    def __exit__(self, *error: object) -> None:
        self._set(None, None)

    def _set(self, guidance: Tensor | None, target: Tensor | None) -> None:
        self.transformer.target = target
        for layer in self.transformer.layers:
            layer.cross_attn_token_to_image.guidance = guidance


def _semantic_forward(
    self: Any, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
) -> tuple[Tensor, Tensor]:
    """TwoWayTransformer's steps with the target added in place, as the published code does."""
    keys = image_embedding.flatten(2).permute(0, 2, 1)
    key_pe = image_pe.flatten(2).permute(0, 2, 1)
    queries = point_embedding
    for layer in self.layers:
        if self.target is not None:
            queries += self.target
        queries, keys = layer(queries, keys, point_embedding, key_pe)
    q = queries + point_embedding
    if self.target is not None:
        q += self.target
    attended = self.final_attn_token_to_image(q=q, k=keys + key_pe, v=keys)
    return self.norm_final_attn(queries + attended), keys


def _guided_forward(self: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with a second softmax over the weights and the guidance."""
    q, k, v = (
        self._separate_heads(projection(x), self.num_heads)
        for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
    )
    weights = torch.softmax(q @ k.permute(0, 1, 3, 2) / q.shape[-1] ** 0.5, dim=-1)
    if self.guidance is not None:
        weights = torch.softmax(weights + self.guidance, dim=-1)
    return self.out_proj(self._recombine_heads(weights @ v))


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice and focal loss of logits (1, N) against 0/1 truth (1, N)."""
    p = logits.sigmoid()
    dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    p_true = p * truth + (1 - p) * (1 - truth)
    alpha = FOCAL_ALPHA * truth + (1 - FOCAL_ALPHA) * (1 - truth)
    return dice + (alpha * (1 - p_true) ** 2 * entropy).mean()


def _place(values: Tensor, wanted: Tensor) -> tuple[int, int]:
    """(x, y) of the first pixel of a value."""
    y, x = divmod(int((values == wanted).flatten().int().argmax()), values.shape[1])
    return x, y
