import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from core.benchmark.persam import mask_loss
from core.persam.config import FitConfig
from core.persam.scale import ScaleWeights, _MaskLoss, fit_scale_weights


def readings(seed=0, size=(40, 56)):
    """Three smooth maps and a mask that the second one nearly is."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.nn.functional.interpolate(
        torch.randn(1, 3, 8, 8, generator=random) * 5, size, mode="bilinear"
    )[0]
    return logits, (logits[1] + 0.2 * logits[2] > 0).numpy()


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3), (-0.4, 1.7), (0.0, 0.0)])
def test_the_gradient_is_autograds(weights):
    logits, mask = readings()
    free = torch.tensor(weights, requires_grad=True)
    vector = torch.cat([1 - free.sum()[None], free])
    expected = mask_loss(
        (vector @ logits.flatten(1))[None], torch.from_numpy(mask).float().view(1, -1)
    )
    expected.backward()
    loss = _MaskLoss.of(logits, mask, None)
    dice, focal, gradient = loss.value_and_gradient(torch.tensor(weights))
    assert dice + focal == pytest.approx(expected.item(), abs=1e-6)
    assert_allclose(gradient, free.grad, rtol=1e-4, atol=1e-6)


def test_fitting_lowers_the_loss_and_favours_the_right_reading():
    logits, mask = readings()
    fit = fit_scale_weights([logits], [mask], FitConfig(steps=300, learning_rate=0.01))
    assert fit.loss[-1] < fit.loss[0]
    assert fit.weights.vector.argmax() == 1
    assert fit.weights.vector.sum() == pytest.approx(1)
    assert fit.history.shape == (301, 2) and fit.loss.shape == (300,)
    assert_allclose(fit.history[-1], [fit.weights.w1, fit.weights.w2], rtol=1e-6)


def test_block_means_give_the_same_weights():
    logits, mask = readings(size=(400, 560))
    every, some = (
        fit_scale_weights([logits], [mask], FitConfig(steps=200, max_pixels=pixels))
        for pixels in (None, 2**13)
    )
    assert_allclose(some.weights.vector, every.weights.vector, rtol=0, atol=3e-4)


def test_a_thin_mask_is_not_lost_in_blocks():
    logits, _ = readings(size=(300, 300))
    mask = np.zeros((300, 300), bool)
    mask[7, 31] = True
    fit = fit_scale_weights([logits], [mask], FitConfig(steps=2, max_pixels=100))
    assert np.isfinite(fit.loss).all()


def test_losses_of_references_add_up():
    a, b = readings(1), readings(2)
    config = FitConfig(steps=1)
    alone = [fit_scale_weights([x[0]], [x[1]], config).loss[0] for x in (a, b)]
    both = fit_scale_weights([a[0], b[0]], [a[1], b[1]], config)
    assert both.loss[0] == pytest.approx(sum(alone), rel=1e-6)


def test_equal_weights_are_thirds():
    assert_allclose(ScaleWeights().vector, [1 / 3] * 3, rtol=1e-6)
