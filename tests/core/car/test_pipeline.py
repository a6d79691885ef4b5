"""Whole runs: odd words, odd pictures, nothing there, missing packages, requests to stop."""

import gc
import json
import sys
import weakref
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from core.car import crf, pipeline, recurrence
from core.car.config import CarConfig, Published, SamMatching
from core.car.pipeline import (
    merged_mask,
    prepare,
    segment_frames,
    segment_phrases,
    segment_text,
    segment_things_and_stuff,
)
from core.car.presets import PRESETS
from core.car.queries import Queries, without_asked
from core.car.referring import clean_phrase, merge_phrases
from core.clip.model import ClipModel
from core.engine import CancelToken
from core.engine.device import lower_precision
from core.errors import Cancelled, ImageError, PromptError
from core.prompts import TextQueries
from tests.core.car.conftest import build_tower, hash_model, table_model, weights_of

NAMES = ["cat", "red ball", "tree house", "boat", "lamp"]
NO_CRF = "pydensecrf is not installed: outlines come from the maps themselves, without a CRF."
CONFIG = CarConfig(
    confidence_threshold=0.2,
    background_queries=("ground", "sky", "water"),
    templates=("a photo of a {}.", "There is a {} in the scene"),
    presence_threshold=None,
)


@pytest.mark.usefixtures("needs_crf")
def test_words_and_dropped_words_are_told_apart(any_words, picture):
    told = []
    result = segment_text(*any_words, picture, NAMES, CONFIG, progress=lambda *a: told.append(a))
    found = result.segmentation
    assert found.size == (90, 132) and found.method == "car"
    assert {*found.labels, *(one.label for one in found.dropped)} == set(NAMES)
    assert all(one.reason.startswith("step ") or "no pixel" in one.reason for one in found.dropped)
    assert found.scores.min() > 0.2 and found.score_kind == "clip_similarity"
    assert found.parameters["post_process"] == "crf"
    assert found.parameters["classifier"] == "classifier" and found.model == "generator"
    assert {"text", "encode", "predict", "post_process", "total"} == set(found.seconds)
    json.dumps(found.parameters)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and len(told) == len(result.steps)
    assert told[0][1] == "Step 1: 5 of 5 words"
    maps = result.maps()
    assert maps.shape == (len(result.steps[-1].kept), 90, 132) and maps.max() <= 1


def test_repeated_words_are_looked_for_once_and_found_at_each_place(any_words, picture):
    once = segment_text(*any_words, picture, NAMES, CONFIG)
    words = ["cat", "Red  ball", "CAT", *NAMES[1:], "ｃａｔ"]
    result = segment_text(*any_words, picture, words, CONFIG)
    assert result.queries.words[:2] == ("cat", "Red ball")
    assert len(result.queries.words) == 5
    masks = result.masks_of_queries()
    assert masks.shape == (8, 90, 132)
    assert_array_equal(masks[0], masks[2])
    assert_array_equal(masks[0], masks[7])
    assert_array_equal(result.scores_of_queries()[[0, 2, 7]], result.scores_of_queries()[0])
    assert "“cat” was given 3 times and is looked for once." in result.segmentation.warnings
    assert once.segmentation.warnings in ((), (NO_CRF,))


def test_the_words_may_come_as_lines_lists_or_prompts():
    assert Queries.parse("person with clothes,people,human\n\n cat ").words == (
        "person with clothes,people,human",
        "cat",
    )
    assert Queries.parse(TextQueries.parse("cat, dog")).words == ("cat", "dog")
    assert Queries.parse(["猫", "🐈", "{}"]).words == ("猫", "🐈", "{}")
    assert without_asked(("Sky", "tree", "sky", "tree"), ["SKY"]) == ("tree",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "There is no query; type at least one word"),
        ("  \n ", "There is no query"),
        (["cat", "  "], "A query is empty"),
        (["cat", 3], "A query is 3; each must be text"),
    ],
)
def test_words_that_cannot_be_looked_for(any_words, picture, words, message):
    with pytest.raises(PromptError, match=message):
        segment_text(*any_words, picture, words, CONFIG)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures(any_words, image):
    with pytest.raises(ImageError, match="give RGB uint8 of shape"):
        segment_text(*any_words, image, NAMES, CONFIG)


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (64, 304), (3, 400), (400, 3), (17, 33)])
@pytest.mark.parametrize("count", [1, 4])
def test_small_long_and_single_coloured_pictures(any_words, size, count, parity):
    """One patch; 4 x 19 patches, whose 77 tokens the published code takes for a text."""
    config = CONFIG.as_published() if parity else CONFIG
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    for image in (noise, np.full((*size, 3), 90, np.uint8)):
        result = segment_text(*any_words, image, NAMES[:count], config)
        found = result.segmentation
        assert found.masks.shape[1:] == size
        assert len(found) + len(found.dropped) == count
        assert result.scores_of_queries().shape == (count,)
        assert np.isfinite(result.maps()).all()


