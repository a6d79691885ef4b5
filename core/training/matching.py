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
PRESENT = 0.5  # cosine that decides whether an object is there
PRESENCE_SCALE = 12.0
HARDEST = 4  # cells of a scene that are most like what is not there


@dataclass(frozen=True)
class Matches:
    """Each object of each pair, looked for from one scene in the other, both ways round.

    Attributes:
        reference, scene: int64 (M,), where it is known from and where it is looked for.
        instance: int64 (M,), its instance id in ``scene``, 0 if it is not there.
        reference_cells, cells: bool (M, N), its cells in either; none if it is not there.
    """

    reference: Tensor
    scene: Tensor
    instance: Tensor
    reference_cells: Tensor
    cells: Tensor

    @property
    def present(self) -> Tensor:
        """Whether the object is in ``scene``, bool (M,)."""
        return self.instance > 0

    def select(self, rows: Tensor) -> Matches:
        return Matches(**{name: values[rows] for name, values in self.__dict__.items()})


def find_matches(scenes: Scenes, grid_side: int) -> Matches | None:
    """Match the objects of scenes 2i and 2i + 1 by their sprites; None if none is in both.

    Objects that only one of the scenes has are among them, as not there; those of which too
    little is seen are not.
    """
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
            if sprite < 0 or not seen[b, k]:
                continue
            twins = (scenes.sprite_indices[mate] == sprite).nonzero().flatten().tolist()
            if not twins:
                rows.append((b, mate, k + 1, 0))
            elif len(twins) == 1 and seen[mate, twins[0]]:
                rows.append((b, mate, k + 1, twins[0] + 1))
    if not rows:
        return None
    reference, scene, known, instance = torch.tensor(rows, device=ids.device).unbind(dim=1)
    matches = Matches(
        reference=reference,
        scene=scene,
        instance=instance,
        reference_cells=cells[reference] == known[:, None],
        cells=(cells[scene] == instance[:, None]) & (instance > 0)[:, None],
    )
    enough = (matches.cells.sum(1) >= MIN_CELLS) | ~matches.present
    matches = matches.select(enough & (matches.reference_cells.sum(1) >= MIN_CELLS))
    return matches if bool(matches.present.any()) else None


def pool_targets(embedding: Tensor, matches: Matches) -> Tensor:
    """Mean feature (M, C) of each object's cells in its reference, of embeddings (B, C, g, g)."""
    features = embedding.flatten(2)[matches.reference]  # (M, C, N)
    weights = matches.reference_cells.to(features)
    return (features * weights[:, None]).sum(2) / weights.sum(1, keepdim=True)


def matching_loss(targets: Tensor, embedding: Tensor, matches: Matches) -> Tensor:
    """Contrast each target's own cells with all that are not its own, by cosine (InfoNCE).

    Half of it asks that the scene's most similar cells are the object's (PerSAM takes the best
    one for its point), half that every cell of the object stands out from all other scenes.

    Args:
        targets: (M, C).
        embedding: (B, C, g, g).
    """
    cells = F.normalize(embedding.float().flatten(2), dim=1)  # (B, C, N)
    cosine = torch.einsum("mc,bcn->mbn", F.normalize(targets.float(), dim=1), cells)
    logits = cosine / TEMPERATURE
    rows = torch.arange(len(targets), device=logits.device)
    own = logits[rows, matches.scene]  # (M, N)
    best = own.masked_fill(~matches.cells, -torch.inf).logsumexp(dim=1)
    in_scene = own.logsumexp(dim=1) - best  # (M,)
    elsewhere = logits.clone()
    elsewhere[rows, matches.scene] = -torch.inf
    elsewhere[rows, matches.reference] = -torch.inf
    outside = elsewhere.flatten(1).logsumexp(dim=1)
    weights = matches.cells.to(own)
    among_all = (F.softplus(outside[:, None] - own) * weights).sum(1) / weights.sum(1)
    return (in_scene + among_all).mean() / 2


def presence_loss(targets: Tensor, embedding: Tensor, matches: Matches) -> Tensor:
    """Ask the cosine with a target to say whether a cell shows the object, decided at 0.5.

    Of what is not the object only the most similar cells count: "not in this picture" is decided
    by the best place there is.

    Args:
        targets: (M, C).
        embedding: (B, C, g, g).
    """
    cells = F.normalize(embedding.float().flatten(2), dim=1)[matches.scene]  # (M, C, N)
    cosine = torch.einsum("mc,mcn->mn", F.normalize(targets.float(), dim=1), cells)
    logits = PRESENCE_SCALE * (cosine - PRESENT)
    hardest = logits.masked_fill(matches.cells, -torch.inf).topk(HARDEST, dim=1).values
    own = F.softplus(-logits) * matches.cells
    found = own.sum() / matches.cells.sum().clamp(min=1)
    return (found + F.softplus(hardest).mean()) / 2


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
