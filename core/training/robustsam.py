"""Train what RobustSAM adds to the embedded SAM: ``python -m core.training robustsam``.

Pairs of a clear and a degraded sticker scene share their prompts. SAM stays as it is; the added
parameters learn the mask of the degraded picture, and the clear picture's mask features and
output tokens (paper, section 3.3; ``robust_losses.py``). Ours beyond the paper: three masks for
a single prompt, of which the best one learns, as in SAM; and a beginning at which the robust path
nearly is SAM's own (``start_as_sam``). Expected on two cores: see the model's card.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from core.degradations import KINDS, Degraded, degrade
from core.models.catalogue import catalogue
from core.models.loading import file_sha256, load_weights, read_state_dict
from core.robustsam.build import build_robust_sam
from core.robustsam.config import RobustSamConfig
from core.robustsam.decoder import RobustMaskDecoder, RobustOutput
from core.robustsam.modules import AntiDegradationFeatures
from core.sam.decoding import run_transformer
from core.stickers.atlas import load_atlas
from core.stickers.scenes import SceneGenerator, Scenes
from core.stickers.sources import CREDITS
from core.training import losses, prompting, robust_losses
from core.training.prompting import FOREGROUND, PADDING
from core.training.run import RunConfig, TrainingRun
from core.training.sam import SCENES

BASE = "sam_embedded"
# Never trained on, so that something is known of kinds that nobody thought of.
UNSEEN = ("snow", "motion_blur")
SEEN = tuple(name for name in KINDS if name not in ("clear", *UNSEEN))


@dataclass(frozen=True, kw_only=True)
class RobustTraining:
    """Sizes of one step.

    Args:
        clear_share: of pictures that are not degraded; the published training has 1/16.
        published_share: of degradations drawn from the published ranges instead of a severity.
        multimask_weight: of the loss of the three masks for a single prompt.
        token_scenes, token_steps: of the warm-up, in which AOTG learns SAM's own masks.
        feature_size: of the mask features at the start; the feature loss counts in its square.
    """

    seed: int = 0
    scenes_per_step: int = 16
    targets_per_scene: int = 2
    pool_size: int = 768
    fresh_per_step: int = 4
    clear_share: float = 1 / 8
    published_share: float = 0.2
    multimask_weight: float = 0.5
    token_scenes: int = 480
    token_steps: int = 1500
    feature_size: float = 0.1


@dataclass(frozen=True)
class Encoded:
    """Image embedding (B, D, g, g) and early feature (B, C, g, g) of B pictures."""

    embedding: Tensor
    early: Tensor

    def rows(self, index: Tensor) -> Encoded:
        return Encoded(self.embedding[index], self.early[index])


@dataclass(frozen=True)
class ClearOutput:
    """What the clear picture gives for the same prompts: the target of the consistency loss.

    Args:
        features: (B, D/8, 4g, 4g), fused mask features without what takes degradation out.
        tokens: (B, 4, D), SAM's own output tokens.
    """

    features: Tensor
    tokens: Tensor


@torch.no_grad()
def encode(sam: Sam, images: Tensor) -> Encoded:
    """Encode pictures uint8 or float (B, 3, S, S) in [0, 255] by SAM's frozen encoder."""
    pixels = (images.float() - sam.pixel_mean) / sam.pixel_std
    embedding, early = sam.image_encoder.forward_features(pixels)
    return Encoded(embedding.float(), early.float())


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


