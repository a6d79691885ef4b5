"""Latents by picture and crop: never another picture's mask, whatever the order."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from core.dreambooth.data import Batches, PictureLatents
from core.dreambooth.loss import latent_mask
from core.dreambooth.randomness import generator_at, position
from core.dreambooth.transforms import cut_mask, cut_picture
from tests.core.dreambooth.conftest import FAST, SIDE, make_picture

PICTURES = [(p.image, p.mask) for p in (make_picture(k) for k in range(4))]


def filled(model, config=FAST, pictures=PICTURES, name="own"):
    latents = PictureLatents(model, name, pictures, config)
    list(latents.fill())
    return latents


def test_a_record_is_of_its_own_picture(model):
    """What a cache by the loader's step gets wrong: the mask of another photo."""
    latents = filled(model)
    for index, (image, mask) in enumerate(PICTURES):
        for number in range(8):
            record = latents.get(index, generator_at(number))
            assert record.picture == index
            mean, std = model.encode_pixels(cut_picture(image, record.crop)[None])
            assert_close(record.mean, mean[0])
            assert_close(record.std, std[0])
            assert_close(record.mask, latent_mask(cut_mask(mask, record.crop)[None], 4)[0])


def test_the_cache_does_not_depend_on_the_order_of_asking(model):
    there, back = filled(model), filled(model)
    forth = {k: there.get(k, generator_at(5, k)) for k in range(4)}
    reverse = {k: back.get(k, generator_at(5, k)) for k in reversed(range(4))}
    for k in range(4):
        assert forth[k].crop == reverse[k].crop
        assert torch.equal(forth[k].mean, reverse[k].mean)
        assert torch.equal(forth[k].mask, reverse[k].mask)


def test_two_shuffles_give_each_picture_the_same_latent_and_mask(model):
    latents = filled(model, replace(FAST, crops_per_picture=1))
    seen = []
    for seed in (0, 1):
        order = [position(k, 4, seed, "own") for k in range(4)]
        seen.append({index: latents.get(index, generator_at(seed)) for index in order})
    for index in range(4):
        first, second = (records[index] for records in seen)
        assert torch.equal(first.mean, second.mean)
        assert torch.equal(first.mask, second.mask)


def test_each_crop_is_encoded_once(model):
    calls = []

    class Counting:
        factor, channels, resolution = model.factor, model.channels, model.resolution

        def encode_pixels(self, pixels):
            calls.append(pixels.shape)
            return model.encode_pixels(pixels)

    latents = PictureLatents(Counting(), "own", PICTURES, replace(FAST, crops_per_picture=3))
    assert list(latents.fill()) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(calls) == 12
    for step in range(20):
        latents.get(step % 4, generator_at(step))
    assert len(calls) == 12


def test_square_pictures_have_one_crop(model):
    latents = filled(model, pictures=[(image[:, :40], mask[:, :40]) for image, mask in PICTURES])
    assert {latents.get(0, generator_at(k)).crop for k in range(5)} == {
        latents.get(0, generator_at(9)).crop
    }


@pytest.mark.parametrize("changes", [{"cache_latents": False}, {"cache_mib": 1}])
def test_without_cache_pictures_are_encoded_when_asked(model, changes, monkeypatch):
    monkeypatch.setattr(PictureLatents, "_expected_mib", lambda self: 2)
    latents = PictureLatents(model, "own", PICTURES, replace(FAST, **changes))
    assert list(latents.fill()) == []
    crops = {latents.get(0, generator_at(k)).crop for k in range(8)}
    assert len(crops) > 2  # fresh ones
    record = latents.get(0, generator_at(1))
    mean, _ = model.encode_pixels(cut_picture(PICTURES[0][0], record.crop)[None])
    assert_close(record.mean, mean[0])


def test_masks_are_grown_and_lifted(model):
    config = replace(FAST, dilate=1, background_weight=0.25, crops_per_picture=1)
    plain = filled(model, replace(config, dilate=0, background_weight=0.0))
    grown = filled(model, config)
    first, second = (one.get(0, generator_at(0)).mask for one in (plain, grown))
    assert second.min() == pytest.approx(0.25)
    assert second.sum() > 0.25 * second.numel() + 0.75 * first.sum()


@pytest.fixture
def batches(model):
    config = replace(FAST, batch_size=2)
    ones = np.ones((SIDE, SIDE), bool)
    other = [(image[:SIDE, :SIDE], ones) for image, _ in PICTURES[:3]]
    return Batches(filled(model), filled(model, pictures=other, name="class"), config, 1000)


def test_a_batch_has_the_subject_first_and_a_mask_for_it_only(batches):
    batch = batches.make(0)
    cells = SIDE // 4
    assert batch.latents.shape == batch.noise.shape == (4, 4, cells, cells)
    assert batch.mask.shape == (2, 1, cells, cells)
    assert batch.timesteps.shape == (4,)
    assert (0 <= batch.timesteps).all() and (batch.timesteps < 1000).all()
    assert 0 < batch.mask.mean() < 1


def test_a_step_s_batch_does_not_depend_on_the_steps_before(batches):
    again = batches.make(7)
    for step in range(3):
        batches.make(step)
    for name in ("latents", "noise", "timesteps", "mask"):
        assert torch.equal(getattr(batches.make(7), name), getattr(again, name))


def test_processes_share_out_the_pictures(model):
    """Two processes see in one step what one process sees in two."""
    seen = []

    class Noting:
        def __len__(self):
            return 4

        def get(self, index, generator):
            seen.append(index)
            return filled_once.get(index, generator)

    filled_once = filled(model)
    batches = Batches(Noting(), None, FAST, 1000)
    for step in range(4):
        batches.make(step)
    alone = list(seen)
    seen.clear()
    first, second = (batches.make(0, rank, 2) for rank in (0, 1))
    batches.make(1, 0, 2), batches.make(1, 1, 2)
    assert seen == alone
    assert sorted(alone) == [0, 1, 2, 3]  # a round holds each picture once
    assert not torch.equal(first.noise, second.noise)


def test_offset_noise_shifts_whole_channels(model):
    plain = Batches(filled(model), None, FAST, 1000).make(0)
    shifted = Batches(filled(model), None, replace(FAST, offset_noise=0.5), 1000).make(0)
    shift = shifted.noise - plain.noise
    assert shift.std(dim=(2, 3)).max() < 1e-5
    assert shift.mean(dim=(2, 3)).abs().min() > 0


def test_latents_are_what_the_pipeline_would_decode(model):
    """Scaled as diffusers does it: mean times the VAE's factor."""
    pixels = cut_picture(PICTURES[0][0], filled(model).get(0, generator_at(0)).crop)[None]
    mean, std = model.encode_pixels(pixels)
    posterior = model.vae.encode(pixels).latent_dist
    assert_close(mean, posterior.mean * model.vae.config.scaling_factor)
    assert_close(std, posterior.std * model.vae.config.scaling_factor)


def test_a_latent_is_drawn_from_its_distribution(model):
    record = filled(model).get(1, generator_at(0))
    drawn = torch.stack([record.sample(generator_at(k)) for k in range(200)])
    assert (drawn.mean(0) - record.mean).abs().max() < 6 * record.std.max() / 200**0.5
    assert torch.equal(record.sample(generator_at(3)), record.sample(generator_at(3)))
