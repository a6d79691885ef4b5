"""Targets and simulated prompts for training a promptable model on sticker scenes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from core.stickers.scenes import Scenes

BOX_NOISE = 0.1  # of the side
MAX_BOX_NOISE = 20 / 1024  # of the picture
BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 0, 1, 2, 3, -1


@dataclass(frozen=True)
class Targets:
    """What to segment: masks bool (N, S, S) and the scene (N,) each belongs to."""

    masks: Tensor
    scene: Tensor


def choose_targets(
    scenes: Scenes,
    per_scene: int,
    generator: torch.Generator,
    *,
    part_probability: float = 0.12,
    region_probability: float = 0.13,
    min_area: float = 0.004,
) -> Targets:
    """Draw ``per_scene`` targets a scene: whole objects, parts of them, photograph regions.

    A scene without a part or region of at least ``min_area`` (fraction of the picture) gives an
    object instead; one without any object gives fewer targets.
    """
    size = scenes.images.shape[-1]
    area = min_area * size**2
    masks, owners = [], []
    kinds = torch.rand(len(scenes.images), per_scene, generator=generator)
    for b, row in enumerate(kinds.tolist()):
        objects = _large_ids(scenes.instance_ids[b], area)
        parts = _large_ids(_part_keys(scenes, b), area)
        regions = _large_ids(scenes.region_ids[b], area)
        for kind in row:
            if kind < part_probability and len(parts):
                mask = _part_keys(scenes, b) == _pick(parts, generator)
            elif kind > 1 - region_probability and len(regions):
                mask = scenes.region_ids[b] == _pick(regions, generator)
            elif len(objects):
                mask = scenes.instance_ids[b] == _pick(objects, generator)
            else:
                continue
            masks.append(mask)
            owners.append(b)
    device = scenes.images.device
    return Targets(torch.stack(masks), torch.tensor(owners, device=device))


def _part_keys(scenes: Scenes, b: int) -> Tensor:
    """One number per (object, part) of scene ``b``; 0 where there is no part."""
    parts = scenes.part_ids[b]
    return torch.where(parts > 0, scenes.instance_ids[b] * 4 + parts, 0)


def _large_ids(ids: Tensor, area: float) -> Tensor:
    counts = torch.bincount(ids.flatten().long(), minlength=256)
    counts[0] = 0
    return (counts >= area).nonzero().flatten()


def _pick(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randint(len(values), (), generator=generator)]


def sample_point(region: Tensor, generator: torch.Generator, *, inner: bool = False) -> Tensor:
    """Draw one pixel of each region, uniformly or (``inner``) more often far from its edge.

    Args:
        region: bool (N, H, W); an empty one gives a pixel anywhere.

    Returns:
        float (N, 2), x and y of pixel centres as fractions of the picture.
    """
    weight = region.float()
    height, width = region.shape[-2:]
    if inner:
        coarse = F.avg_pool2d(weight[:, None], 4)
        depth = F.avg_pool2d(coarse, 5, stride=1, padding=2, count_include_pad=False)
        weight = weight * F.interpolate(depth, (height, width))[:, 0] ** 6
    cumulative = weight.flatten(1).cumsum(dim=1)
    total = cumulative[:, -1:]
    empty = total <= 0
    draw = torch.rand(len(region), 1, generator=generator).to(total)
    index = torch.searchsorted(cumulative, draw * total, right=True)
    index = torch.where(empty, (draw * height * width).long(), index)
    index = index[:, 0].clamp(max=height * width - 1)
    return torch.stack([(index % width + 0.5) / width, (index // width + 0.5) / height], dim=1)


def noisy_boxes(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Boxes of masks (N, H, W) with uniform noise of at most 10 % of a side and 20/1024 of the
    picture, clipped: (N, 2, 2) corners as fractions."""
    height, width = masks.shape[-2:]
    corners = []
    for axis, length in ((1, width), (2, height)):
        occupied = masks.any(dim=axis)  # (N, length)
        low = occupied.float().argmax(dim=1)
        high = length - occupied.flip(1).float().argmax(dim=1)
        corners.append(torch.stack([low, high], dim=1) / length)
    boxes = torch.stack(corners, dim=2)  # (N, 2 corners, xy)
    reach = ((boxes[:, 1] - boxes[:, 0]) * BOX_NOISE).clamp(max=MAX_BOX_NOISE)[:, None]
    noise = torch.rand(boxes.shape, generator=generator).to(boxes) * 2 - 1
    return (boxes + reach * noise).clamp(0, 1)


def sample_points(regions: Tensor, generator: torch.Generator) -> Tensor:
    """A pixel of each region (N, H, W): half of them anywhere, half far from its edge."""
    inner = torch.rand(len(regions), generator=generator).to(regions.device) < 0.5
    return torch.where(
        inner[:, None],
        sample_point(regions, generator, inner=True),
        sample_point(regions, generator),
    )


def first_prompts(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A click or a noisy box for each mask: coords (N, 2, 2) as fractions, labels (N, 2)."""
    half = F.max_pool2d(masks[:, None].float(), 2)[:, 0] > 0
    points = sample_points(half, generator)
    clicks = torch.stack([points, torch.zeros_like(points)], dim=1)
    boxes = noisy_boxes(masks, generator)
    is_click = torch.rand(len(masks), generator=generator).to(masks.device) < 0.5
    click_labels = torch.tensor([FOREGROUND, PADDING], device=masks.device)
    box_labels = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=masks.device)
    return (
        torch.where(is_click[:, None, None], clicks, boxes),
        torch.where(is_click[:, None], click_labels, box_labels),
    )


def embed_prompts(
    sam: Sam, coords: Tensor, labels: Tensor, mask_input: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Embed one prompt per row as PromptEncoder does, also where rows mix clicks and boxes.

    Args:
        coords: (N, T, 2) as fractions of the picture.
        labels: (N, T): points, box corners or padding.
        mask_input: (N, 1, 4g, 4g) logits.

    Returns:
        Sparse (N, T, C) and dense (N, C, g, g) embeddings.
    """
    encoder = sam.prompt_encoder
    size = encoder.input_image_size
    with torch.autocast(coords.device.type, enabled=False):  # half a pixel is lost in bfloat16
        tokens = encoder.pe_layer.forward_with_coords(coords.float() * size[0], size)
    types = torch.stack([e.weight[0] for e in encoder.point_embeddings])  # (4, C)
    padding = (labels == PADDING)[..., None]
    typed = tokens + types[labels.clamp(min=0)]
    sparse = torch.where(padding, encoder.not_a_point_embed.weight[0], typed)
    if mask_input is not None:
        return sparse, encoder.mask_downscaling(mask_input)
    dense = encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    return sparse, dense.expand(len(coords), -1, *encoder.image_embedding_size)