@torch.no_grad()
def start_as_sam(decoder: RobustMaskDecoder, *, feature_size: float, upscaled_rms: float) -> None:
    """Initialise the added parameters so that the masks' features begin as SAM's own.

    AMFG begins as the identity, the picture's features add nothing, and the output layers keep
    the direction of each pixel's vector: GELU(x) - GELU(-x) = x. Only AOTG is left to learn,
    which sees a quarter of a token.

    Args:
        feature_size: root mean square of the fused features.
        upscaled_rms: the same of SAM's own features, for logits of SAM's size.
    """
    decoder.custom_robust_token.weight.copy_(decoder.mask_tokens.weight)
    sams_mlp = decoder.output_hypernetworks_mlps[0]
    decoder.robust_mlp.load_state_dict(sams_mlp.state_dict())
    last = decoder.robust_mlp.layers[-1]
    last.weight.mul_(upscaled_rms / feature_size)
    last.bias.mul_(upscaled_rms / feature_size)
    for block in (decoder.fourier_first_layer_features, decoder.fourier_last_layer_features):
        _start_as_identity(block)
        last_conv = block.output_layers[-1]
        assert isinstance(last_conv, nn.ConvTranspose2d) and last_conv.bias is not None
        nn.init.zeros_(last_conv.weight)
        nn.init.zeros_(last_conv.bias)
    _start_as_identity(decoder.fourier_mask_features)
    widen, _, _, narrow = decoder.fourier_mask_features.output_layers
    identity = torch.eye(decoder.transformer_dim // 8)
    _set_centre(widen, torch.cat([identity, -identity]))
    _set_centre(narrow, feature_size * torch.cat([identity, -identity], dim=1))


def _start_as_identity(block: AntiDegradationFeatures) -> None:
    excite = block.dnc_block_combined.channel_attention.excitation[2]
    assert isinstance(excite, nn.Linear)
    nn.init.zeros_(excite.weight)
    nn.init.zeros_(excite.bias)  # each channel at one half
    channels = block.conv_layer.out_channels
    _set_centre(block.fgm_block.conv_layer, torch.eye(2 * channels))
    keep = torch.cat([torch.eye(channels), torch.zeros(channels, channels)], dim=1)
    _set_centre(block.conv_layer, 2 * keep)


def _set_centre(conv: nn.Module, weight: Tensor) -> None:
    """Make a convolution one of the central pixel alone."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    height, width = conv.kernel_size
    conv.weight[:, :, height // 2, width // 2] = weight


def learn_tokens(sam: Sam, generator: SceneGenerator, config: RobustTraining) -> None:
    """Let AOTG and the robust MLP give the masks that SAM gives clear pictures.

    The one part of the robust path that cannot begin as SAM's own: it sees a quarter of a token.
    """
    decoder = sam.mask_decoder
    random = torch.Generator().manual_seed(config.seed + 2)
    batches = [
        _sams_masks(sam, generator.batch(16), random) for _ in range(config.token_scenes // 16)
    ]
    tokens, features, truth = (torch.cat(parts) for parts in zip(*batches, strict=True))
    learner = nn.ModuleList([decoder.custom_token_block, decoder.robust_mlp])
    optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.token_steps)
    for _ in range(config.token_steps):
        rows = torch.randint(len(tokens), (128,), generator=random).to(tokens.device)
        logits = torch.einsum(
            "btc,bchw->bthw", decoder.hyper_weights(tokens[rows])[0], features[rows].float()
        )
        loss = F.binary_cross_entropy_with_logits(logits, truth[rows].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _sams_masks(sam: Sam, scenes: Scenes, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """SAM's tokens (B, 4, D), their features as the robust path begins, and SAM's masks.

    Features (B, D/8, 2g, 2g) and masks (B, 4, 2g, 2g) at every second pixel.
    """
    decoder, encoded = sam.mask_decoder, encode(sam, scenes.images)
    targets = prompting.choose_targets(scenes, 4, random)
    sparse, dense = prompting.embed_prompts(sam, *prompting.first_prompts(targets.masks, random))
    hidden, src = run_transformer(
        decoder,
        decoder.mask_tokens.weight,
        image_embeddings=encoded.embedding[targets.scene],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    tokens, upscaled = hidden[:, 1 : 1 + decoder.num_mask_tokens], decoder.output_upscaling(src)
    mlps = decoder.output_hypernetworks_mlps
    weights = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(mlps)], dim=1)
    upscaled = upscaled[..., ::2, ::2]
    features = decoder.fourier_mask_features(upscaled, clear=True)
    return tokens, features.half(), torch.einsum("btc,bchw->bthw", weights, upscaled) > 0


class DegradedPairs:
    """A rolling pool of encoded clear scenes, each seen several times under new degradations."""

    def __init__(self, sam: Sam, generator: SceneGenerator, config: RobustTraining) -> None:
        self.sam, self.generator, self.config = sam, generator, config
        self.random = torch.Generator().manual_seed(config.seed)
        self.stored: list[tuple[Scenes, Encoded]] = []
        self.next = 0

    def batch(self) -> tuple[Scenes, Encoded, list[Degraded]]:
        """Draw clear scenes, their encodings, and each degraded."""
        self._add(self.config.fresh_per_step if self.stored else self.config.scenes_per_step)
        count = min(self.config.scenes_per_step, len(self.stored))
        chosen = torch.randperm(len(self.stored), generator=self.random)[:count].tolist()
        scenes = _join([self.stored[i][0] for i in chosen])
        embeddings, early = (
            torch.cat([getattr(self.stored[i][1], name).float() for i in chosen])
            for name in ("embedding", "early")
        )
        encoded = Encoded(embeddings, early)
        pictures = scenes.images.permute(0, 2, 3, 1).cpu().numpy()
        return scenes, encoded, [self._degrade(np.ascontiguousarray(one)) for one in pictures]

    def _degrade(self, picture: np.ndarray) -> Degraded:
        draw = torch.rand(2, generator=self.random).tolist()
        seed = int(torch.randint(2**31, (), generator=self.random))
        kind = int(torch.randint(len(SEEN), (), generator=self.random))
        severity = int(torch.randint(1, 6, (), generator=self.random))
        if draw[0] < self.config.clear_share:
            return degrade(picture, "clear")
        published = draw[1] < self.config.published_share
        return degrade(picture, SEEN[kind], severity=None if published else severity, seed=seed)

    def _add(self, count: int) -> None:
        scenes = self.generator.batch(count)
        encoded = encode(self.sam, scenes.images)
        for i, one in enumerate(_split(scenes)):
            # Half precision: a thousand scenes are 100 MB.
            halves = Encoded(encoded.embedding[i : i + 1].half(), encoded.early[i : i + 1].half())
            if len(self.stored) < self.config.pool_size:
                self.stored.append((one, halves))
            else:
                self.stored[self.next] = (one, halves)
                self.next = (self.next + 1) % self.config.pool_size


def _split(scenes: Scenes) -> Iterator[Scenes]:
    for i in range(len(scenes.images)):
        yield Scenes(**{name: value[i : i + 1] for name, value in scenes.__dict__.items()})


def _join(scenes: list[Scenes]) -> Scenes:
    return Scenes(**{k: torch.cat([getattr(s, k) for s in scenes]) for k in scenes[0].__dict__})


class RobustObjective:
    """The loss of one batch of pairs."""

    def __init__(self, sam: Sam, config: RobustTraining) -> None:
        self.sam, self.config = sam, config
        self.random = torch.Generator().manual_seed(config.seed + 1)
        # Of the beginning: a target that moves with what is learned could shrink to nothing.
        self.teacher = copy.deepcopy(sam.mask_decoder).eval()

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
        """Dice and focal of the single mask, and for one prompt of the best of three."""
        logits = output.low_res_logits.float()
        coverage = F.adaptive_avg_pool2d(masks[:, None].float(), logits.shape[-1])
        each = robust_losses.segmentation_loss(logits, coverage)  # (N, 4)
        loss = each[:, 0].mean()
        with torch.no_grad():
            ious = losses.mask_iou(logits, coverage)
        figures = {"single_iou": ious[:, 0].mean()}
        if single:
            loss = loss + self.config.multimask_weight * each[:, 1:].min(dim=1).values.mean()
            figures["oracle_iou"] = ious[:, 1:].max(dim=1).values.mean()
        return loss, figures


def train(run_config: RunConfig, data: Path, training: RobustTraining | None = None) -> Path:
    """Train within the run's time budget and export ``robustsam_embedded``; return its path."""
    training = training or RobustTraining(seed=run_config.seed)
    torch.manual_seed(training.seed)
    config = RobustSamConfig.embedded()
    sam = build_robust_sam(config)
    base = read_state_dict(Path(catalogue()[BASE].file))
    added = sam.mask_decoder.added_parameters()
    if run_config.start_from:
        start = read_state_dict(run_config.start_from)
    else:
        start = _begin(sam, base, training)
    state = base | {f"mask_decoder.{name}": value for name, value in start.items()}
    load_weights(sam, state, name=run_config.start_from.name if run_config.start_from else BASE)
    _freeze(sam)
    atlas = load_atlas(data)
    if not (run_config.start_from or run_config.resume):
        scenes = SceneGenerator(atlas, atlas.training_sprites(), config=SCENES, seed=training.seed)
        learn_tokens(sam, scenes, training)
    run = TrainingRun(sam, run_config)
    atlas = atlas.to(run.device)
    generator = SceneGenerator(
        atlas, atlas.training_sprites(), config=SCENES, seed=training.seed + 1 + run.step
    )
    pairs = DegradedPairs(run.model, generator, replace(training, seed=training.seed + run.step))
    objective = RobustObjective(run.model, training)
    for _ in run.steps():
        with run.accelerator.autocast():
            loss, figures = objective(*pairs.batch())
        run.update(loss, **figures)
    return export(run, config, training, list(added))


def _begin(sam: Sam, base: dict[str, Tensor], training: RobustTraining) -> dict[str, Tensor]:
    """Added parameters to begin with, at the size of the base's features on plain noise."""
    decoder = sam.mask_decoder
    sam.load_state_dict(base, strict=False)
    with torch.no_grad():
        noise = torch.rand(2, 3, *sam.prompt_encoder.input_image_size) * 255
        upscaled = decoder.output_upscaling(encode(sam, noise).embedding)
    rms = float(upscaled.square().mean().sqrt())
    start_as_sam(decoder, feature_size=training.feature_size, upscaled_rms=rms)
    return decoder.added_parameters()


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
