"""What holds for every picture and all words: batches equal loops, sets shrink, order is free."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from core.car import cam, refinement
from core.car.classifier import to_square
from core.car.config import CarConfig, SamMatching
from core.car.pipeline import segment_phrases, segment_text
from core.car.sam_ensemble import match_masks, snap_masks
from core.car.visual_prompts import VisualPrompter
from core.clip import towers
from core.clip.text import encode_templates, encode_texts
from tests.core.car.conftest import hash_model

NAMES = ["cat", "red ball", "tree house", "boat", "lamp"]
CONFIG = CarConfig(
    confidence_threshold=0.2,
    background_queries=("ground", "sky", "water"),
    templates=("a photo of a {}.", "There is a {} in the scene"),
    presence_threshold=None,
)


def slow_map(model, image, grid, texts, index):
    """One word's gradCAM by a forward and backward of its own through open_clip's own forward."""
    visual = model.visual
    pixels = cam.preprocess(model, image, grid)
    x, _ = towers.embed_patches(visual, pixels)
    blocks = visual.transformer.resblocks
    for block in blocks[:-1]:
        x = block(x)
    target = blocks[-1].ln_1(x).detach().requires_grad_()
    attended = blocks[-1].attn(target, target, target, need_weights=False)[0]
    x = x + attended
    x = x + blocks[-1].mlp(blocks[-1].ln_2(x))
    feature = F.normalize(visual.ln_post(x)[:, 1:].mean(dim=1) @ visual.proj, dim=-1)
    torch.softmax(model.scale * feature @ texts.T, dim=-1)[0, index].backward()
    weights = target.grad[0, 1:].mean(dim=0)
    one = (target.detach()[0, 1:] @ weights).relu()
    one = one - one.min()
    return (one / (1e-15 + one.max())).reshape(grid)


@pytest.mark.parametrize("query_batch", [1, 2, 16])
def test_one_batched_backward_equals_a_loop(any_words, picture, query_batch):
    generator, _ = any_words
    encoded = cam.encode_image(generator, picture)
    assert encoded.grid == (6, 9)
    words, background = (encode_texts(generator, part) for part in (NAMES, ["sky", "wall"]))
    maps = cam.gradcam(encoded, words, background, query_batch=query_batch)
    texts = torch.cat([words, background])
    for index in range(len(NAMES)):
        expected = slow_map(generator, picture, (6, 9), texts, index)
        assert_allclose(maps[index], expected, atol=2e-5)


def test_the_memory_bound_does_not_change_the_maps(any_words, picture, monkeypatch):
    generator, _ = any_words
    encoded = cam.encode_image(generator, picture)
    words = encode_texts(generator, NAMES)
    expected = cam.gradcam(encoded, words, words[:0])
    monkeypatch.setattr(cam, "GRADIENT_BYTES", 1)
    assert cam.affordable_batch(encoded.last.target) == 1
    assert_allclose(cam.gradcam(encoded, words, words[:0]), expected, atol=1e-5)


def test_alone_equals_one_word_at_a_time(any_words, picture):
    generator, _ = any_words
    encoded = cam.encode_image(generator, picture)
    words, background = (encode_texts(generator, part) for part in (NAMES, ["sky", "wall"]))
    together = cam.gradcam(encoded, words, background, alone=True)
    for index in range(len(NAMES)):
        single = cam.gradcam(encoded, words[index : index + 1], background)
        assert_allclose(together[index], single[0], atol=1e-5)


def test_a_dark_map_is_made_again_without_the_background(any_words, picture):
    generator, _ = any_words
    encoded = cam.encode_image(generator, picture)
    words = encode_texts(generator, NAMES)
    # A background word so likely that all other probabilities, and their gradients, are 0.
    certain = replace(encoded, scale=300.0)
    background = encoded.last.feature.detach()[None]
    assert (cam.word_probabilities(certain, words, background) == 0).all()
    expected = cam.gradcam(certain, words, background[:0])
    assert expected.any()
    assert_array_equal(cam.gradcam(certain, words, background), expected)
    # One word against nothing has a constant probability: its map stays empty.
    assert not cam.gradcam(certain, words[:1], background).any()


def test_two_products_equal_the_explicit_matrix(any_words, picture):
    generator, _ = any_words
    affinity = cam.encode_image(generator, picture).affinity
    assert_allclose(affinity, affinity.T, atol=1e-7)
    maps = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(1))
    boxes = (torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    refined = refinement.refine_maps(affinity, maps, boxes)
    squared = affinity @ affinity
    for index in range(3):
        expected = (squared * boxes[index].flatten()) @ maps[index].flatten()
        assert_allclose(refined[index].flatten(), expected, atol=1e-6)


def contour_boxes(one, threshold):
    """The published way: boxes around all contours, holes' too."""
    height, width = one.shape
    levels = (one * 255).astype(np.uint8)
    binary = (levels > int(threshold * levels.max())).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    mask = np.zeros(one.shape, np.float32)
    for x, y, w, h in map(cv2.boundingRect, contours):
        mask[y : min(y + h, height - 1), x : min(x + w, width - 1)] = 1
    return mask


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    threshold=st.floats(0.0, 0.99),
    seed=st.integers(0, 99),
)
def test_box_masks_equal_those_of_contours(height, width, threshold, seed):
    random = np.random.default_rng(seed)
    one = (random.random((height, width)) ** 2).astype(np.float32)
    mask = refinement.box_masks(torch.from_numpy(one)[None], threshold, short_boxes=True)[0]
    assert_array_equal(mask, contour_boxes(one, threshold))
    whole = refinement.box_masks(torch.from_numpy(one)[None], threshold)[0].numpy()
    assert (whole >= mask.numpy()).all()
    if one.max() >= 1 / 255:
        assert whole[np.unravel_index(one.argmax(), one.shape)] == 1


