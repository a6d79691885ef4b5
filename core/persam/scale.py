"""PerSAM-F: two weights that choose among the whole, the part and the subpart (section 3.6).

The decoder's three readings of the reference never change while the weights do, so it runs once
and only the two numbers are optimised; the gradient is written out, which is exact and needs no
graph. Letters: N pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.persam.config import FitConfig

FOCAL_ALPHA = 0.25  # weight of the object's pixels; the background's have 0.75. gamma is 2.
ADAM_BETAS = 0.9, 0.999
ADAM_EPS = 1e-4
TINY = 1e-30  # below float32's least probability that matters


@dataclass(frozen=True)
class ScaleWeights:
    """w_1 and w_2 of the second and third reading; the first, smallest one has what is left.

    The paper leaves the rest to the last reading: this is the published code's order. They are
    not bounded to [0, 1].
    """

    w1: float = 1 / 3
    w2: float = 1 / 3

    @property
    def vector(self) -> NDArray[np.float32]:
        """Weights (3,) in the order of the decoder's multimask output."""
        return np.array([1 - self.w1 - self.w2, self.w1, self.w2], np.float32)


@dataclass(frozen=True, eq=False)
class Fit:
    """Fitted weights, and how they came about.

    Args:
        history: float32 (steps + 1, 2), w_1 and w_2 before and after each step.
        dice, focal: float32 (steps,), the losses before each step, summed over references.
        seconds: that the steps took.
    """

    weights: ScaleWeights
    history: NDArray[np.float32]
    dice: NDArray[np.float32]
    focal: NDArray[np.float32]
    seconds: float

    @property
    def loss(self) -> NDArray[np.float32]:
        """Dice and focal loss together, (steps,)."""
        return self.dice + self.focal


def fit_scale_weights(
    logits: Sequence[Tensor], masks: Sequence[NDArray[np.bool_]], config: FitConfig
) -> Fit:
    """Fit the weights to one or more references, the sum of their losses.

    Args:
        logits: of each reference (3, H, W), at its picture's size.
        masks: of each reference bool (H, W).
    """
    start = time.perf_counter()
    losses = [
        _MaskLoss.of(readings, mask, config.max_pixels)
        for readings, mask in zip(logits, masks, strict=True)
    ]
    optimizer = _AdamW([1 / 3, 1 / 3], config)
    history, dice, focal = [optimizer.values[:]], [], []
    for _ in range(config.steps):
        weights = torch.tensor(optimizer.values)
        parts = [loss.value_and_gradient(weights) for loss in losses]
        dice.append(sum(part[0] for part in parts))
        focal.append(sum(part[1] for part in parts))
        optimizer.step([sum(part[2][k] for part in parts) for k in range(2)])
        history.append(optimizer.values[:])
    w1, w2 = history[-1]
    return Fit(
        ScaleWeights(w1, w2),
        np.array(history, np.float32),
        np.array(dice, np.float32),
        np.array(focal, np.float32),
        time.perf_counter() - start,
    )


class _AdamW:
    """torch.optim.AdamW under CosineAnnealingLR, for two numbers.

    Theirs take longer for a step than the loss does.
    """

    def __init__(self, values: list[float], config: FitConfig) -> None:
        self.values = values
        self.config = config
        self.taken = 0
        self.mean = [0.0] * len(values)
        self.square = [0.0] * len(values)

    def step(self, gradient: Sequence[float]) -> None:
        """Take one step down a gradient."""
        config, (beta1, beta2) = self.config, ADAM_BETAS
        cosine = math.cos(math.pi * self.taken / config.steps)
        rate = config.learning_rate * (1 + cosine) / 2
        self.taken += 1
        unbias1, unbias2 = 1 - beta1**self.taken, 1 - beta2**self.taken
        for k, g in enumerate(gradient):
            self.mean[k] = beta1 * self.mean[k] + (1 - beta1) * g
            self.square[k] = beta2 * self.square[k] + (1 - beta2) * g * g
            size = math.sqrt(self.square[k] / unbias2) + ADAM_EPS
            decayed = self.values[k] * (1 - rate * config.weight_decay)
            self.values[k] = decayed - rate * self.mean[k] / unbias1 / size


@dataclass(frozen=True, eq=False)
class _MaskLoss:
    """Dice and focal loss of a weighted sum of three readings, with its gradient.

    Args:
        base: logits (N,) of the first reading, the object's pixels first.
        slopes: (2, N), the second and third reading less the first.
        count: (N,), pixels that each entry stands for.
        sign: (N,), 1 for the object's pixels, else -1.
        share: (N,), focal alpha times count over the number of all pixels.
        positives: how many entries are the object's.
        area: how many pixels are the object's.
    """

    base: Tensor
    slopes: Tensor
    count: Tensor
    sign: Tensor
    share: Tensor
    positives: int
    area: float

    @classmethod
    def of(cls, logits: Tensor, mask: NDArray[np.bool_], max_pixels: int | None) -> _MaskLoss:
        truth = torch.from_numpy(mask).to(logits)
        side = 1 if max_pixels is None else max(1, math.ceil((mask.size / max_pixels) ** 0.5))
        inside, inside_count = _block_means(logits, truth, side)
        outside, outside_count = _block_means(logits, 1 - truth, side)
        entries = torch.cat([inside, outside], dim=1)  # (3, N)
        count = torch.cat([inside_count, outside_count])  # (N,)
        positives = len(inside_count)
        sign = torch.ones_like(count)
        sign[positives:] = -1
        alpha = torch.full_like(count, FOCAL_ALPHA)
        alpha[positives:] = 1 - FOCAL_ALPHA
        slopes = entries[1:] - entries[:1]
        share = alpha * count / mask.size
        return cls(entries[0], slopes, count, sign, share, positives, float(inside_count.sum()))

    def value_and_gradient(self, weights: Tensor) -> tuple[float, float, list[float]]:
        """Dice and focal loss, and the gradient of their sum by both weights."""
        z = torch.addmv(self.base, self.slopes.T, weights)  # (N,) logits
        margin = z * self.sign
        p_true = margin.sigmoid()  # p_t: probability of the right answer
        miss = 1 - p_true
        log_p = p_true.clamp(min=TINY).log()  # three times as fast as logsigmoid
        share = self.share * miss * miss
        focal = -torch.dot(share, log_p)
        # d/dz of -(1 - p_t)^2 log p_t, times d(margin)/dz
        slope = self.sign * share * (2 * p_true * log_p - miss)

        k = self.positives
        positive = torch.dot(self.count[:k], p_true[:k])
        total = positive + torch.dot(self.count[k:], miss[k:])  # sum of all pixels' sigmoids
        numerator = 2 * positive + 1
        denominator = total + self.area + 1
        dice = 1 - numerator / denominator
        derivative = self.count * p_true * miss  # of the sigmoid, alike for both signs
        slope += derivative * (numerator / denominator**2)
        slope[:k] -= derivative[:k] * (2 / denominator)
        return float(dice), float(focal), (self.slopes @ slope).tolist()


def _block_means(logits: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Mean logits (3, n) under a 0/1 mask (H, W) in each block that it touches, and its pixels.

    Logits are smooth, so a block's mean stands for its pixels but for a second-order error.
    """
    sums = F.avg_pool2d(
        torch.cat([logits * mask, mask[None]]), side, ceil_mode=True, divisor_override=1
    ).flatten(1)  # (4, blocks)
    sums = sums[:, sums[3] > 0].cpu()
    return sums[:3] / sums[3], sums[3]
