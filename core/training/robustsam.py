"""Train what RobustSAM adds to the embedded SAM: ``python -m core.training robustsam``.

Pairs of a clear and a degraded sticker scene share their prompts. SAM stays as it is; the added
parameters learn the mask of the degraded picture, and the clear picture's mask features and
output tokens (paper, section 3.3; ``robust_losses.py``). Ours beyond the paper: three masks for
a single prompt, of which the best one learns, as in SAM; and a beginning at which the robust path
nearly is SAM's own (``robust_start.py``). Expected on two cores: see the model's card.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from core.degradations import Degraded
from core.models.catalogue import catalogue
from core.models.loading import file_sha256, load_weights, read_state_dict
from core.robustsam.build import build_robust_sam
from core.robustsam.config import RobustSamConfig
from core.robustsam.decoder import RobustMaskDecoder, RobustOutput
from core.sam.decoding import run_transformer
from core.stickers.atlas import load_atlas
from core.stickers.scenes import SceneGenerator, Scenes
from core.stickers.sources import CREDITS
from core.training import losses, prompting, robust_losses
from core.training.prompting import FOREGROUND, PADDING
from core.training.robust_pairs import UNSEEN, DegradedPairs, Encoded, PairConfig, encode
from core.training.robust_start import StartConfig, begin, learn_tokens
from core.training.run import RunConfig, TrainingRun
from core.training.sam import SCENES

BASE = "sam_embedded"


@dataclass(frozen=True, kw_only=True)
class RobustTraining:
    """Sizes of one step.

    Args:
        multimask_weight: of the loss of the three masks for a single prompt: half of it teaches
            the best of them, half the one that SAM's frozen head would choose.
    """

    seed: int = 0
    targets_per_scene: int = 3
    multimask_weight: float = 0.5
    pairs: PairConfig = PairConfig()
    start: StartConfig = StartConfig()


@dataclass(frozen=True)
class ClearOutput:
    """What the clear picture gives for the same prompts: the target of the consistency loss.

    Args:
        features: (B, D/8, 4g, 4g), fused mask features without what takes degradation out.
        tokens: (B, 4, D), SAM's own output tokens.
    """

    features: Tensor
    tokens: Tensor


def decode_clear(
    decoder: RobustMaskDecoder, clear: Encoded, image_pe: Tensor, sparse: Tensor, dense: Tensor
) -> ClearOutput:
    """SAM's own path, and the fused features as they are for a clear picture."""
    hidden, src = run_transformer(
        decoder,
        decoder.mask_tokens.weight,
        image_embeddings=clear.embedding,
        image_pe=image_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    image_features = decoder.image_features(clear.early, clear.embedding, clear=True)
    upscaled = decoder.output_upscaling(src)
    features = decoder.mask_features(upscaled, image_features, clear=True)
    return ClearOutput(features, hidden[:, 1 : 1 + decoder.num_mask_tokens])


def decode_degraded(
    decoder: RobustMaskDecoder,
    degraded: Encoded,
    rows: Tensor,
    image_pe: Tensor,
    sparse: Tensor,
    dense: Tensor,
) -> RobustOutput:
    """The robust path; prompt b belongs to picture ``rows[b]``."""
    image_features = decoder.image_features(degraded.early, degraded.embedding)
    return decoder.decode_robust(
        image_embeddings=degraded.embedding[rows],
        image_features=image_features[rows],
        image_pe=image_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


class RobustObjective:
    """The loss of one batch of pairs.

    Args:
        teacher: the decoder as it was at the very beginning, which gives the clear picture's
            features: a target that moved with what is learned could shrink to nothing.
    """

    def __init__(self, sam: Sam, teacher: RobustMaskDecoder, config: RobustTraining) -> None:
        self.sam, self.teacher, self.config = sam, teacher, config
        self.random = torch.Generator().manual_seed(config.seed + 1)

    def __call__(
        self, scenes: Scenes, clear: Encoded, degraded: list[Degraded]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, sam = self.config, self.sam
        device = scenes.images.device
        pictures = torch.from_numpy(np.stack([one.image for one in degraded])).to(device)
        encoded = encode(sam, pictures.permute(0, 3, 1, 2))
        targets = prompting.choose_targets(scenes, config.targets_per_scene, self.random)
        targets = self._move(targets, degraded)
        coords, labels = self._prompts(targets.masks)
        sparse, dense = prompting.embed_prompts(sam, coords, labels)
        with torch.autocast(device.type, enabled=False):
            image_pe = sam.prompt_encoder.get_dense_pe()
        rows = targets.scene
        with torch.no_grad():
            goal = decode_clear(self.teacher, clear.rows(rows), image_pe, sparse, dense)
        output = decode_degraded(sam.mask_decoder, encoded, rows, image_pe, sparse, dense)
        unmoved = torch.tensor([not one.moves_pixels for one in degraded], device=device)[rows]
        consistency = self._consistency(output, goal, unmoved)
        mask, figures = self._masks(output, targets.masks, single=labels.shape[1] == 2)
        return mask + consistency, {"mask": mask, "consistency": consistency, **figures}

    def _move(self, targets: prompting.Targets, degraded: list[Degraded]) -> prompting.Targets:
        """Let masks follow where a degradation moved the pixels."""
        masks = targets.masks.clone()
        for i, scene in enumerate(targets.scene.tolist()):
            if degraded[scene].moves_pixels:
                moved = degraded[scene].displace_mask(masks[i].cpu().numpy())
                if moved.any():
                    masks[i] = torch.from_numpy(moved).to(masks.device)
        return replace(targets, masks=masks)

    def _prompts(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Clicks and boxes in two of three batches, else three clicks as published."""
        if float(torch.rand((), generator=self.random)) < 2 / 3:
            return prompting.first_prompts(masks, self.random)
        points = [prompting.sample_points(masks, self.random) for _ in range(3)]
        coords = torch.stack([*points, torch.zeros_like(points[0])], dim=1)
        labels = torch.tensor([FOREGROUND] * 3 + [PADDING], device=masks.device)
        return coords, labels.expand(len(masks), -1)

    @staticmethod
    def _consistency(output: RobustOutput, goal: ClearOutput, unmoved: Tensor) -> Tensor:
        """Of the prompts whose picture has its pixels where they were."""
        if not unmoved.any():
            return output.mask_features.new_zeros(())
        return robust_losses.consistency_loss(
            output.mask_features.float()[unmoved],
            goal.features.float()[unmoved],
            output.refined_tokens.float()[unmoved],
            goal.tokens.float()[unmoved],
        )

    def _masks(
        self, output: RobustOutput, masks: Tensor, *, single: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Dice and focal of the single mask, and for one prompt of the three others."""
        logits = output.low_res_logits.float()
        coverage = F.adaptive_avg_pool2d(masks[:, None].float(), logits.shape[-1])
        each = robust_losses.segmentation_loss(logits, coverage)  # (N, 4)
        loss = each[:, 0].mean()
        with torch.no_grad():
            ious = losses.mask_iou(logits, coverage)
        figures = {"single_iou": ious[:, 0].mean()}
        if single:
            chosen = output.iou_predictions[:, 1:].argmax(dim=1, keepdim=True)
            of_three = (each[:, 1:].min(dim=1).values + each[:, 1:].gather(1, chosen)[:, 0]) / 2
            loss = loss + self.config.multimask_weight * of_three.mean()
            figures["oracle_iou"] = ious[:, 1:].max(dim=1).values.mean()
            figures["chosen_iou"] = ious[:, 1:].gather(1, chosen).mean()
        return loss, figures


def train(run_config: RunConfig, data: Path, training: RobustTraining | None = None) -> Path:
    """Train within the run's time budget and export ``robustsam_embedded``; return its path."""
    training = training or RobustTraining(seed=run_config.seed)
    torch.manual_seed(training.seed)
    config = RobustSamConfig.embedded()
    sam = build_robust_sam(config)
    base = read_state_dict(Path(catalogue()[BASE].file))
    added = sam.mask_decoder.added_parameters()
    start = begin(sam, base, training.start)
    teacher = copy.deepcopy(sam.mask_decoder).eval().requires_grad_(False)
    if run_config.start_from:
        start = read_state_dict(run_config.start_from)
    state = base | {f"mask_decoder.{name}": value for name, value in start.items()}
    load_weights(sam, state, name=run_config.start_from.name if run_config.start_from else BASE)
    _freeze(sam)
    atlas = load_atlas(data)
    if not (run_config.start_from or run_config.resume):
        scenes = SceneGenerator(atlas, atlas.training_sprites(), config=SCENES, seed=training.seed)
        learn_tokens(sam, scenes, training.start, training.seed)
    run = TrainingRun(sam, run_config)
    atlas = atlas.to(run.device)
    generator = SceneGenerator(
        atlas, atlas.training_sprites(), config=SCENES, seed=training.seed + 1 + run.step
    )
    pairs = DegradedPairs(run.model, generator, training.pairs, training.seed + run.step)
    objective = RobustObjective(run.model, teacher.to(run.device), training)
    for _ in run.steps():
        with run.accelerator.autocast():
            loss, figures = objective(*pairs.batch())
        run.update(loss, **figures)
    return export(run, config, training, list(added))


def _freeze(sam: Sam) -> None:
    """SAM learns nothing; of its decoder only what RobustSAM added does."""
    added = set(sam.mask_decoder.added_parameters())
    for name, parameter in sam.named_parameters():
        parameter.requires_grad_(name.removeprefix("mask_decoder.") in added)


def export(
    run: TrainingRun, config: RobustSamConfig, training: RobustTraining, names: list[str]
) -> Path:
    """Write the added parameters and their card, which names the SAM they belong to."""
    started_from = run.config.start_from
    card = {
        "id": "robustsam_embedded",
        "license": "Apache-2.0",
        "config": {
            "base": BASE,
            "base_sha256": file_sha256(Path(catalogue()[BASE].file)),
            "early_dim": config.early_dim,
            "last_dim": config.last_dim,
            "norm_stats": config.norm_stats,
            "multimask": config.multimask,
        },
        "credits": CREDITS,
        "training": {
            "command": f"python -m core.training robustsam --minutes {run.config.minutes:g} "
            f"--learning-rate {run.config.learning_rate:g}",
            "data": "sticker world, training objects, held-out style excluded; all kinds of "
            f"degradation but {' and '.join(UNSEEN)}",
            "started_from": started_from and file_sha256(started_from),
            **asdict(training),
        },
    }
    prefix = "mask_decoder."
    return run.export("robustsam_embedded", card, prefix=prefix, names=names, half=True)