def test_a_threshold_that_nothing_passes_is_lowered():
    one = torch.full((1, 3, 3), 1.0)
    assert not refinement.box_masks(one * 0, 0.4).any()
    assert refinement.box_masks(one, 1.0).all()


@given(height=st.integers(8, 90), width=st.integers(8, 90), seed=st.integers(0, 9))
@hypothesis_settings(max_examples=30)
def test_the_crop_is_clips_own_preprocessing(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    class Sized:
        image_size = 56
        mean = (0.5, 0.5, 0.5)

    chain = transforms.Compose(
        [
            transforms.Resize(56, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(56),
        ]
    )
    expected = np.asarray(chain(Image.fromarray(image)))
    assert_array_equal(to_square(image, Sized(), "centre_crop"), expected)
    for square in ("pad", "stretch"):
        assert to_square(image, Sized(), square).shape == (56, 56, 3)
    padded = to_square(image, Sized(), "pad")
    if height > 2 * width:
        assert (padded[:, :10] == 128).all() and (padded[:, -10:] == 128).all()
    line = np.repeat(image[:1], 40, axis=1)  # far longer than a crop needs
    assert to_square(line, Sized(), "centre_crop").shape == (56, 56, 3)


@given(size=st.tuples(st.integers(1, 900), st.integers(1, 900)), limit=st.integers(2, 400))
def test_grids_stay_within_the_limit_and_keep_their_shape(size, limit):
    height, width = cam.grid_of(size, 16, limit)
    assert height >= 1 and width >= 1 and height * width < max(limit, 2)
    full = cam.grid_of(size, 16, None)
    if full[0] * full[1] < limit:
        assert (height, width) == full
    assert height <= full[0] and width <= full[1]


def test_each_thing_is_computed_once(any_words, picture):
    generator, classifier = any_words
    seen = {"trunk": 0, "last": 0, "marked": 0}
    blocks = generator.visual.transformer.resblocks
    hooks = [
        generator.visual.conv1.register_forward_hook(
            lambda *_: seen.update(trunk=seen["trunk"] + 1)
        ),
        blocks[-1].ln_1.register_forward_hook(lambda *_: seen.update(last=seen["last"] + 1)),
        classifier.visual.conv1.register_forward_hook(
            lambda _, inputs, __: seen.update(marked=seen["marked"] + len(inputs[0]))
        ),
    ]
    try:
        result = segment_text(generator, classifier, picture, NAMES, CONFIG)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(result.steps) > 1
    assert seen["trunk"] == seen["last"] == 1
    assert seen["marked"] == sum(len(step.live) for step in result.steps), "not once a template"
    assert generator.clip.texts == len(NAMES) + 3
    assert classifier.clip.texts == len(NAMES) * 2
    segment_text(generator, classifier, picture, NAMES, CONFIG)
    assert generator.clip.texts == len(NAMES) + 3, "texts are remembered"


@pytest.fixture(scope="module")
def small_case(generator, classifier_model):
    """Generator, classifier and picture that stay the same for all examples of a property."""
    image = np.random.default_rng(8).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    models = hash_model(generator.visual, "generator"), hash_model(classifier_model.visual, "cls")
    return *models, image


@given(order=st.permutations(NAMES), alone=st.booleans())
@hypothesis_settings(max_examples=12)
def test_the_order_of_the_words_does_not_matter(small_case, order, alone):
    generator, classifier, image = small_case
    segment = segment_phrases if alone else segment_text
    config = replace(CONFIG, use_crf=False)
    expected = segment(generator, classifier, image, NAMES, config).segmentation
    found = segment(generator, classifier, image, list(order), config).segmentation
    assert set(found.labels) == set(expected.labels)
    for label, mask in zip(found.labels, found.masks, strict=True):
        differing = mask != expected.masks[expected.labels.index(label)]
        assert differing.mean() < 1e-3
    assert {d.label for d in found.dropped} == {d.label for d in expected.dropped}


@given(threshold=st.floats(0, 1), count=st.integers(1, 8), parity=st.booleans())
@hypothesis_settings(max_examples=25)
def test_live_sets_only_shrink(small_case, threshold, count, parity):
    generator, classifier, image = small_case
    config = replace(CONFIG, confidence_threshold=threshold, use_crf=False)
    if parity:
        config = config.as_published()
    words = [f"word {n}" for n in range(count)]
    result = segment_text(generator, classifier, image, words, config)
    sizes = [len(step.live) for step in result.steps]
    assert sizes[0] == count and len(sizes) <= count + 1
    assert len(sizes) >= 2 or not parity
    for before, after in zip(result.steps, result.steps[1:], strict=False):
        assert after.live == before.kept
    assert result.steps[-1].kept == result.steps[-1].live
    found = result.segmentation
    assert len(found) + len(found.dropped) == count
    assert found.masks.sum(axis=0).max(initial=0) <= 1, "a pixel has one word"


@given(seed=st.integers(0, 50), threshold=st.floats(0, 1), cover=st.floats(0, 1))
@hypothesis_settings(max_examples=25)
def test_snapping_never_invents_pixels(seed, threshold, cover):
    random = np.random.default_rng(seed)
    masks = random.random((3, 6, 7)) > 0.6
    masks[seed % 3] &= seed % 2 == 0
    sam_masks = random.random((random.integers(1, 5), 6, 7)) > 0.5
    config = SamMatching(iom_threshold=threshold, min_cover=cover)
    matches = match_masks(masks, sam_masks, config)
    snapped = snap_masks(masks, sam_masks, config)
    for index, mask in enumerate(masks):
        if not mask.any():
            assert not snapped[index].any() and np.isnan(matches.iom[index]).all()
            continue
        assert matches.matched[index].any()
        either = (snapped[index] == mask).all() or (snapped[index] == matches.unions[index]).all()
        assert either
    assert_array_equal(snap_masks(masks, sam_masks[:0], config), masks)


@given(seed=st.integers(0, 40), kinds=st.sets(st.sampled_from(["blur", "gray", "black"])))
@hypothesis_settings(max_examples=20)
def test_prompts_without_outlines_keep_what_is_marked(seed, kinds):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    mask = random.random((12, 17)) > 0.5
    drawn = VisualPrompter(image, sorted(kinds)).draw(mask)
    assert_array_equal(drawn[mask], image[mask])
    outside = VisualPrompter(image, sorted(kinds)).draw(np.zeros_like(mask))
    assert_array_equal(drawn[~mask], outside[~mask])


def test_templates_are_filled_by_name(any_words):
    generator, _ = any_words
    features = encode_templates(generator, ["{odd} {0}", "a, b"], ["x {}.", "{} y"])
    direct = encode_texts(generator, ["x {odd} {0}.", "x a, b.", "{odd} {0} y", "a, b y"])
    assert_array_equal(features.flatten(0, 1), direct)