def test_a_single_patch_answers_with_nothing_and_says_why(any_words):
    found = segment_text(*any_words, np.zeros((16, 16, 3), np.uint8), ["cat"], CONFIG).segmentation
    assert len(found) == 0
    (dropped,) = found.dropped
    assert dropped.score is None and "no part of the picture answers" in dropped.reason


@pytest.mark.parametrize("prompts", [("circle",), ("rectangle", "contour", "blur"), ()])
def test_a_threshold_above_every_map_leaves_nothing_to_mark(any_words, picture, prompts):
    config = replace(CONFIG, mask_threshold=1.0, visual_prompts=prompts)
    result = segment_text(*any_words, picture, NAMES, config)
    assert len(result.steps[0].scores.own) == 5


def test_no_maps_at_all(any_words, picture, monkeypatch):
    monkeypatch.setattr(recurrence, "gradcam", lambda e, t, *_, **__: torch.zeros(len(t), *e.grid))
    for segment in (segment_text, segment_phrases):
        result = segment(*any_words, picture, NAMES, CONFIG)
        assert len(result.segmentation) == 0 and len(result.segmentation.dropped) == 5
        assert not result.masks_of_queries().any() and not result.scores_of_queries().any()
        assert not merged_mask(result).any()


def test_maps_that_vanish_later_are_those_of_the_step_before(any_words, picture, monkeypatch):
    own, calls = recurrence.gradcam, []

    def vanishing(encoded, words, *others, **options):
        calls.append(len(words))
        maps = own(encoded, words, *others, **options)
        return maps if len(calls) == 1 else maps * 0

    monkeypatch.setattr(recurrence, "gradcam", vanishing)
    result = segment_text(*any_words, picture, NAMES, CONFIG.as_published())
    first, second = result.steps[:2]
    assert calls[1] < 5
    assert_array_equal(second.maps, first.maps[first.kept_rows])


@pytest.mark.parametrize("segment", [segment_text, segment_phrases])
def test_words_that_end_without_a_pixel(any_words, picture, monkeypatch, segment):
    monkeypatch.setattr(
        pipeline.crf, "label_pixels", lambda image, *_: np.zeros(image.shape[:2], int)
    )
    result = segment(*any_words, picture, NAMES, CONFIG)
    assert len(result.segmentation) == 0 and len(result.segmentation.dropped) == 5
    assert any("no pixel" in one.reason for one in result.segmentation.dropped)
    assert result.masks_of_queries().shape == (5, 90, 132)
    assert result.scores_of_queries().any(), "they stayed; only their masks are empty"


def test_one_phrase_of_several_without_a_pixel_keeps_the_others_in_place(
    any_words, picture, monkeypatch
):
    config = replace(CONFIG, recurrence=False)
    expected = segment_phrases(*any_words, picture, NAMES, config)
    own, calls = crf.label_pixels, []

    def without_the_second(image, maps, config):
        calls.append(1)
        labels = own(image, maps, config)
        return labels * (len(calls) != 2)

    monkeypatch.setattr(pipeline.crf, "label_pixels", without_the_second)
    masks = segment_phrases(*any_words, picture, NAMES, config).masks_of_queries()
    assert not masks[1].any()
    others = [0, 2, 3, 4]
    assert_array_equal(masks[others], expected.masks_of_queries()[others])


