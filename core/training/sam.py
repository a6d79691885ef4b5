"""Train the embedded SAM on sticker scenes: ``python -m core.training sam --minutes 120``.

SAM's recipe (paper, section 3 and appendix A): one click or a noisy box, then correction clicks
from the error region with the former logits as mask input; of three masks for a single prompt
the best one learns; the IoU head regresses the IoU of each. The auxiliary losses on the image
embedding are ours (``losses.py``), and so is what PerSAM gains from: scenes come in pairs that
share objects, an object's features in one have to find it in the other, and PerSAM's own first
pass is among the prompts (``matching.py``). Expected on two cores: see the model's card.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.loading import file_sha256, load_weights, read_state_dict
from core.sam.build import PIXEL_MEAN, build_sam
from core.sam.config import SamConfig
from core.sam.decoding import Transformer, decode_masks
from core.stickers.atlas import load_atlas
from core.stickers.categories import categories
from core.stickers.pairs import PairedScenes
from core.stickers.scenes import SceneConfig, SceneGenerator, Scenes
from core.stickers.sources import CREDITS
from core.training import losses, matching, prompting
from core.training.prompting import FOREGROUND, Targets
from core.training.run import RunConfig, TrainingRun

# More of what photographs have and the benchmark's scenes lack: subjects that fill the picture,
# and objects that differ from what is behind them by texture rather than by clean colours.
SCENES = SceneConfig(close_up_probability=0.25, texture_probability=0.25)


@dataclass(frozen=True, kw_only=True)
class SamTraining:
    """Sizes of one step, and weights of the losses that are not SAM's own.

    ``cell_weight`` and ``pixel_weight`` fall to nothing in the second half; the others stay.
    """

    seed: int = 0
    scenes_per_step: int = 16
    targets_per_scene: int = 3
    max_rounds: int = 3
    pool_size: int = 4096
    fresh_per_step: int = 4
    cell_weight: float = 0.5
    pixel_weight: float = 1.0
    pixel_dim: int = 16
    match_weight: float = 0.5
    presence_weight: float = 0.3
    personal_weight: float = 0.25
    personal_per_step: int = 12


class TrainableSam(nn.Module):
    """SAM with the head that the pixel affinity loss needs; only ``sam`` is exported."""

    def __init__(self, config: SamConfig, pixel_dim: int) -> None:
        super().__init__()
        self.sam = build_sam(config)
        self.pixel_head = nn.Sequential(
            nn.Conv2d(config.out_chans, 16 * pixel_dim, 1), nn.PixelShuffle(4)
        )

    def encode(self, images: Tensor) -> Tensor:
        """Encode uint8 (B, 3, S, S) to the embedding (B, C, g, g)."""
        pixels = (images.float() - self.sam.pixel_mean) / self.sam.pixel_std
        return self.sam.image_encoder(pixels.contiguous(memory_format=torch.channels_last))

    def decode(
        self,
        embeddings: Tensor,
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None = None,
        transformer: Transformer | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode one prompt per row: all four low-res logits and IoU predictions.

        Args:
            coords: (N, T, 2) as fractions of the picture.
            labels: (N, T): points, box corners or padding (``prompting``'s codes).
        """
        sparse, dense = prompting.embed_prompts(self.sam, coords, labels, mask_input)
        with torch.autocast(coords.device.type, enabled=False):
            image_pe = self.sam.prompt_encoder.get_dense_pe()
        return decode_masks(
            self.sam.mask_decoder,
            image_embeddings=embeddings,
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            transformer=transformer,
        )


