"""The masked loss: its check values, its limits, and diffusers' own functions beside it."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from core.dreambooth.config import DreamBoothConfig
from core.dreambooth.loss import (
    latent_mask,
    masked_errors,
    min_snr_weights,
    step_losses,
    target_of,
    weight_map,
)

FORMS = ("area", "plain")


def scheduler(kind="epsilon", **values):
    return DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear", **values)


@pytest.fixture
def quarter():
    """Squared error 1 inside a mask of a quarter, 9 outside: prediction, target, mask."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4, :4] = 1
    target = torch.zeros(1, 4, 8, 8)
    return torch.where(mask > 0, 1.0, 3.0).expand(1, 4, 8, 8).clone(), target, mask


@pytest.mark.parametrize(("form", "value"), [("none", 7.0), ("plain", 0.25), ("area", 1.0)])
def test_check_values(quarter, form, value):
    assert masked_errors(*quarter, form, 0.02).item() == pytest.approx(value)


@pytest.mark.parametrize("form", FORMS)
def test_no_gradient_comes_from_outside_the_mask(quarter, form):
    prediction, target, mask = quarter
    prediction.requires_grad_(True)
    masked_errors(prediction, target, mask, form, 0.02).sum().backward()
    outside = mask.expand_as(prediction) == 0
    assert (prediction.grad[outside] == 0).all()
    assert (prediction.grad[~outside] != 0).all()


@given(seed=st.integers(0, 1000), form=st.sampled_from(FORMS))
def test_a_mask_of_ones_and_a_full_background_weight_are_plain_dreambooth(seed, form):
    random = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, 3, 4, 8, 8, generator=random)
    soft = torch.rand(3, 1, 8, 8, generator=random)
    plain = F.mse_loss(prediction, target)
    ones = masked_errors(prediction, target, torch.ones_like(soft), form, 0.02)
    lifted = masked_errors(prediction, target, weight_map(soft, background_weight=1), form, 0.02)
    assert_close(ones.mean(), plain)
    assert_close(lifted.mean(), plain)


def test_a_tiny_mask_does_not_outweigh_everything():
    mask = torch.zeros(1, 1, 10, 10)
    mask[..., 0, 0] = 1
    errors = masked_errors(torch.ones(1, 4, 10, 10), torch.zeros(1, 4, 10, 10), mask, "area", 0.02)
    assert errors.item() == pytest.approx(0.5)  # one cell, divided by the floor of two


def test_pictures_count_alike_whatever_their_masks_area():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :2, :2] = mask[1] = 1
    errors = masked_errors(torch.ones(2, 4, 8, 8), torch.zeros(2, 4, 8, 8), mask, "area", 0.02)
    assert_close(errors, torch.ones(2))


def test_blocks_of_a_mask_are_averaged():
    mask = torch.zeros(16, 16)
    mask[:8, :8] = 1  # all of the first cell
    mask[:4, 8:] = 1  # half of the second
    mask[8, 0] = 1  # one pixel of the third
    cells = latent_mask(mask[None, None], 8)
    assert_close(cells[0, 0], torch.tensor([[1, 0.5], [1 / 64, 0]]))
    assert_close(latent_mask(mask[None, None], 4).mean(), mask.mean())


def test_growing_by_cells_and_lifting_the_background():
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 2, 2] = 0.5
    grown = weight_map(mask, dilate=1)
    assert grown.sum() == pytest.approx(4.5)
    assert grown[0, 0, 0, 0] == 0
    lifted = weight_map(mask, background_weight=0.1)
    assert lifted[0, 0, 0, 0] == pytest.approx(0.1)
    assert lifted[0, 0, 2, 2] == pytest.approx(0.55)


@given(mask=st.floats(0, 1), dilate=st.integers(0, 3), background=st.floats(0, 1))
def test_weights_stay_between_background_and_one(mask, dilate, background):
    weights = weight_map(
        torch.full((1, 1, 6, 6), mask), dilate=dilate, background_weight=background
    )
    assert weights.min() >= background - 1e-6
    assert weights.max() <= 1 + 1e-6


def test_targets():
    latents, noise = torch.randn(2, 2, 4, 8, 8)
    timesteps = torch.tensor([3, 700])
    assert target_of(scheduler(), latents, noise, timesteps) is noise
    velocity = scheduler("v_prediction")
    expected = velocity.get_velocity(latents, noise, timesteps)
    assert_close(target_of(velocity, latents, noise, timesteps), expected)
    with pytest.raises(ValueError, match="epsilon or v_prediction"):
        target_of(scheduler("sample"), latents, noise, timesteps)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_the_references(kind):
    timesteps = torch.tensor([0, 10, 500, 999])
    one = scheduler(kind)
    snr = compute_snr(one, timesteps)
    expected = snr.clamp(max=5.0) / (snr if kind == "epsilon" else snr + 1)
    assert_close(min_snr_weights(one, timesteps, 5.0), expected, rtol=1e-4, atol=1e-6)


def test_min_snr_weights_of_pure_noise_are_finite():
    one = scheduler("v_prediction", rescale_betas_zero_snr=True)
    assert min_snr_weights(one, torch.tensor([999]), 5.0).isfinite().all()


def losses_of(batch, config):
    prediction, target, mask, timesteps = batch
    return step_losses(prediction, target, mask, timesteps, scheduler(), config)


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(3)
    prediction, target = torch.randn(2, 4, 4, 8, 8, generator=random)
    mask = torch.rand(2, 1, 8, 8, generator=random)
    return prediction.requires_grad_(True), target, mask, torch.tensor([5, 800, 100, 300])


def test_the_priors_half_never_meets_a_mask(batch):
    config = DreamBoothConfig(prior_weight=0.5)
    prediction, target, mask, timesteps = batch
    masked = losses_of(batch, config)
    nowhere = losses_of((prediction, target, torch.zeros_like(mask), timesteps), config)
    expected = F.mse_loss(prediction[2:], target[2:])
    assert_close(masked.prior, expected.detach())
    assert_close(nowhere.prior, masked.prior)
    assert_close(nowhere.total, 0.5 * expected)
    masked.total.backward()
    plain = torch.autograd.grad(0.5 * expected, prediction)[0]
    assert_close(prediction.grad[2:], plain[2:])


def test_the_snr_weights_are_those_of_the_subjects_own_timesteps(batch):
    prediction, target, mask, timesteps = batch
    config = DreamBoothConfig(snr_gamma=5.0)
    other = timesteps.clone()
    other[2:] = 999
    here = losses_of(batch, config)
    assert_close(losses_of((prediction, target, mask, other), config).total, here.total)
    errors = masked_errors(prediction[:2], target[:2], mask, "area", config.min_area)
    weights = min_snr_weights(scheduler(), timesteps[:2], 5.0)
    assert_close(here.instance, (errors * weights).mean().detach())


def test_without_prior_the_total_is_the_instance_loss(batch):
    prediction, target, mask, timesteps = batch
    losses = losses_of((prediction[:2], target[:2], mask, timesteps[:2]), DreamBoothConfig())
    assert losses.prior is None
    assert_close(losses.total.detach(), losses.instance)
    assert_close(losses.unmasked, F.mse_loss(prediction[:2], target[:2]).detach())