def presence_case(classifier_model, generator, words, picture, *, like_background):
    """A classifier for which word 0 is as unlike (or like) the marked picture as can be."""
    classifier = hash_model(classifier_model.visual, "classifier")
    config = replace(CONFIG, presence_threshold=0.2, templates=("{}",), background_queries=("bg",))
    step = segment_text(
        generator, classifier, picture, words, replace(config, presence_threshold=None)
    ).steps[0]
    prompter = pipeline.VisualPrompter(picture, config.visual_prompts)
    marked = [step.mark(0, prompter, config.mask_threshold)]
    feature = recurrence.encode_pictures(classifier, marked, config)[0].numpy()
    sign = -1 if like_background else 1
    table = {"bg": -sign * feature} | {word: sign * feature for word in words}
    return table_model(classifier_model.visual, 20.0, table, "classifier"), config


@pytest.mark.parametrize("words", [["cat"], ["cat", "dog"]])
def test_words_that_are_not_there_can_all_be_dropped(generator, classifier_model, picture, words):
    generator = hash_model(generator.visual, "generator")
    for absent in (True, False):
        classifier, config = presence_case(
            classifier_model, generator, words, picture, like_background=absent
        )
        result = segment_text(generator, classifier, picture, words, config)
        if absent:
            assert len(result.segmentation) == 0 and not result.masks_of_queries().any()
            assert len(result.segmentation.dropped) == len(words)
            assert "not in this picture" in result.segmentation.dropped[0].reason
        else:
            assert 0 in result.steps[0].kept
        # The published rule keeps the best word, and a single one always has score 1.
        published = replace(config, presence_threshold=None)
        assert len(segment_text(generator, classifier, picture, words, published).steps[-1].kept)


def test_a_word_of_the_background_list_competes_with_itself_only_in_parity(any_words, picture):
    generator, classifier = any_words
    words = ["sky", "cat"]
    texts = recurrence.encode_words(generator, classifier, words, CONFIG)
    assert len(texts.background) == 2
    config = replace(CONFIG, published=Published(shared_background=True))
    assert len(recurrence.encode_words(generator, classifier, words, config).background) == 3
    config = replace(CONFIG, background_queries=("sky",), presence_threshold=0.2)
    found = segment_text(generator, classifier, picture, words, config)
    assert found.steps[0].scores.presence is None, "nothing is left to compare with"


def test_a_result_does_not_keep_the_graph_alive(any_words, picture):
    generator, _ = any_words
    prepared = prepare(generator, picture, CONFIG)
    leaf = weakref.ref(prepared.encoded.last.mixed)
    result = segment_text(*any_words, prepared, NAMES, CONFIG)
    del prepared
    gc.collect()
    assert leaf() is None and result.image.shape == picture.shape


def test_without_pydensecrf_the_maps_decide_and_the_result_says_so(any_words, picture, monkeypatch):
    expected = segment_text(*any_words, picture, NAMES, replace(CONFIG, use_crf=False))
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    result = segment_text(*any_words, picture, NAMES, CONFIG)
    assert result.post_process == "argmax"
    assert result.segmentation.warnings == (NO_CRF,)
    assert_array_equal(result.segmentation.masks, expected.segmentation.masks)
    assert expected.segmentation.warnings == ()


def test_large_pictures_are_worked_on_in_a_stated_size(any_words):
    image = np.random.default_rng(2).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    config = replace(CONFIG, max_side=200, max_tokens=40)
    result = segment_text(*any_words, image, NAMES, config)
    assert result.segmentation.masks.shape[1:] == (300, 500)
    assert result.maps().shape[1:] == (120, 200)
    assert result.image.shape == (120, 200, 3)
    assert result.steps[0].cams.shape[1:] == (4, 8), "39 patches at most"
    assert result.segmentation.warnings[0] == (
        "The picture of 500×300 px is worked on at 200×120 px."
    )
    assert result.segmentation.warnings[1].startswith("Maps are made at ")
    published = CarConfig.parity()
    assert published.max_side is None and published.max_tokens is None


def test_every_word_stays_without_the_recurrence(any_words, picture):
    config = replace(CONFIG, recurrence=False, confidence_threshold=1.0, use_crf=False)
    result = segment_text(*any_words, picture, NAMES, config)
    (step,) = result.steps
    assert step.kept == (0, 1, 2, 3, 4) and step.scores is not None
    plain = segment_text(*any_words, picture, NAMES, replace(config, refine=False))
    assert_array_equal(plain.steps[0].maps, plain.steps[0].cams)


