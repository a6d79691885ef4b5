"""Objects that both scenes of a pair show: what PerSAM needs an embedding to tell apart.

Letters: M matches, B scenes, N = g*g cells, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import TwoWayTransformer
from torch import Tensor
from torch.nn import functional as F

from core.persam.attention import TargetGuidedTransformer
from core.stickers.scenes import Scenes
from core.training.prompting import BACKGROUND, FOREGROUND, PADDING

MIN_VISIBLE = 0.4  # of the object, in both scenes
MIN_CELLS = 2
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Matches:
    """Each object of each pair, looked for from one scene in the other, both ways round.

    Attributes:
        reference, scene: int64 (M,), where it is known from and where it is to be found.
        instance: int64 (M,), its instance id in ``scene``.
        reference_cells, cells: bool (M, N), its cells in either.
    """

    reference: Tensor
    scene: Tensor
    instance: Tensor
    reference_cells: Tensor
    cells: Tensor

    def select(self, rows: Tensor) -> Matches:
        return Matches(**{name: values[rows] for name, values in self.__dict__.items()})


def find_matches(scenes: Scenes, grid_side: int) -> Matches | None:
    """Match the objects of scenes 2i and 2i + 1 by their sprites; None if there is no match."""
    ids = scenes.instance_ids
    step = ids.shape[-1] // grid_side
    cells = ids[:, step // 2 :: step, step // 2 :: step].flatten(1)  # (B, N)
    seen = scenes.visible_fractions >= MIN_VISIBLE
    rows = []
    for b in range(len(ids)):
        mate = b ^ 1
        if mate >= len(ids):
            continue
        for k, sprite in enumerate(scenes.sprite_indices[b].tolist()):
            twins = (scenes.sprite_indices[mate] == sprite).nonzero().flatten().tolist()
            if sprite >= 0 and len(twins) == 1 and seen[b, k] and seen[mate, twins[0]]:
                rows.append((b, mate, k + 1, twins[0] + 1))
    if not rows:
        return None
    reference, scene, known, instance = torch.tensor(rows, device=ids.device).unbind(dim=1)
    matches = Matches(
        reference=reference,
        scene=scene,
        instance=instance,
        reference_cells=cells[reference] == known[:, None],
        cells=cells[scene] == instance[:, None],
    )
    enough = torch.minimum(matches.reference_cells.sum(1), matches.cells.sum(1)) >= MIN_CELLS
    return matches.select(enough) if bool(enough.any()) else None


def pool_targets(embedding: Tensor, matches: Matches) -> Tensor:
    """Mean feature (M, C) of each object's cells in its reference, of embeddings (B, C, g, g)."""
    features = embedding.flatten(2)[matches.reference]  # (M, C, N)
    weights = matches.reference_cells.to(features)
    return (features * weights[:, None]).sum(2) / weights.sum(1, keepdim=True)


def matching_loss(targets: Tensor, embedding: Tensor, matches: Matches) -> Tensor:
    """Contrast each target's own cells with all that are not its own, by cosine.

    InfoNCE for every cell of the object, against the other cells of the same scene (which one of
    these is it?) and against those of every other scene (is it here at all?), half and half.

    Args:
        targets: (M, C).
        embedding: (B, C, g, g).
    """
    cells = F.normalize(embedding.float().flatten(2), dim=1)  # (B, C, N)
    cosine = torch.einsum("mc,bcn->mbn", F.normalize(targets.float(), dim=1), cells)
    logits = cosine / TEMPERATURE
    rows = torch.arange(len(targets), device=logits.device)
    own = logits[rows, matches.scene]  # (M, N)
    in_scene = own.masked_fill(matches.cells, -torch.inf).logsumexp(dim=1)
    elsewhere = logits.clone()
    elsewhere[rows, matches.scene] = -torch.inf
    elsewhere[rows, matches.reference] = -torch.inf
    outside = elsewhere.flatten(1).logsumexp(dim=1)
    loss = (F.softplus(in_scene[:, None] - own) + F.softplus(outside[:, None] - own)) / 2
    weights = matches.cells.to(loss)
    return ((loss * weights).sum(1) / weights.sum(1)).mean()


@dataclass(frozen=True)
class PersonalPrompts:
    """PerSAM's prompts of M objects: points by similarity, guidance, target embedding.

    Attributes:
        coords: (M, 3, 2) as fractions of the picture; labels: (M, 3).
        guidance: (M, 1, 1, N) in (0, 1).
        target_embedding: (M, 1, C).
        found: bool (M,), whether the first point is on the object.
    """

    coords: Tensor
    labels: Tensor
    guidance: Tensor
    target_embedding: Tensor
    found: Tensor

    def transformer(
        self, own: TwoWayTransformer, *, guided: bool, semantic: bool
    ) -> TargetGuidedTransformer:
        """Guide the decoder's own transformer, or leave either technique out."""
        return TargetGuidedTransformer(
            own,
            guidance=self.guidance if guided else None,
            target_embedding=self.target_embedding if semantic else None,
        )


def personal_prompts(
    targets: Tensor, embedding: Tensor, matches: Matches, generator: torch.Generator
) -> PersonalPrompts:
    """Prompt as PerSAM does (location prior and guidance, paper section 3.2), right or wrong."""
    side = embedding.shape[-1]
    cells = F.normalize(embedding.detach().float().flatten(2), dim=1)[matches.scene]
    cosine = torch.einsum("mc,mcn->mn", F.normalize(targets.detach().float(), dim=1), cells)
    points = torch.stack([cosine.argmax(dim=1), cosine.argmin(dim=1)], dim=1)  # (M, 2)
    jitter = torch.rand(len(points), 2, 2, generator=generator).to(cosine) - 0.5
    places = torch.stack([points % side, points // side], dim=2)
    coords = (places + 0.5 + 0.6 * jitter) / side
    coords = torch.cat([coords, torch.zeros_like(coords[:, :1])], dim=1)
    labels = torch.tensor([FOREGROUND, BACKGROUND, PADDING], device=cosine.device)
    z = (cosine - cosine.mean(1, keepdim=True)) / cosine.std(1, keepdim=True).clamp(min=1e-6)
    return PersonalPrompts(
        coords=coords,
        labels=labels.expand(len(points), -1),
        guidance=z.sigmoid()[:, None, None],
        target_embedding=targets[:, None],
        found=matches.cells.gather(1, points[:, :1])[:, 0],
    )
