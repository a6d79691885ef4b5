"""Settings, presets and the subject's words: what they say, and what they refuse."""

import json
from dataclasses import replace

import pytest

from core.dreambooth.config import PRESETS, DreamBoothConfig, Subject, check_prompt
from core.errors import PromptError


def test_defaults_are_the_reference_lora():
    config = DreamBoothConfig()
    assert (config.method, config.rank, config.lora_alpha) == ("lora", 8, 8)
    assert (config.learning_rate, config.steps, config.batch_size) == (1e-4, 500, 1)
    assert (config.prior, config.prior_weight, config.prior_pictures) == (True, 1.0, 100)
    assert (config.mask_loss, config.min_area, config.background_weight) == ("area", 0.02, 0.0)


@pytest.mark.parametrize("model_set", ["embedded", "full"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name, model_set):
    config = DreamBoothConfig.preset(name, model_set, seed=7)
    assert config.seed == 7
    assert DreamBoothConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_paper_s_preset_is_full_fine_tuning_at_its_rate():
    config = DreamBoothConfig.preset("paper")
    assert (config.method, config.learning_rate, config.steps) == ("full", 5e-6, 1000)
    assert config.prior_pictures == 1000


def test_the_digest_follows_what_weights_depend_on():
    config = DreamBoothConfig()
    assert replace(config, checkpoint_steps=7, sample_steps=None).digest == config.digest
    assert replace(config, background_weight=0.1).digest != config.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank is 0: it must be at least 1 and at most 256"),
        ({"learning_rate": 2.0}, "learning_rate is 2: it must be at least 1e-08 and at most 1"),
        ({"prior_weight": -1}, "prior_weight is -1: it must be at least 0"),
        ({"steps": float("nan")}, "steps is nan: give a number"),
        ({"steps": "many"}, "steps is 'many': give a number"),
        ({"steps": 2.5}, "steps is 2.5: give a whole number"),
        ({"method": "half"}, "method is 'half': choose lora, full"),
        ({"mask_loss": "soft"}, "choose area, plain, none"),
        ({"unet_targets": ()}, "no layer to adapt"),
        ({"train_text_encoder": True, "text_targets": ()}, "no layer to adapt"),
        ({"sample_prompts": (" ",)}, "prompt is empty"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(PromptError, match=message):
        DreamBoothConfig(**changes)


def test_optional_settings_may_be_missing():
    config = DreamBoothConfig(alpha=None, resolution=None, snr_gamma=None, sample_steps=None)
    assert config.lora_alpha == config.rank
    assert DreamBoothConfig(alpha=4.0).lora_alpha == 4


def test_unknown_names_are_refused():
    with pytest.raises(PromptError, match="no setting colour"):
        DreamBoothConfig.from_dict({"colour": 1})
    with pytest.raises(PromptError, match="no preset 'best'"):
        DreamBoothConfig.preset("best")


def test_the_subject_s_prompts():
    subject = Subject(" sks ", "alarm  clock")
    assert subject.instance_prompt == "a photo of a sks alarm clock"
    assert subject.class_prompt == "a photo of an alarm clock"
    assert subject.fill("{} on grass") == "a sks alarm clock on grass"
    assert subject.fill("grass") == "grass"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("", "dog"), "rare word of its own"),
        (("sks", "  "), "what kind of thing"),
        (("my dog", "dog"), "several words"),
        (("s{k}s", "dog"), "without braces"),
        (("x" * 41, "dog"), "at most 40"),
        (("sks", "dog", "a photo"), "needs one {}"),
    ],
)
def test_words_that_are_no_subject(words, message):
    with pytest.raises(PromptError, match=message):
        Subject(*words)


def test_prompts_have_limits():
    assert check_prompt("  a dog ") == "a dog"
    with pytest.raises(PromptError, match="401 letters; the limit is 400"):
        check_prompt("x" * 401)