def test_sam_masks_snap_the_result(any_words, picture):
    config = replace(CONFIG, sam=SamMatching(iou_threshold=0.0, iom_threshold=0.3))
    before = segment_text(*any_words, picture, NAMES, config).segmentation
    assert len(before)
    halves = np.zeros((2, 90, 132), bool)
    halves[0, :, :66] = halves[1, :, 66:] = True
    after = segment_text(*any_words, picture, NAMES, config, sam_masks=halves).segmentation
    assert after.parameters["sam"]["iom_threshold"] == 0.3
    assert before.parameters["sam"] is None
    assert after.masks.shape == before.masks.shape
    for mask in after.masks:
        assert mask[:, :66].all() or not mask[:, :66].any()


def test_frames_share_words_and_ids(any_words, picture):
    generator, classifier = any_words
    frames = [picture, picture[:, ::-1].copy(), picture]
    results = list(segment_frames(generator, classifier, frames, NAMES, CONFIG))
    assert generator.clip.texts == len(NAMES) + 3
    assert len(results) == 3
    for result in results:
        for label, number in zip(
            result.segmentation.labels, result.segmentation.numbers, strict=True
        ):
            assert NAMES[number - 1] == label
    assert_array_equal(results[0].segmentation.masks, results[2].segmentation.masks)
    (one,) = segment_frames(
        generator, classifier, [picture], ["a cat"], CONFIG, segment=segment_phrases
    )
    assert one.segmentation.method == "car_refer"
    token = CancelToken()
    running = segment_frames(generator, classifier, frames, NAMES, CONFIG, cancel=token)
    next(running)
    token.cancel()
    with pytest.raises(Cancelled, match="after 1 frames"):
        next(running)


def test_things_win_over_stuff_and_are_its_background(any_words, picture):
    generator, classifier = any_words
    things, stuff = ["cat", "boat"], ["sky", "grass"]
    config = replace(CONFIG, recurrence=False)
    encodings = []
    hook = generator.visual.conv1.register_forward_hook(lambda *_: encodings.append(1))
    both = segment_things_and_stuff(generator, classifier, picture, things, stuff, config)
    hook.remove()
    assert len(encodings) == 1
    assert both.stuff.config.background_queries == ("cat", "boat")
    assert both.stuff.config.visual_prompts == ("blur", "gray")
    assert set(both.segmentation.labels) <= {*things, *stuff}
    assert both.segmentation.masks.sum(axis=0).max() <= 1
    taken = both.things.segmentation.masks.any(axis=0)
    for label, mask in zip(both.segmentation.labels, both.segmentation.masks, strict=True):
        if label in stuff:
            assert not (mask & taken).any()
    json.dumps(both.segmentation.parameters)


def test_a_picture_prepared_once_serves_many_requests(any_words, picture):
    generator, classifier = any_words
    prepared = prepare(generator, picture, CONFIG)
    first = segment_text(generator, classifier, prepared, NAMES, CONFIG)
    again = segment_text(generator, classifier, prepared, NAMES, CONFIG)
    direct = segment_text(generator, classifier, picture, NAMES, CONFIG)
    assert_array_equal(first.segmentation.masks, again.segmentation.masks)
    assert_array_equal(first.segmentation.masks, direct.segmentation.masks)


def test_stopping(any_words, picture):
    token = CancelToken()
    with pytest.raises(Cancelled):
        segment_text(
            *any_words,
            picture,
            NAMES,
            CONFIG,
            cancel=token,
            progress=lambda *_: token.cancel(),
        )
    with pytest.raises(Cancelled):
        segment_text(*any_words, picture, NAMES, CONFIG, cancel=token)


def test_words_longer_than_the_model_reads(generator, classifier_model, picture):
    class Tokenizer:
        def encode(self, text):
            return text.split()

        def __call__(self, texts):
            return torch.ones(len(texts), 12, dtype=torch.int64)

    models = [
        ClipModel(hash_model(tower.visual, "").clip, Tokenizer(), id=name)
        for name, tower in (("generator", generator), ("classifier", classifier_model))
    ]
    long = "a very long phrase indeed that nobody reads"
    config = replace(CONFIG, use_crf=False)
    found = segment_text(*models, picture, ["cat", long], config).segmentation
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("“a very long phrase inde…” is longer than the model reads")


