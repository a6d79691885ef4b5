"""Text queries on the engine's models: the embedded CLIP and SAM, on a scene of stickers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.car import serving
from core.car.choices import (
    CLIPS,
    DEFAULT_PRESETS,
    change,
    config_of,
    preset_titles,
    unknown_words,
    word_lists,
)
from core.car.config import CarConfig, SamMatching
from core.car.pipeline import segment_phrases, segment_text
from core.car.presets import PRESETS
from core.car.serving import find_words, resize_masks
from core.clip.build import with_tokenizer
from core.engine import CancelToken, get_engine
from core.errors import Cancelled, NothingFound, PromptError
from core.images import load
from core.sam.pipeline import segment_all
from core.stickers.objects import find_object

SCENE = Path(__file__).parents[3] / "assets" / "examples" / "text" / "farm.jpg"
WORDS = ("cow", "pig", "tractor")
# Every word stays, whatever the weights make of it.
KEEP = replace(CarConfig.embedded(), confidence_threshold=0.0, presence_threshold=None)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return load(SCENE).image[::2, ::2].copy()  # 256 x 256


def ask_directly(image, config, segment=segment_text, **options):
    engine = get_engine()
    with engine.model("clip_embedded") as clip:
        model = with_tokenizer(engine.entry("clip_embedded"), clip)
        return segment(model, model, image, WORDS, config, **options)


def same(a, b) -> None:
    assert a.labels == b.labels and a.numbers == b.numbers
    np.testing.assert_array_equal(a.masks, b.masks)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5)


@pytest.mark.parametrize(("phrases", "segment"), [(False, segment_text), (True, segment_phrases)])
def test_the_engines_models_answer_as_the_method_itself(image, phrases, segment):
    answer = find_words(get_engine(), "embedded", image, WORDS, KEEP, phrases=phrases)
    same(answer.result.segmentation, ask_directly(image, KEEP, segment).segmentation)
    assert answer.result.segmentation.model == "clip_embedded" and answer.before_sam is None
    assert serving.is_phrases(answer.result) == phrases


@pytest.mark.parametrize("phrases", [False, True])
def test_what_there_was_without_the_crf(image, needs_crf, phrases):
    answer = find_words(get_engine(), "embedded", image, WORDS, KEEP, phrases=phrases)
    plain = replace(KEEP, use_crf=False)
    other = find_words(get_engine(), "embedded", image, WORDS, plain, phrases=phrases)
    assert other.without_crf is None
    assert answer.without_crf is not None and len(answer.without_crf) == 3
    for number, mask in zip(
        other.result.segmentation.numbers, other.result.segmentation.masks, strict=True
    ):
        np.testing.assert_array_equal(answer.without_crf[number - 1], mask)


def test_masks_are_snapped_to_sams(image):
    engine = get_engine()
    config = replace(KEEP, sam=SamMatching(iom_threshold=0.4, iou_threshold=0.05))
    everything = segment_all(engine, "sam_embedded", image)
    direct = ask_directly(image, config, sam_masks=everything.masks)
    answer = find_words(engine, "embedded", image, WORDS, config, sam="sam_embedded")
    same(answer.result.segmentation, direct.segmentation)
    same(answer.before_sam, ask_directly(image, config).segmentation)
    found = answer.result.segmentation
    assert found.parameters["sam_model"] == "sam_embedded"
    assert found.parameters["sam"]["iom_threshold"] == 0.4
    assert found.seconds["total"] > found.seconds["sam"] + found.seconds["predict"]


def test_large_pictures_are_matched_small_and_keep_their_size(image, monkeypatch):
    seen = []

    def spy(engine, model, worked, **options):
        seen.append(worked.shape[:2])
        return segment_all(engine, model, worked, **options)

    monkeypatch.setattr(serving, "SAM_SIDE", 128)
    monkeypatch.setattr(serving, "segment_all", spy)
    config = replace(KEEP, sam=SamMatching(iom_threshold=0.4, always_replace=True))
    answer = find_words(get_engine(), "embedded", image, WORDS, config, sam="sam_embedded")
    assert seen == [(128, 128)]
    assert answer.result.segmentation.masks.shape[1:] == image.shape[:2]


def test_sam_without_a_mask_replaces_none_and_says_so(image, monkeypatch):
    def nothing(*args, **options):
        raise NothingFound("nothing")

    monkeypatch.setattr(serving, "segment_all", nothing)
    answer = find_words(get_engine(), "embedded", image, WORDS, KEEP, sam="sam_embedded")
    np.testing.assert_array_equal(answer.result.segmentation.masks, answer.before_sam.masks)
    assert "SAM found no mask" in answer.result.segmentation.warnings[-1]


def test_no_word_in_the_picture_is_an_answer_and_sam_is_not_asked(image, monkeypatch):
    monkeypatch.setattr(serving, "segment_all", None)
    config = replace(KEEP, presence_threshold=1.0)
    answer = find_words(get_engine(), "embedded", image, WORDS, config, sam="sam_embedded")
    found = answer.result.segmentation
    assert len(found) == 0 and found.masks.shape == (0, *image.shape[:2])
    assert [one.label for one in found.dropped] == list(WORDS)
    assert answer.before_sam is None


def test_words_that_the_embedded_clip_never_learned_are_named(image):
    words = ["cow", "carburettor", "소"]
    found = find_words(get_engine(), "embedded", image, words, KEEP).result.segmentation
    assert "never learned “carburettor”, “소”" in found.warnings[-1]


def test_a_cancelled_search_stops(image):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        find_words(get_engine(), "embedded", image, WORDS, KEEP, cancel=token)


def test_presets_at_the_size_of_their_models():
    for model_set, preset in DEFAULT_PRESETS.items():
        assert preset in preset_titles(model_set)
        assert set(preset_titles(model_set)) >= PRESETS.keys()
        for name in preset_titles(model_set):
            own = CarConfig.embedded() if model_set == "embedded" else CarConfig()
            config = config_of(name, model_set)
            assert (config.max_side, config.square_side) == (own.max_side, own.square_side)
    coco = config_of("coco", "embedded")
    assert coco.mask_threshold == PRESETS["coco"].config.mask_threshold
    assert config_of("context", "full") == config_of("pascal_context", "full")
    with pytest.raises(PromptError, match="no preset 'imagenet'; use one of embedded, voc"):
        config_of("imagenet", "full")
    assert config_of("embedded", "embedded") == CarConfig.embedded()


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_setting_out_of_range_gets_a_sentence(value):
    with pytest.raises(PromptError, match="The setting mask_threshold is"):
        change(CarConfig(), mask_threshold=value)


def test_ready_lists_hold_what_their_clip_knows():
    for name, words in word_lists("embedded").items():
        assert unknown_words(words.words) == (), name
        assert len(set(words.words)) == len(words.words) >= 10
    assert len(word_lists("embedded")["mixed"].words) == 20
    full = word_lists("full")
    assert [len(full[name].words) for name in ("voc", "coco")] == [20, 80]
    assert CLIPS.keys() == DEFAULT_PRESETS.keys()


def test_names_kinds_and_colours_are_known_and_test_objects_are_not():
    assert unknown_words(["Dog", "the red fruit", "a blue car", "hot dog", "puppy"]) == ()
    held_out = "lemon"
    assert find_object(held_out).split == "test"
    assert unknown_words([held_out, "red", "", "dog house"]) == (held_out, "red", "", "dog house")


def test_masks_of_another_size():
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :2, :3] = True
    resized = resize_masks(masks, (8, 12))
    assert resized.shape == (2, 8, 12) and resized[0, :4, :6].all() and resized.sum() == 24
    assert resize_masks(masks[:0], (8, 12)).shape == (0, 8, 12)
