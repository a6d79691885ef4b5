import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from core.sam.geometry import Geometry
from core.sam.regions import RegionUpscaler

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


@given(sizes)
@settings(deadline=None, max_examples=50)
def test_frames_are_the_package_s(size):
    transform = ResizeLongestSide(256)
    geometry = Geometry.of(size, 256)
    assert geometry.input_size == transform.get_preprocess_shape(*size, 256)
    coords = np.array([[0, 0], [size[1], size[0]], [size[1] / 3, size[0] / 7]])
    np.testing.assert_allclose(
        geometry.to_input(coords), transform.apply_coords(coords, size), rtol=1e-6
    )
    assert geometry.to_input(coords).dtype == np.float32


@pytest.mark.parametrize("size", [(40, 60), (300, 200), (256, 256), (700, 31)])
def test_resizing_is_the_package_s(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = ResizeLongestSide(256).apply_image(image)
    np.testing.assert_array_equal(Geometry.of(size, 256).resize(image), expected)


@pytest.mark.parametrize("size", [(40, 60), (300, 200), (256, 256)])
def test_upscaling_is_the_package_s(golden_sam: Sam, size):
    geometry = Geometry.of(size, 256)
    logits = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = golden_sam.postprocess_masks(logits, geometry.input_size, size)
    assert torch.equal(geometry.upscale(logits), expected)


@given(sizes, st.integers(0, 2**32 - 1), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_a_region_holds_everything_above_its_limit(size, seed, margin):
    """Blobs of all sizes and places: values agree inside, and nothing exceeds the limit outside."""
    geometry = Geometry.of(size, 256)
    upscaler = RegionUpscaler(geometry, 64, torch.device("cpu"))
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:64, :64]
    centre, radius = rng.uniform(0, 64, 2), rng.uniform(0.5, 40)
    low_res = radius - np.hypot(v - centre[0], u - centre[1]) + rng.normal(0, 0.1, (64, 64))
    logits = torch.from_numpy(low_res.astype(np.float32))
    full = geometry.upscale(logits[None, None])[0, 0]

    (region,) = upscaler.regions(logits[None], above=-1.0, margin=margin)
    if region is None:
        assert full.max() <= -1.0
        return
    got = upscaler.upscale(logits, region)
    torch.testing.assert_close(got, full[region.y, region.x], rtol=0, atol=1e-4)
    full[region.y, region.x] = -torch.inf
    assert full.max() <= -1.0 + 1e-4


def test_a_mask_in_the_padding_has_no_region():
    upscaler = RegionUpscaler(Geometry.of((50, 200), 256), 64, torch.device("cpu"))
    logits = torch.full((1, 64, 64), -5.0)
    logits[:, 40:50, 10:20] = 5.0
    assert upscaler.regions(logits, above=0.0) == [None]


@pytest.mark.parametrize("size", [(90, 120), (200, 50)])
def test_a_drawn_mask_survives_the_way_to_logits_and_back(size):
    geometry = Geometry.of(size, 256)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.hypot(y - size[0] / 2, x - size[1] / 2) < min(size) / 3
    logits = geometry.to_low_res(mask, 64)
    assert logits.shape == (1, 64, 64)
    back = (geometry.upscale(logits[None])[0, 0] > 0).numpy()
    assert (back & mask).sum() / (back | mask).sum() > 0.9
