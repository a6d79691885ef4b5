"""Equal to the published way at other sizes and shapes, written out on a copy of the model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from core.benchmark.persam import PublishedPersam
from core.masks import iou
from core.persam.config import FitConfig, PersamConfig
from core.persam.instances import find_instances
from core.persam.pipeline import fit_weights
from core.persam.target import Reference, pool_target


@pytest.fixture(scope="module")
def published(sam) -> PublishedPersam:
    return PublishedPersam(sam)


def pictures(size, seed):
    """A noisy picture with a bright ellipse, and its mask."""
    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    cy, cx = random.uniform(0.35, 0.65, 2) * (height, width)
    mask = ((y - cy) / (0.3 * height)) ** 2 + ((x - cx) / (0.25 * width)) ** 2 < 1
    image = random.integers(0, 120, (height, width, 3))
    image[mask] += random.integers(60, 130, 3)
    return image.astype(np.uint8), mask


@pytest.mark.parametrize(
    ("reference_size", "size", "mask_value"),
    [
        ((256, 256), (256, 256), 255),
        ((90, 240), (300, 100), 255),
        ((400, 301), (77, 200), 128),
        ((64, 64), (120, 640), 215),
    ],
)
def test_masks_of_all_passes(predictor, published, reference_size, size, mask_value):
    reference = Reference(*pictures(reference_size, 1))
    image, _ = pictures(size, 2)
    config = PersamConfig(mask_value=mask_value)
    embedding = predictor.encode(reference.image)
    target, _ = pool_target(predictor, embedding, reference.mask, config)
    _, (found,) = find_instances(predictor, predictor.encode(image), target, None, config)
    expected = published.segment(reference, image, mask_value)
    assert expected[-1].any()
    for stage, mask in zip(found.stages, expected, strict=True):
        assert iou(stage.mask, mask) >= 0.999


@pytest.mark.parametrize("size", [(100, 140), (150, 60)])
def test_fitted_weights(predictor, published, size):
    reference = Reference(*pictures(size, 3))
    config = PersamConfig.persam_f()
    embedding = predictor.encode(reference.image)
    target, _ = pool_target(predictor, embedding, reference.mask, config)
    steps = FitConfig(steps=25)
    fit = fit_weights(predictor, [embedding], [reference], target, config, steps)
    published.predictor.set_image(reference.image)
    expected = published.fit(reference, target.feature(config.pooling), 25)
    assert_allclose(fit.weights.vector, expected, rtol=0, atol=1e-5)
