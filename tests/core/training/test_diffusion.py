"""Training the embedded diffusion model: its world, its words, its two parts, its export."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from core.clip.build import MERGES, build_clip
from core.dreambooth.build import (
    UNET_FILE,
    build_from_entry,
    build_pipeline,
    byte_pair_tokenizer,
    embedded_pipeline_config,
)
from core.dreambooth.model import DiffusionModel
from core.models.catalogue import parse_entry
from core.models.loading import read_state_dict
from core.stickers.atlas import Atlas, SpriteInfo
from core.stickers.colours import COLOURS
from core.stickers.objects import find_object
from core.training import diffusion as training
from core.training import diffusion_pictures as pictures
from core.training import diffusion_pool as pools
from core.training import diffusion_vae as vaes
from core.training.diffusion_backdrops import BACKDROPS, SHEETS, SIDE, make_sheets
from core.training.diffusion_words import prompt
from core.training.muon import ConvolutionMuon, hidden_matrices
from core.training.run import RunConfig

NAMES = ("apple", "cat", "gift")


@pytest.fixture
def atlas(small_atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> Atlas:
    """The small atlas, its first sprites those of a world of three objects."""
    monkeypatch.setattr(pictures, "WORLD_NAMES", NAMES)
    known = [SpriteInfo(pictures.STYLE, find_object(n).code_point, n, "train") for n in NAMES]
    return Atlas(**{**small_atlas.__dict__, "infos": (*known, *small_atlas.infos[len(known) :])})


@pytest.fixture
def world(atlas: Atlas) -> pictures.WorldGenerator:
    return pictures.WorldGenerator(atlas, seed=3)


def build_small() -> DiffusionModel:
    """The embedded model with few channels, fresh."""
    config = embedded_pipeline_config()
    config["vae"] |= {"block_out_channels": [8, 8, 8, 16], "norm_num_groups": 4}
    config["unet"] |= {"block_out_channels": [16, 16], "norm_num_groups": 4}
    return build_pipeline(config, byte_pair_tokenizer(MERGES), id=training.NAME)


@pytest.fixture(scope="module")
def small() -> DiffusionModel:
    model = build_small()
    vaes.start_as_average(model.vae)
    return model


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file(build_clip().state_dict(), path)
    return path


def test_the_world_is_large_enough_and_holds_no_test_object() -> None:
    objects = pictures.world_objects()
    assert len(objects) >= 40 and len(BACKDROPS) >= 8
    assert len({item.name for item in objects}) == len(objects)
    assert all(item.split == "train" for item in objects)


def test_a_held_out_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "WORLD_NAMES", ("apple", "lemon", "no such thing"))
    with pytest.raises(ValueError, match="lemon, no such thing"):
        pictures.world_objects()


def test_backdrops_differ_from_each_other_more_than_in_themselves() -> None:
    sheets = make_sheets(0)
    assert sheets.shape == (len(BACKDROPS), SHEETS, 3, SIDE, SIDE)
    assert torch.equal(sheets, make_sheets(0)) and not torch.equal(sheets, make_sheets(1))
    pixels = sheets.flatten(3)
    looks = torch.cat([pixels.mean(dim=3), pixels.std(dim=3)], dim=2)  # (backdrops, sheets, 6)
    near = torch.cdist(looks.flatten(0, 1), looks.mean(dim=1)).argmin(dim=1)
    assert (near == torch.arange(len(BACKDROPS)).repeat_interleave(SHEETS)).float().mean() > 0.9


def test_pictures_show_the_object_in_the_middle(world: pictures.WorldGenerator) -> None:
    batch = world.batch(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, 3]))
    assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for mask in batch.masks:
        assert 0.1 < mask.float().mean() < 0.75
        assert abs(x[mask].mean() - 31.5) < 10 and abs(y[mask].mean() - 31.5) < 10
    assert batch.colour_name(0) in (*COLOURS, None)


def test_a_seed_draws_one_series(atlas: Atlas) -> None:
    def first(seed: int, **options: float) -> torch.Tensor:
        world = pictures.WorldGenerator(atlas, seed=seed, **options)
        return world.batch(torch.tensor([0, 1]), world.choose_backdrops(2)).images

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert not torch.equal(first(1), first(1, turned_share=1.0))


def test_larger_pictures_show_the_same(atlas: Atlas) -> None:
    small, large = (
        pictures.WorldGenerator(atlas, seed=5, size=size).batch(
            torch.tensor([0]), torch.tensor([4])
        )
        for size in (64, 128)
    )
    halved = nn.functional.avg_pool2d(large.images.float(), 2)
    assert (halved - small.images).abs().mean() < 20
    areas = [float(one.masks.float().mean()) for one in (small, large)]
    assert areas[1] == pytest.approx(areas[0], abs=0.03)


def test_a_style_without_the_object_is_an_error(atlas: Atlas) -> None:
    with pytest.raises(KeyError):
        pictures.sprites_of(atlas, pictures.world_objects(), style="noto")


def test_prompts_name_colour_object_and_backdrop() -> None:
    clock = find_object("alarm clock")
    assert prompt(clock, 0, "red") == "a photo of a red alarm clock on grass"
    assert prompt(clock, None, None) == "a photo of an alarm clock"
    assert prompt(clock, None, "orange") == "a photo of an orange alarm clock"
    texts = {prompt(clock, 5, None, random.Random(seed)) for seed in range(40)}
    assert len(texts) >= 5
    assert all("alarm clock" in text and "a brick wall" in text for text in texts)


def test_every_prompt_can_be_read_whole() -> None:
    tokenizer = byte_pair_tokenizer(MERGES)
    draw = random.Random(0)
    for item in pictures.world_objects():
        for backdrop in range(len(BACKDROPS)):
            text = prompt(item, backdrop, "orange", draw)
            assert len(tokenizer(text).input_ids) <= tokenizer.model_max_length, text


def test_muon_steps_a_convolution_as_the_matrix_of_its_kernels() -> None:
    torch.manual_seed(0)
    kernels, matrix = nn.Parameter(torch.randn(8, 4, 3, 3)), nn.Parameter(torch.empty(8, 36))
    matrix.data.copy_(kernels.data.flatten(1))
    options = {"lr": 0.1, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    ours, theirs = ConvolutionMuon([kernels], **options), torch.optim.Muon([matrix], **options)
    for seed in range(3):
        gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
        kernels.grad, matrix.grad = gradient, gradient.flatten(1)
        ours.step(), theirs.step()
    torch.testing.assert_close(kernels.detach().flatten(1), matrix.detach())
    ours.zero_grad()
    before = kernels.detach().clone()
    ours.step()
    assert kernels.grad is None and torch.equal(kernels, before), "no gradient, no step"


def test_muons_state_can_be_kept_and_read() -> None:
    weights = [nn.Parameter(torch.ones(4, 2, 3, 3)) for _ in range(2)]
    first, second = (ConvolutionMuon([weight], lr=0.1) for weight in weights)
    gradient = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    weights[0].grad = gradient
    first.step()
    weights[1].data.copy_(weights[0].data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for weight, one in zip(weights, (first, second), strict=True):
        weight.grad = -2 * gradient
        one.step()
    assert torch.equal(*weights)


def test_tables_vectors_and_named_layers_are_no_hidden_matrices() -> None:
    model = nn.ModuleDict(
        {"table": nn.Embedding(3, 2), "conv_in": nn.Conv2d(1, 2, 3), "mid": nn.Conv2d(2, 2, 3)}
    )
    assert hidden_matrices(model, others=("conv_in",)) == ["mid.weight"]


def test_a_fresh_vae_begins_as_an_average(small: DiffusionModel) -> None:
    """Brightness survives at once: the picture's left half is darker than its right one."""
    image = torch.full((1, 3, 64, 64), -0.8)
    image[..., 32:] = 0.8
    with torch.no_grad():
        posterior = small.vae.encode(image).latent_dist
    left, right = posterior.mean[..., :3].mean(dim=(2, 3)), posterior.mean[..., 5:].mean(dim=(2, 3))
    assert (left - right).abs().max() > 0.3
    assert posterior.std.mean() < 0.3, "what there is to learn is not hidden in noise"