def test_half_precision_weights_with_a_float32_gradient(
    generator, classifier_model, picture, golden_json, golden
):
    towers = [
        build_tower(golden_json[name], weights_of(golden, f"{prefix}."))
        for name, prefix in (("generator", "gen"), ("classifier", "cls"))
    ]
    for tower in towers:
        lower_precision(tower, torch.bfloat16, torch.device("cpu"))
    low = [hash_model(tower, "low") for tower in towers]
    full = [hash_model(model.visual, "full") for model in (generator, classifier_model)]
    config = replace(CONFIG, recurrence=False)
    steps = [segment_text(*models, picture, NAMES, config).steps[0] for models in (low, full)]
    assert np.abs(steps[0].cams - steps[1].cams).max() < 0.1
    assert np.abs(steps[0].scores.similarity - steps[1].scores.similarity).max() < 0.1
    last = prepare(low[0], picture, config).encoded.last
    assert last.target.dtype == last.feature.dtype == torch.float32


def test_phrases():
    assert clean_phrase('The "red" ball/left ') == "the red ballleft"
    masks = np.zeros((3, 10, 10), bool)
    masks[0, :5] = masks[1, :6] = True
    masks[2, 9, 9] = True
    scores = np.array([0.5, 0.4, 0.1], np.float32)
    merged = merge_phrases(masks, scores)
    assert merged[:5].all() and not merged[6:].any()
    tiny = masks & (np.indices((10, 10)).sum(axis=0) == 0)
    tiny[2, 9, 9] = True
    assert merge_phrases(tiny, scores).sum() == 2, "too little: all masks together"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_threshold": 1.5}, "mask_threshold is 1.5; it must be 0 to 1"),
        ({"presence_threshold": -0.1}, "presence_threshold is -0.1"),
        ({"background_exponent": 0.0}, "background_exponent is 0.0; it must be > 0"),
        ({"visual_prompts": ("crop",)}, "visual_prompts has crop; known are blur"),
        ({"square": "fold"}, "square is 'fold'"),
        ({"templates": ("a photo",)}, "the template 'a photo' has no {} for the word"),
        ({"cam_template": "x"}, "the template 'x' has no"),
        ({"query_batch": 0}, "query_batch is 0; it must be at least 1"),
        ({"max_tokens": 1}, "max_tokens is 1; it must be at least 2"),
        ({"sam": {"iom_threshold": 2}}, "iom_threshold is 2; it must be 0 to 1"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        if "sam" in changes:
            SamMatching(**changes["sam"])
        CarConfig(**changes)


def test_parity_keeps_every_deviation():
    config = CarConfig.parity(confidence_threshold=0.3)
    assert config.confidence_threshold == 0.3
    assert all(asdict(config.published).values()) and not any(asdict(Published()).values())
    assert config.skip_last_block and config.square == "centre_crop"
    assert config.presence_threshold is None


def test_presets_are_those_of_the_published_configs():
    assert len(CarConfig().templates) == 15 and len(CarConfig().background_queries) == 23
    assert {name: len(one.classes) for name, one in PRESETS.items() if one.classes} == {
        "voc": 20,
        "coco": 80,
        "pascal_context": 59,
        "ade_150": 150,
    }
    voc, context = PRESETS["voc"], PRESETS["pascal_context"]
    assert "person with clothes,people,human" in voc.classes
    assert (voc.config.mask_threshold, voc.config.confidence_threshold) == (0.4, 0.6)
    assert len(context.things) == 38 and len(context.stuff) == 21
    assert len(PRESETS["ade_150"].stuff) == 25
    for preset in PRESETS.values():
        assert len(set(preset.classes)) == len(preset.classes)
        assert set(preset.stuff) <= set(preset.classes)
        assert len(Queries.parse(preset.classes or ["x"]).words) == len(preset.classes or "x")
    for name in ("refcoco", "refcoco+", "refcocog", "gres"):
        assert PRESETS[name].config.templates == ()


def test_published_weights_skip_the_last_block_by_default(any_words, picture):
    generator, classifier = any_words
    published = ClipModel(classifier.clip, classifier.tokenize, model_set="full")
    seen = []
    last = classifier.visual.transformer.resblocks[-1]
    hook = last.register_forward_hook(lambda *_: seen.append(1))
    try:
        segment_text(generator, published, picture, ["cat"], CONFIG)
        assert not seen
        segment_text(generator, classifier, picture, ["cat"], CONFIG)
        assert seen
    finally:
        hook.remove()
