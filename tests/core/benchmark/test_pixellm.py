"""PixelLM's benchmark on a network small enough for a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.benchmark import pixellm
from core.benchmark.harness import OutputsDiffer
from core.pixellm.config import PixelLMConfig
from core.pixellm.pipeline import encode
from tests.core.pixellm.conftest import small_config, small_model


@pytest.fixture
def image():
    """Half of the square input is padding."""
    return np.random.default_rng(4).integers(0, 256, (30, 64, 3), dtype=np.uint8)


@pytest.fixture
def small(one_warm_up, monkeypatch):
    monkeypatch.setattr(pixellm, "NEW_TOKENS", 8)
    monkeypatch.setattr(pixellm, "PROMPT_TOKENS", 12)
    monkeypatch.setattr(pixellm, "LAYOUT_7B", small_config())
    monkeypatch.setattr(pixellm, "embedded_chat", lambda device: (small_model(), "random"))
    monkeypatch.setattr(pixellm, "QUESTION", "what is in this image ?")


def test_both_ways_write_the_same(small, image):
    network = small_model().network
    prompt = pixellm.prompt_of(network.config)
    ours = pixellm.write_cached(network, image, prompt)
    for recode in (True, False):
        published = pixellm.write_published(network, image, prompt, recode=recode)
        assert pixellm.check_written(ours, published).startswith("8 equal tokens; states: max")
    assert ours.states.shape == (8, 16) and ours.mask.shape == (16, 16)
    other = replace(ours, tokens=[*ours.tokens[:-1], -1])
    with pytest.raises(OutputsDiffer, match="token 8 of 8 differs"):
        pixellm.check_written(ours, other)
    with pytest.raises(OutputsDiffer, match="masks differ"):
        pixellm.check_written(ours, replace(ours, mask=ours.mask + 1))


def test_the_published_way_reads_the_picture_for_each_token(small, image, monkeypatch):
    network, passes = small_model().network, []
    tower = network.vision_tower.forward
    monkeypatch.setattr(
        network.vision_tower, "forward", lambda *a: passes.append(1) or tower(*a), raising=False
    )
    prompt = pixellm.prompt_of(network.config)
    for recode, expected in ((True, 8), (False, 1)):
        passes.clear()
        pixellm.write_published(network, image, prompt, recode=recode)
        assert len(passes) == expected
    passes.clear()
    pixellm.write_cached(network, image, prompt)
    assert len(passes) == 1


def test_all_figures_and_rows(small):
    report = pixellm.run(limit=1)
    assert report.figures.keys() == {
        "generation_speedup",
        "cache_speedup",
        "embedded_generation_speedup",
        "first_token_s",
        "answer_s",
        "answer_tokens",
    }
    assert [row["pairs"] for row in report.details["rows"]] == [1] * 3
    assert "8 equal tokens" in report.details["rows"][0]["check"]
    assert report.details["met"].keys() == pixellm.BARS.keys()
    assert 0 < report.figures["first_token_s"] <= report.figures["answer_s"]
    assert "random" in report.models[0]


def test_the_layout_has_the_published_proportions():
    ours, published = pixellm.LAYOUT_7B, PixelLMConfig.published_7b()
    assert ours.image_tokens == published.image_tokens == 256
    assert ours.vision.image_size == published.vision.image_size
    for name in ("hidden_size", "intermediate_size"):
        assert getattr(published.language, name) == 8 * getattr(ours.language, name)
        assert getattr(published.vision, name) == 8 * getattr(ours.vision, name)
    assert published.language.num_layers == 4 * ours.language.num_layers
    assert published.vision.num_layers == 4 * ours.vision.num_layers
    assert published.language.num_heads == 8 * ours.language.num_heads


def test_shipped_weights_are_taken_if_they_are_there(monkeypatch, tmp_path):
    network = small_model().network
    monkeypatch.setattr(pixellm, "find_local", lambda entry: tmp_path)
    monkeypatch.setattr(pixellm, "read_state_dict", lambda path: {})
    monkeypatch.setattr(pixellm, "build_from_entry", lambda entry, weights: network)
    monkeypatch.setattr(pixellm, "with_tokenizer", lambda entry, network: network)
    model, weights = pixellm.embedded_chat(torch.device("cpu"))
    assert weights == "shipped weights" and model is network
    monkeypatch.setattr(pixellm, "find_local", lambda entry: None)
    model, weights = pixellm.embedded_chat(torch.device("cpu"))
    assert weights.startswith("random")
    picture = np.zeros((8, 8, 3), np.uint8)
    assert len(encode(model, picture).image_tokens) == model.config.image_tokens