def test_edges_and_psnr_are_what_they_say() -> None:
    flat, step = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    step[..., 2:] = 1
    assert vaes.edge_distance(flat, flat + 0.5) == 0
    assert float(vaes.edge_distance(flat, step)) == pytest.approx(1 / 3)
    assert float(vaes.psnr(torch.tensor(0.04))) == pytest.approx(20)


def test_the_vae_sees_corners_and_whole_pictures(atlas: Atlas) -> None:
    source = vaes.VaePictures(atlas, 0)
    corner, whole = source.batch(4, 32), source.batch(4)
    assert corner.shape == (4, 3, 32, 32) and whole.shape == (4, 3, 64, 64)
    assert whole.min() >= -1 and whole.max() <= 1


def test_the_vaes_loss_falls_to_nothing_only_for_the_same_picture(
    small: DiffusionModel, atlas: Atlas, clip_file: Path
) -> None:
    objective = vaes.VaeObjective(small.vae, clip_file, torch.device("cpu"))
    pixels = vaes.VaePictures(atlas, 0).batch(2)
    loss, figures = objective(pixels)
    assert loss.requires_grad and {"psnr", "kl", "features"} == figures.keys()
    assert float(objective._feature_distance(pixels, pixels)) == pytest.approx(0, abs=1e-5)
    assert "features" not in objective(pixels[..., :32, :32])[1]