class ScenePool:
    """A rolling pool of pairs of scenes, each seen several times: flipped, recoloured."""

    def __init__(self, generator: PairedScenes, capacity: int, fresh: int, seed: int) -> None:
        self.generator, self.fresh = generator, fresh
        self.random = torch.Generator().manual_seed(seed)
        first = generator.batch(min(capacity, 256))
        self.pool = _each(lambda x: x.new_empty(capacity, *x.shape[1:]), first)
        self.filled = self.next = 0
        self._store(first)

    def batch(self, count: int) -> Scenes:
        """Add fresh scenes, over the oldest ones once full, and draw ``count`` from the pool.

        All of these numbers are even; scenes 2i and 2i + 1 are a pair.
        """
        self._store(self.generator.batch(self.fresh))
        # Each pair once: a copy would count as a scene without the pair's objects.
        pairs = torch.randperm(self.filled // 2, generator=self.random)[: count // 2, None]
        chosen = (2 * pairs + torch.arange(2)).flatten()
        return self._augment(_each(lambda x: x[chosen.to(x.device)], self.pool))

    def _store(self, scenes: Scenes) -> None:
        capacity, count = len(self.pool.images), len(scenes.images)
        rows = torch.arange(self.next, self.next + count) % capacity
        for name, stored in self.pool.__dict__.items():
            stored[rows.to(stored.device)] = getattr(scenes, name)
        self.next = (self.next + count) % capacity
        self.filled = min(capacity, self.filled + count)

    def _augment(self, scenes: Scenes) -> Scenes:
        if torch.rand((), generator=self.random) < 0.5:
            flipped = ("images", "instance_ids", "part_ids", "region_ids")
            scenes = replace(scenes, **{k: getattr(scenes, k).flip(-1) for k in flipped})
        if torch.rand((), generator=self.random) < 0.5:
            order = torch.randperm(3, generator=self.random)
            scenes = replace(scenes, images=scenes.images[:, order])
        if torch.rand((), generator=self.random) < 0.4:
            share = 0.55 + 0.4 * float(torch.rand((), generator=self.random))
            portrait = bool(torch.rand((), generator=self.random) < 0.5)
            cut = letterbox(scenes, share, axis=-1 if portrait else -2)
            scenes = cut if bool(cut.instance_ids.any()) else scenes
        return scenes


def letterbox(scenes: Scenes, share: float, *, axis: int) -> Scenes:
    """Cut scenes to a share of one axis, and fill the rest as SAM pads oblong pictures."""
    size = scenes.images.shape[axis]
    start = round(share * size)
    images = scenes.images.clone()
    mean = torch.tensor(PIXEL_MEAN).round().to(images)
    images.narrow(axis, start, size - start).copy_(mean.view(1, 3, 1, 1))
    maps = {k: getattr(scenes, k).clone() for k in ("instance_ids", "part_ids", "region_ids")}
    for ids in maps.values():
        ids.narrow(axis, start, size - start).zero_()
    return replace(scenes, images=images, **maps)


def _each(function: Callable[[Tensor], Tensor], scenes: Scenes) -> Scenes:
    """Apply ``function`` to every tensor of a batch."""
    return Scenes(**{name: function(tensor) for name, tensor in scenes.__dict__.items()})


class SamObjective:
    """The loss of one batch of scenes: auxiliary losses, then rounds of prompts."""

    def __init__(self, model: TrainableSam, config: SamTraining) -> None:
        self.model, self.config = model, config
        self.random = torch.Generator().manual_seed(config.seed + 1)

    def __call__(self, scenes: Scenes, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        embedding = self.model.encode(scenes.images).float()
        cell, pixel = self._auxiliary(embedding, scenes)
        targets = prompting.choose_targets(scenes, config.targets_per_scene, self.random)
        rounds = self._draw_rounds(progress)
        mask, iou, figures = self._prompt_rounds(embedding, targets, min(rounds, config.max_rounds))
        personal, matched = self._personal(embedding, scenes)
        fade = min(1.0, 2 * (1 - progress))  # the decoder has the last word
        loss = mask + iou + fade * (config.cell_weight * cell + config.pixel_weight * pixel)
        figures = {"mask": mask, "iou": iou, "cell": cell, "pixel": pixel, **figures, **matched}
        return loss + personal, figures

    def _draw_rounds(self, progress: float) -> int:
        """Corrections teach little before there is a mask to correct, and most at the end."""
        second = 0.0 if progress < 0.08 else 0.6 if progress < 0.6 else 0.85
        third = 0.0 if progress < 0.3 else 0.5 if progress < 0.6 else 0.65
        return 1 + int(self._random() < second) + int(self._random() < second * third)

    def _random(self) -> float:
        return float(torch.rand((), generator=self.random))

    def _auxiliary(self, embedding: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
        side = embedding.shape[-1]
        ids = scenes.instance_ids
        step = ids.shape[-1] // side
        cells = ids[:, step // 2 :: step, step // 2 :: step].int()
        pixels = ids[:, 2::4, 2::4].int()
        on_object = (pixels > 0).flatten(1).float()
        on_object = torch.where(on_object.sum(1, keepdim=True) > 0, on_object, 1.0)
        queries = torch.multinomial(on_object.cpu(), 8, True, generator=self.random)
        return (
            losses.cell_affinity_loss(embedding, cells),
            losses.pixel_affinity_loss(
                self.model.pixel_head(embedding), pixels, queries.to(ids.device)
            ),
        )

    def _personal(self, embedding: Tensor, scenes: Scenes) -> tuple[Tensor, dict[str, Tensor]]:
        """The matching loss, and PerSAM's first pass on some of the matches."""
        matches = matching.find_matches(scenes, embedding.shape[-1])
        if matches is None:
            return embedding.new_zeros(()), {}
        config = self.config
        targets = matching.pool_targets(embedding, matches)
        presence = matching.presence_loss(targets, embedding, matches)
        targets, matches = targets[matches.present], matches.select(matches.present)
        match = matching.matching_loss(targets, embedding, matches)
        order = torch.randperm(len(matches.scene), generator=self.random)
        chosen = order[: config.personal_per_step].to(embedding.device)
        matches = matches.select(chosen)
        prompts = matching.personal_prompts(targets[chosen], embedding, matches, self.random)
        guided, semantic = self._random() < 0.8, self._random() < 0.8
        low_res, iou_predictions = self.model.decode(
            embedding[matches.scene],
            prompts.coords,
            prompts.labels,
            transformer=prompts.transformer(
                self.model.sam.mask_decoder.transformer, guided=guided, semantic=semantic
            ),
        )
        logits = low_res.float()
        masks = scenes.instance_ids[matches.scene] == matches.instance[:, None, None]
        coverage = F.adaptive_avg_pool2d(masks[:, None].float(), logits.shape[-1])
        each = losses.mask_loss(logits, coverage)  # (M, 4)
        with torch.no_grad():
            ious = losses.mask_iou(logits, coverage)
        errors = ((iou_predictions.float() - ious) ** 2).mean()
        mask = each[:, 0].mean() + 0.5 * each[:, 1:].min(dim=1).values.mean()
        figures = {"match": match, "presence": presence, "found": prompts.found.float().mean()}
        figures["personal_iou"] = ious[:, 0].mean()
        loss = config.match_weight * match + config.presence_weight * presence
        return loss + config.personal_weight * (mask + errors), figures

    def _prompt_rounds(
        self, embedding: Tensor, targets: Targets, rounds: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        embeddings = embedding[targets.scene]
        side = 4 * embedding.shape[-1]
        # Covered fractions, not yes or no: where an edge crosses a pixel the logit says how far.
        coverage = F.adaptive_avg_pool2d(targets.masks[:, None].float(), side)
        truth = coverage[:, 0] > 0.5
        coords, labels = prompting.first_prompts(targets.masks, self.random)
        mask_input = None
        mask_total = iou_total = embedding.new_zeros(())
        figures: dict[str, Tensor] = {}
        for number in range(rounds):
            low_res, iou_predictions = self.model.decode(embeddings, coords, labels, mask_input)
            logits = low_res.float()
            each = losses.mask_loss(logits, coverage)  # (N, 4)
            with torch.no_grad():
                ious = losses.mask_iou(logits, coverage)
            errors = (iou_predictions.float() - ious) ** 2
            if number == 0:  # one prompt is ambiguous: the best of three masks learns
                mask_total = each[:, 1:].min(dim=1).values.mean() + 0.5 * each[:, 0].mean()
                iou_total = errors.mean()
                chosen = 1 + iou_predictions[:, 1:].argmax(dim=1)
                figures = self._first_round_figures(ious, chosen, labels)
            else:
                # One mask counts, as in the paper; a refinement by PerSAM chooses among the others.
                best = each[:, 1:].min(dim=1).values.mean()
                mask_total = mask_total + each[:, 0].mean() + 0.25 * best
                iou_total = iou_total + errors[:, 0].mean() + 0.25 * errors[:, 1:].mean()
                chosen = torch.zeros(len(each), dtype=torch.long, device=each.device)
                figures |= {"later_iou": ious[:, 0].mean()}
            if number + 1 < rounds:
                rows = torch.arange(len(chosen), device=chosen.device)
                mask_input = logits[rows, chosen][:, None].detach()
                error = (mask_input[:, 0] > 0) ^ truth
                coords, labels = self._correct(coords, labels, error, truth)
        return mask_total / rounds, iou_total / rounds, figures

    @staticmethod
    def _first_round_figures(ious: Tensor, chosen: Tensor, labels: Tensor) -> dict[str, Tensor]:
        picked = ious.gather(1, chosen[:, None])[:, 0]
        click = labels[:, 0] == FOREGROUND
        best = ious[:, 1:].max(dim=1).values
        return {
            "click_iou": picked[click].mean(),
            "oracle_iou": best[click].mean(),
            "box_iou": picked[~click].mean(),
        }

    def _correct(
        self, coords: Tensor, labels: Tensor, error: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add a click in the error region; a perfect mask gets a background click (or any)."""
        perfect = ~error.flatten(1).any(dim=1)
        region = torch.where(perfect[:, None, None], ~truth, error)
        point = prompting.sample_points(region, self.random)
        side = truth.shape[-1]
        x, y = (point * side).long().clamp(max=side - 1).unbind(dim=1)
        label = truth[torch.arange(len(truth), device=truth.device), y, x].to(labels)
        return torch.cat([point[:, None], coords], dim=1), torch.cat([label[:, None], labels], 1)


def train(run_config: RunConfig, data: Path, training: SamTraining | None = None) -> Path:
    """Train within the run's time budget and export ``sam_embedded``; return its path."""
    training = training or SamTraining(seed=run_config.seed)
    torch.manual_seed(training.seed)
    config = SamConfig.embedded()
    model = TrainableSam(config, training.pixel_dim)
    if run_config.start_from:
        weights = read_state_dict(run_config.start_from)
        load_weights(model.sam, weights, name=run_config.start_from.name)
    run = TrainingRun(model, run_config)
    atlas = load_atlas(data).to(run.device)
    # A resumed run continues with scenes it has not seen.
    generator = SceneGenerator(
        atlas, atlas.training_sprites(), config=SCENES, seed=training.seed + run.step
    )
    paired = PairedScenes(generator, categories(data, atlas), seed=training.seed + run.step + 1)
    pool = ScenePool(paired, training.pool_size, training.fresh_per_step, training.seed)
    objective = SamObjective(run.model, training)
    for _ in run.steps():
        with run.accelerator.autocast():
            loss, figures = objective(pool.batch(training.scenes_per_step), run.progress)
        run.update(loss, **figures)
    return export(run, config, training)


def export(run: TrainingRun, config: SamConfig, training: SamTraining) -> Path:
    """Write SAM's own weights (without training heads) and their card."""
    started_from = run.config.start_from
    card = {
        "id": "sam_embedded",
        "license": "Apache-2.0",
        "config": asdict(config),
        "credits": CREDITS,
        "training": {
            "command": f"python -m core.training sam --minutes {run.config.minutes:g} "
            f"--learning-rate {run.config.learning_rate:g}",
            "data": "sticker world, training objects, held-out style excluded",
            "started_from": started_from and file_sha256(started_from),
            **asdict(training),
        },
    }
    return run.export("sam_embedded", card, prefix="sam.")
