"""The loss of the embedded PixelLM on scenes and what is said about them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.pixellm.losses import IGNORED, OVERLAP_WEIGHT, text_loss, total_loss
from core.pixellm.model import PixelLM
from core.pixellm.tokenizer import ChatTokenizer
from core.training.clip_losses import FREE
from core.training.clip_scenes import known_objects, patch_coverage
from core.training.losses import mask_iou
from core.training.pixellm_batches import Batch
from core.training.pixellm_losses import (
    OWN,
    guidance_loss,
    guides,
    picking_loss,
    pointing_loss,
    thing_features,
)
from core.training.pixellm_scenes import ChatScenes

NAMING_SCALE = 20.0  # of cosines between image tokens and names
BACKGROUND_WEIGHT = 0.3


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """How much each loss counts.

    Args:
        decoded: targets of a batch whose masks are made; the others are learned as words only.
        shown: things of a batch whose masks are made of their own features.
        naming_weight: of the names of image tokens.
        showing_weight: of masks made of things' own features.
        pointing_weight: of ``pointing_loss``.
        guiding_weight: of ``guidance_loss``.
        picking_weight: of what the prompts take for their thing among all that are there.
        overlap_weight: α of the target-refinement loss; 1 switches it off.
    """

    seed: int = 0
    decoded: int = 24
    shown: int = 16
    naming_weight: float = 0.5
    showing_weight: float = 1.0
    pointing_weight: float = 0.3
    guiding_weight: float = 0.5
    picking_weight: float = 0.5
    overlap_weight: float = OVERLAP_WEIGHT


class Learner(nn.Module):
    """A network with what only its training needs: a word for "nothing is here"."""

    def __init__(self, network: PixelLM) -> None:
        super().__init__()
        self.network = network
        self.background = nn.Parameter(torch.randn(network.config.language.hidden_size))


class Targets(NamedTuple):
    """Targets whose masks are made: (K,) each.

    Which picture, which question, and the number of the thing that is meant.
    """

    scene: Tensor
    question: Tensor
    thing: Tensor


class Objective:
    """The loss of one batch of scenes and what is said about them."""

    def __init__(self, learner: Learner, tokenizer: ChatTokenizer, config: ObjectiveConfig):
        self.learner, self.config = learner, config
        self.network = learner.network
        self.draw = random.Random(config.seed + 5)
        self.spellings = [
            [tokenizer.encode(text) for text in (item.name, item.name, *item.synonyms)]
            for item in known_objects()
        ]

    def __call__(
        self, scenes: ChatScenes, batch: Batch | None, *, frozen: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and figures for the curve.

        Args:
            batch: what is said about the scenes; None to learn what can be learned without.
            frozen: leave the image tower as it is.
        """
        network, config = self.network, self.config
        with torch.set_grad_enabled(not frozen):
            features = encode(network, scenes.images)
        image_tokens = network.project_to_words(features[0])
        grids = network.decoder_features(network.project_to_masks(features))
        naming, named = self._naming(scenes, image_tokens.float())
        shown, shown_iou = self._show(scenes, grids)
        loss = config.naming_weight * naming + config.showing_weight * shown
        figures = {"naming": naming, "named": named, "shown_iou": shown_iou}
        if batch is None:
            return loss, figures
        states = read(network, batch, image_tokens)
        text = answer_loss(network, states, batch)
        answered, more = self._answer(scenes, batch, states, grids, text)
        return loss + answered, {"text": text, **figures, **more}

    def _answer(
        self, scenes: ChatScenes, batch: Batch, states: Tensor, grids: list[Tensor], text: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The published loss, with that of prompts on some of a batch's targets."""
        config, network = self.config, self.network
        chosen = self._choose(len(batch.scene), config.decoded)
        targets = Targets(batch.scene[chosen], batch.question[chosen], batch.thing[chosen])
        own, others = self._masks(scenes, targets)
        own_grids = [grid[targets.scene] for grid in grids]
        rows = states[targets.scene[:, None], batch.states[chosen]]  # (K, L·N, D)
        prompts = network.prompts(rows)
        logits, truth = self._decode(prompts, own_grids, own)
        loss = total_loss(text, logits, truth, targets.question, config.overlap_weight)
        if not len(targets.scene):
            return loss, {}
        pointing = pointing_loss(prompts[:, 0], own_grids[0], own, others)
        guided = guidance_loss(prompts, guides(own_grids, own).detach())
        cover = cell_coverage(scenes, grids[0].shape[-1])
        features, there = thing_features(grids[0], cover, scenes.classes)
        picking, picked = picking_loss(
            prompts[:, 0], features[targets.scene], there[targets.scene], targets.thing - 1
        )
        loss = loss + config.pointing_weight * pointing + config.guiding_weight * guided
        loss = loss + config.picking_weight * picking
        iou = mask_iou(logits.detach(), truth).mean()
        more = {"iou": iou, "pointing": pointing, "guided": guided, "picked": picked}
        return loss, more | {"picking": picking}

    def _show(self, scenes: ChatScenes, grids: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Masks of things whose own features are the prompts: loss and mean IoU."""
        places = (scenes.classes >= 0).nonzero()
        chosen = self._choose(len(places), self.config.shown)
        scene, place = places[chosen].unbind(dim=1)
        targets = Targets(scene, torch.arange(len(chosen), device=scene.device), place + 1)
        own, others = self._masks(scenes, targets)
        own_grids = [grid[scene] for grid in grids]
        prompts = guides(own_grids, own)
        logits, truth = self._decode(prompts, own_grids, own)
        if not len(chosen):
            return logits.sum(), logits.sum().detach()
        loss = total_loss(logits.sum() * 0, logits, truth, targets.question, 1.0)
        loss = loss + self.config.pointing_weight * pointing_loss(
            prompts[:, 0], own_grids[0], own, others
        )
        return loss, mask_iou(logits.detach(), truth).mean()

    def _choose(self, count: int, most: int) -> list[int]:
        """Some in a row: masks of one question are compared with each other."""
        first = self.draw.randrange(count - most) if count > most else 0
        return list(range(first, min(count, first + most)))

    def _masks(self, scenes: ChatScenes, targets: Targets) -> tuple[Tensor, Tensor]:
        """The things meant and all other things, (K, S, S) each, 0 or 1."""
        ids = scenes.instance_ids[targets.scene]
        numbers = targets.thing.view(-1, 1, 1)
        return (ids == numbers).float(), ((ids != numbers) & (ids > 0)).float()

    def _decode(self, prompts: Tensor, grids: list[Tensor], own: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (K, h, w) of prompts (K, L, C), and the truth at their size."""
        size = self.network.config.mask_size
        if not len(own):
            empty = prompts.new_zeros(0, size, size).float()
            return empty, empty
        logits = self.network.decode_prompts(prompts, grids).float()
        return logits, F.interpolate(own[:, None], (size, size), mode="area")[:, 0]

    def _naming(self, scenes: ChatScenes, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each image token with the name of what it shows; share of right ones."""
        coverage = cell_coverage(scenes, round(image_tokens.shape[1] ** 0.5))
        best, owner = coverage.max(dim=2)
        target = scenes.classes.gather(1, owner)
        owned = (best > OWN) & (target >= 0)
        free = coverage.sum(dim=2) < FREE
        words = torch.cat([self._names(), self.learner.background[None]])
        words = F.normalize(words.float(), dim=1)
        logits = NAMING_SCALE * F.normalize(image_tokens, dim=2) @ words.T
        objects = F.cross_entropy(logits[owned], target[owned], reduction="sum")
        background = F.cross_entropy(
            logits[free], torch.full_like(target[free], len(words) - 1), reduction="sum"
        )
        loss = objects / owned.sum().clamp(min=1)
        loss = loss + BACKGROUND_WEIGHT * background / free.sum().clamp(min=1)
        right = (logits[..., :-1].argmax(dim=2) == target)[owned]
        return loss, right.float().sum() / owned.sum().clamp(min=1)

    def _names(self) -> Tensor:
        """The mean word embedding of every known object's name or a synonym, (C, D)."""
        embed = self.network.language_model.model.embed_tokens
        chosen = [self.draw.choice(ways) for ways in self.spellings]
        ids = torch.tensor([token for ids in chosen for token in ids], device=embed.weight.device)
        starts = torch.tensor([0, *[len(ids) for ids in chosen[:-1]]]).cumsum(0)
        return F.embedding_bag(ids, embed.weight, starts.to(ids.device), mode="mean")


def cell_coverage(scenes: ChatScenes, side: int) -> Tensor:
    """Share of each of side² cells that each thing covers, (B, side², things)."""
    patch = scenes.images.shape[-1] // side
    return patch_coverage(scenes.instance_ids, scenes.classes.shape[1], patch)


def encode(network: PixelLM, images: Tensor) -> list[Tensor]:
    """Features of uint8 (B, 3, S, S), of the network's own size."""
    config = network.config
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1)
        for values in (config.pixel_mean, config.pixel_std)
    )
    side = config.vision.grid_size
    everything = torch.ones(len(images), side, side, dtype=torch.bool, device=images.device)
    return network.vision_tower((images.float() - mean) / std, everything)


def read(network: PixelLM, batch: Batch, image_tokens: Tensor) -> Tensor:
    """Hidden states (B, T, D) of the language model."""
    language_model = network.language_model.model
    embeds = language_model.embed_tokens(batch.ids)
    place = batch.picture
    embeds = torch.cat(
        [embeds[:, : place.start], image_tokens.to(embeds.dtype), embeds[:, place.stop :]], dim=1
    )
    output = language_model(
        inputs_embeds=embeds,
        attention_mask=batch.attention_mask(embeds.dtype),
        position_ids=batch.positions,
        use_cache=False,
    )
    return output.last_hidden_state


def answer_loss(network: PixelLM, states: Tensor, batch: Batch) -> Tensor:
    """The published loss on words; only states that predict an answer's token reach the head."""
    wanted = batch.labels[:, 1:]
    due = wanted != IGNORED
    logits = network.token_logits(states[:, :-1][due])  # (n, V)
    # text_loss shifts by one position, as over a whole sequence.
    return text_loss(F.pad(logits, (0, 0, 0, 1))[None], F.pad(wanted[due], (1, 0))[None])