@pytest.fixture
def pool(small: DiffusionModel, atlas: Atlas) -> pools.Pool:
    return pools.make_pool(small.vae, atlas, 1, as_drawn=1, turned=1)


def test_the_pool_holds_each_object_on_each_backdrop(pool: pools.Pool) -> None:
    every = len(NAMES) * len(BACKDROPS)
    assert pool.means.shape == (2 * every, 8, 8, 8) and pool.means.dtype == torch.float16
    assert pool.turned.sum() == every
    pairs = set(zip(pool.items.tolist(), pool.backdrops.tolist(), strict=True))
    assert len(pairs) == every
    assert float((pool.means.float() * pool.scale).std()) == pytest.approx(1, abs=1e-3)


def test_batches_say_what_their_pictures_show(pool: pools.Pool) -> None:
    batches = pools.PoolBatches(pool, 0)
    for _ in range(40):
        key, among = batches._choose()
        for index in among:
            assert pool.items[index] == key.item
            assert key.backdrop is None or pool.backdrops[index] == key.backdrop
            assert key.colour is None or pool.colours[index] == key.colour
            assert key.colour is not None or not pool.turned[index], "an unsaid hue is its own"
    latents, texts = batches.batch(6, 3)
    assert latents.shape == (18, 8, 8, 8) and len(texts) == 6
    again = pools.PoolBatches(pool, 0).batch(40, 1)[1]
    assert again == pools.PoolBatches(pool, 0).batch(40, 1)[1] and "" in again


def test_the_pool_is_made_once(
    small: DiffusionModel, atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make(*_: object) -> pools.Pool:
        made.append(1)
        return pools.Pool(*(torch.ones(2) for _ in range(6)))

    monkeypatch.setattr(pools, "make_pool", make)
    for _ in range(2):
        kept = pools.kept_pool(tmp_path / "pool.safetensors", small.vae, atlas, 0)
    assert made == [1] and kept.means.tolist() == [1, 1]


def test_the_denoisers_loss_is_that_of_the_velocity(small: DiffusionModel) -> None:
    class Still(nn.Module):
        """Predicts nothing, so that the loss is the target's own size."""

        def forward(self, noisy: torch.Tensor, *_: torch.Tensor) -> object:
            return type("Output", (), {"sample": torch.zeros_like(noisy)})

    parts = training.Denoiser(Still(), small.text_encoder)
    objective = training.DenoiserObjective(parts, small, 0)
    loss, figures = objective(torch.randn(64, 8, 8, 8), ["a cat", ""])
    assert float(loss) == pytest.approx(1, abs=0.1), "velocities of unit latents have unit size"
    assert figures.keys() == {"early", "late"}


def test_timesteps_are_spread_over_the_schedule(small: DiffusionModel) -> None:
    steps = training.DenoiserObjective(None, small, 0)._timesteps(10)
    assert sorted(int(step) // 100 for step in steps) == list(range(10))


def test_each_part_has_its_share_and_goes_on_if_it_began(tmp_path: Path) -> None:
    config = RunConfig(out=tmp_path, minutes=10, resume=True)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "checkpoint.pt").touch()
    vae, unet = training.part_configs(config)
    assert vae.minutes + unet.minutes == pytest.approx(10)
    assert (vae.resume, unet.resume) == (True, False)
    assert not training.part_configs(replace(config, resume=False))[0].resume


def test_trains_exports_and_goes_on(
    atlas: Atlas, clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_atlas", lambda folder: atlas)
    monkeypatch.setattr(training, "start_model", build_small)
    monkeypatch.setattr(training, "clip_weights", lambda: clip_file)
    monkeypatch.setattr(
        pools.make_pool, "__kwdefaults__", {"as_drawn": 1, "turned": 1}, raising=False
    )
    config = RunConfig(out=tmp_path, minutes=0.04, device="cpu", log_steps=1, warmup_steps=1)
    folder = training.train(config, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    assert card["knows"] == list(NAMES) and "grass" in card["backdrops"]
    record = {
        "id": training.NAME,
        "method": "dreambooth",
        "set": "embedded",
        "title": "",
        "note": "",
        "file": str(folder / UNET_FILE),
        "card": str(folder / "card.json"),
        "license": "",
        "source": "",
        "memory_mib": 1,
        "builder": "core.dreambooth.build:build_from_entry",
    }
    entry = parse_entry(record, Path("/"))
    model = build_from_entry(entry, read_state_dict(Path(entry.file)))
    assert model.vae.config.scaling_factor != 1.0
    begun = torch.load(tmp_path / "unet" / "checkpoint.pt", weights_only=True)["step"]
    monkeypatch.setattr(training, "VAE_SHARE", 0.1)  # so there is time left for the U-Net only
    training.train(replace(config, minutes=0.06, resume=True), tmp_path)
    assert torch.load(tmp_path / "unet" / "checkpoint.pt", weights_only=True)["step"] > begun
