"""CaR in the published code's steps: what the benchmark of it compares with.

Written from the paper and a description of the released code. The mask proposal generator and the
scores are worked out here, apart from ``core.car``; what both sides do alike (resizing, drawing a
mask, one pass of the image towers, the CRF) is taken from there.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.car import cam, classifier, crf
from core.car.config import CarConfig
from core.car.visual_prompts import VisualPrompter
from core.clip.model import ClipModel
from core.clip.text import fill_template
from core.clip.towers import AVERAGED_BLOCKS, blocks_of, embed_patches, encode_images

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PublishedResult:
    """What the published way ends with.

    Args:
        live: words of each step, as indices.
        maps: of each step, float32 (n, H, W).
        labels: (H, W), 0 for background, k for the k-th word that stayed.
    """

    live: list[list[int]]
    maps: list[NDArray[np.float32]]
    labels: NDArray[np.intp]


class PublishedPath:
    """CaR as the published code computes it, on two CLIPs of ours.

    Args:
        config: of ``CarConfig.parity``; ``query_batch`` does not count.
    """

    def __init__(self, generator: ClipModel, scorer: ClipModel, config: CarConfig) -> None:
        self.generator, self.scorer, self.config = generator, scorer, config
        # GradCAM's hook needs weights that take a gradient, so theirs are worked out as well.
        self.last = copy.deepcopy(blocks_of(generator.visual)[-1]).float().requires_grad_()
        self.background = torch.cat(
            [
                encode_text(generator, fill_template(config.cam_template, word))
                for word in config.background_queries
            ]
        )

    def segment(self, image: Image, words: Sequence[str]) -> PublishedResult:
        """Run the recurrence on a picture RGB uint8 (H, W, 3), then the CRF."""
        live = list(range(len(words)))
        seen: list[list[int]] = []
        maps: list[NDArray[np.float32]] = []
        last = 0
        for step in itertools.count():
            template = "{}" if step == 0 else self.config.cam_template
            names = [words[index] for index in live]
            maps.append(self.propose(image, [fill_template(template, name) for name in names]))
            seen.append(live)
            scores = self.score(image, maps[-1], names)
            if not self.config.recurrence:
                break
            above = np.flatnonzero(scores > np.float32(self.config.confidence_threshold))
            kept = above if len(above) else [int(scores.argmax())]
            live = [live[row] for row in kept]
            if len(live) == last:
                break
            last = len(live)
        return PublishedResult(seen, maps, crf.label_pixels(image, maps[-1], self.config))

    def propose(self, image: Image, texts: list[str]) -> NDArray[np.float32]:
        """Maps (n, H, W): the trunk once, then the last block, its gradient and the refinement
        once for each text."""
        grid = cam.grid_of(image.shape[:2], self.generator.patch_size, None)
        tokens, attentions = self.run_trunk(cam.preprocess(self.generator, image, grid))
        features = torch.cat([encode_text(self.generator, text) for text in texts])
        maps = []
        for index in range(len(texts)):
            one, attention = self.gradcam(tokens, features, self.background, index)
            if not one.any():
                one, attention = self.gradcam(tokens, features, self.background[:0], index)
            refined = self.refine(one.view(grid), [*attentions, attention])
            maps.append(cv2.resize(refined.cpu().numpy(), image.shape[1::-1]))
        return np.stack(maps).astype(np.float32, copy=False)

    @torch.no_grad()
    def run_trunk(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """All blocks but the last, with the attention of each."""
        x, _ = embed_patches(self.generator.visual, pixels, half_positions=True)
        attentions = []
        for block in blocks_of(self.generator.visual)[:-1]:
            y = block.ln_1(x)
            attended, weights = block.attn(y, y, y, need_weights=True)
            x = x + attended
            x = x + block.mlp(block.ln_2(x))
            attentions.append(weights[0])
        return x, attentions

    @torch.enable_grad()
    def gradcam(
        self, tokens: Tensor, features: Tensor, background: Tensor, index: int
    ) -> tuple[Tensor, Tensor]:
        """One text's map (n,) in [0, 1], and the last block's attention (L, L)."""
        visual, block = self.generator.visual, self.last
        y = block.ln_1(tokens)
        y.retain_grad()
        attended, weights = block.attn(y, y, y, need_weights=True)
        x = tokens + attended
        x = x + block.mlp(block.ln_2(x))
        feature = F.normalize(visual.ln_post(x)[:, 1:].mean(dim=1) @ visual.proj, dim=-1)
        logits = self.generator.scale * feature @ torch.cat([features, background]).T
        torch.softmax(logits, dim=-1)[0, index].backward()
        block.zero_grad()
        assert y.grad is not None
        patches = y.detach()[0, 1:]  # (n, D)
        one = (patches @ y.grad[0, 1:].mean(dim=0)).relu()
        return stretch(one), weights.detach()[0]

    def refine(self, one: Tensor, attentions: list[Tensor]) -> Tensor:
        """Spread a map (h, w) along the squared affinity, which is made anew for each map."""
        affinity = torch.stack(attentions[-AVERAGED_BLOCKS:]).mean(dim=0)[1:, 1:]
        for _ in range(3):
            affinity = affinity / affinity.sum(dim=0, keepdim=True)
            affinity = affinity / affinity.sum(dim=1, keepdim=True)
        affinity = (affinity + affinity.T) / 2
        affinity = affinity @ affinity
        box = torch.from_numpy(box_mask(one.cpu().numpy(), self.config.box_threshold)).to(one)
        return stretch((affinity * box.view(1, -1)) @ one.flatten()).view(one.shape)

    def score(self, image: Image, maps: NDArray[np.float32], names: list[str]) -> NDArray:
        """Each word's score (n,): its marked picture against all words, encoded anew for each
        template, as the texts are."""
        squares = np.stack([self.mark(image, one) for one in maps])
        pixels = cam.normalise_pixels(self.scorer, squares)
        total = torch.zeros(len(names), len(names), device=pixels.device)
        for template in self.config.templates:
            features = encode_images(self.scorer, pixels, skip_last_block=True, half_positions=True)
            texts = [encode_text(self.scorer, fill_template(template, name)) for name in names]
            total += torch.softmax(self.scorer.scale * features @ torch.cat(texts).T, dim=-1)
        return torch.softmax(total, dim=-1).diagonal().cpu().numpy()

    def mark(self, image: Image, one: NDArray[np.float32]) -> Image:
        """A picture with a map drawn on it, in the classifier's square."""
        marked = image
        if one.sum() > 1:
            prompter = VisualPrompter(image, self.config.visual_prompts)
            marked = prompter.draw(one > self.config.mask_threshold)
        return classifier.to_square(marked, self.scorer, "centre_crop")


@torch.no_grad()
def encode_text(model: ClipModel, text: str) -> Tensor:
    """One text, (1, E), unit length."""
    return F.normalize(model.clip.encode_text(model.tokenize([text]).to(model.device)), dim=-1)


def stretch(values: Tensor) -> Tensor:
    """Stretch (n,) to [0, 1]."""
    values = values - values.min()
    return values / (1e-15 + values.max())


def box_mask(one: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Filled boxes around the contours of a map (h, w) above λ times its maximum; the last row
    and column are never in one."""
    levels = (one * 255).astype(np.uint8)
    highest = int(levels.max())
    binary = (levels > int(threshold * highest)).astype(np.uint8)
    while not binary.any() and threshold > 0:
        threshold -= 0.1
        binary = (levels > int(threshold * highest)).astype(np.uint8)
    mask = np.zeros_like(one)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        bottom, right = min(y + height, len(one) - 1), min(x + width, one.shape[1] - 1)
        mask[y:bottom, x:right] = 1
    return mask
