"""Text features: unit length, remembered per model and string, long texts found."""

import copy
import gc

import pytest
import torch
from torch.testing import assert_close

from core.clip import text
from core.clip.model import ClipModel


@pytest.fixture
def model(small_clip) -> ClipModel:
    return ClipModel(copy.deepcopy(small_clip.clip), small_clip.tokenize)


@pytest.fixture
def encoded(model, monkeypatch) -> list[str]:
    """The texts that were really encoded."""
    seen: list[str] = []
    own = text._encode
    monkeypatch.setattr(text, "_encode", lambda m, texts: seen.extend(texts) or own(m, texts))
    return seen


def test_features_are_those_of_open_clip(model):
    words = ["a cat", "人", "🐈", "it's; “odd”", ""]
    features = text.encode_texts(model, words)
    expected = model.clip.encode_text(model.tokenize(words), normalize=True)
    assert_close(features, expected, atol=1e-6, rtol=1e-5)
    assert_close(features.norm(dim=1), torch.ones(5))
    assert text.encode_texts(model, []).shape == (0, 40)


def test_each_string_is_encoded_once_in_each_model(model, small_clip, encoded):
    first = text.encode_texts(model, ["a", "b", "a"])
    assert encoded == ["a", "b"]
    assert_close(first[0], first[2], rtol=0, atol=0)
    again = text.encode_texts(model, ["b", "c"])
    assert encoded == ["a", "b", "c"]
    assert_close(again[0], first[1], rtol=0, atol=0)
    other = ClipModel(copy.deepcopy(small_clip.clip), small_clip.tokenize)
    text.encode_texts(other, ["a"])
    assert encoded == ["a", "b", "c", "a"]
    text.encode_texts(ClipModel(model.clip, model.tokenize), ["a"])
    assert len(encoded) == 4, "it is the weights that count"
    text.forget_texts(model)
    text.encode_texts(model, ["a"])
    assert len(encoded) == 5


def test_the_least_recently_used_text_is_forgotten(model, encoded, monkeypatch):
    monkeypatch.setattr(text, "MAX_TEXTS", 2)
    text.encode_texts(model, ["a", "b"])
    text.encode_texts(model, ["a", "c"])
    encoded.clear()
    text.encode_texts(model, ["a", "c"])
    assert encoded == []
    text.encode_texts(model, ["b"])
    assert encoded == ["b"]
    assert len(text.encode_texts(model, list("uvwxyz"))) == 6, "more than fit"


def test_a_model_that_is_gone_leaves_nothing_behind(small_clip):
    model = ClipModel(copy.deepcopy(small_clip.clip), small_clip.tokenize)
    gc.collect()
    text.encode_texts(model, ["a"])
    before = len(text._features)
    del model
    gc.collect()
    assert len(text._features) == before - 1


def test_many_texts_are_encoded_in_batches(model, monkeypatch):
    monkeypatch.setattr(text, "BATCH", 3)
    words = [f"word {n}" for n in range(8)]
    together = text.encode_texts(model, words)
    text.forget_texts(model)
    alone = torch.cat([text.encode_texts(model, [word]) for word in words])
    assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_templates(model):
    features = text.encode_templates(model, ["cat", "{x}"], ["a {}.", "the {}", "{}"])
    assert features.shape == (3, 2, 40)
    assert_close(features[0, 1], text.encode_texts(model, ["a {x}."])[0])
    averaged = text.average_templates(features)
    assert averaged.shape == (2, 40)
    assert_close(averaged.norm(dim=1), torch.ones(2))
    assert text.encode_templates(model, [], ["{}"]).shape == (1, 0, 40)


def test_texts_that_open_clip_would_cut(model):
    fits = " ".join(["cat"] * 14)  # and two for start and end
    words = ["cat", fits, fits + " cat"]
    assert text.truncated_texts(model, words) == [fits + " cat"]
    assert text.truncated_texts(model, []) == []
    bare = ClipModel(model.clip, lambda texts: model.tokenize(texts))
    assert text.truncated_texts(bare, words) == words[1:], "a full row may have been cut"
