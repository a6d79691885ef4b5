"""What is trained, what stays as it was, and files that plain diffusers reads."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from core.dreambooth.card import read_subject
from core.dreambooth.lora import (
    LORA_FILE,
    attach,
    build_denoiser,
    load_weights_into,
    save_weights,
)
from core.dreambooth.model import private_copy
from core.dreambooth.sampling import draw
from core.errors import PromptError
from tests.core.dreambooth.conftest import FAST, SIDE, build_tiny, make_training

BOTH = replace(FAST, train_text_encoder=True)
FULL = replace(FAST, method="full", train_text_encoder=True, learning_rate=1e-3)


def inputs(model):
    random = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, SIDE // 4, SIDE // 4, generator=random)
    return noisy, torch.tensor([3, 400]), model.tokenize(["a sks clock", "a clock"])


def disturb(denoiser):
    """Make the trained weights others than they were."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in denoiser.trained():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return denoiser


def state_of(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_a_fresh_lora_changes_nothing(model):
    noisy, timesteps, tokens = inputs(model)
    condition = model.text_encoder(tokens)[0]
    expected = model.unet(noisy, timesteps, condition).sample
    denoiser = build_denoiser(model, BOTH, torch.float32).eval()
    assert_close(denoiser(noisy, timesteps, tokens), expected)


def test_only_adapters_are_trained_and_frozen_weights_are_shared(model):
    denoiser = build_denoiser(model, BOTH, torch.float32)
    names = [name for name, _ in denoiser.trained()]
    assert names and all("lora_" in name for name in names)
    assert any(name.startswith("text_encoder.") for name in names)
    own = {p.data_ptr() for p in model.parameters()}
    frozen = [p for p in denoiser.parameters() if not p.requires_grad]
    assert all(p.data_ptr() in own for p in frozen)
    without = build_denoiser(model, FAST, torch.float32)
    assert without.text_encoder is None


def test_full_fine_tuning_trains_copies(model):
    denoiser = build_denoiser(model, FULL, torch.bfloat16)
    own = {p.data_ptr() for p in model.parameters()}
    for _, parameter in denoiser.trained():
        assert parameter.dtype == torch.float32
        assert parameter.data_ptr() not in own
    assert len(list(denoiser.trained())) == len(list(denoiser.parameters()))


def test_trained_weights_are_float32_beside_half_precision(model):
    denoiser = build_denoiser(model, FAST, torch.bfloat16)
    assert {p.dtype for _, p in denoiser.trained()} == {torch.float32}
    frozen = {p.dtype for p in denoiser.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    assert next(model.unet.parameters()).dtype == torch.float32


def test_the_model_stays_as_it_is(tokenizer):
    model = build_tiny(tokenizer)
    before, layers = state_of(model), copy.deepcopy([n for n, _ in model.named_modules()])
    disturb(build_denoiser(model, FULL, torch.float32))
    disturb(build_denoiser(model, BOTH, torch.float32))
    assert [n for n, _ in model.named_modules()] == layers
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_lora_begins_with_the_seeds_own_weights(model):
    first, second, other = (
        dict(build_denoiser(model, replace(FAST, seed=seed), torch.float32).trained())
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("config", [BOTH, FULL], ids=["lora", "full"])
def test_weights_are_read_back_bit_by_bit(model, config, tmp_path):
    denoiser = disturb(build_denoiser(model, config, torch.float32))
    save_weights(denoiser, tmp_path, config.method)
    again = build_denoiser(model, config, torch.float32)
    load_weights_into(again, tmp_path, config.method)
    loaded = dict(again.trained())
    for name, parameter in denoiser.trained():
        assert torch.equal(parameter, loaded[name]), name


@pytest.mark.parametrize(
    "config", [BOTH, replace(BOTH, alpha=0.5), FULL], ids=["lora", "alpha", "full"]
)
def test_the_pipeline_predicts_what_training_predicted(model, config, tmp_path):
    denoiser = disturb(build_denoiser(model, config, torch.float32)).eval()
    save_weights(denoiser, tmp_path, config.method)
    pipeline = attach(model, tmp_path, config.method, torch.float32)
    noisy, timesteps, tokens = inputs(model)
    with torch.no_grad():
        condition = pipeline.text_encoder(tokens)[0]
        drawn = pipeline.unet(noisy, timesteps, condition).sample
        assert_close(drawn, denoiser(noisy, timesteps, tokens), atol=1e-5, rtol=1e-4)
        plain = model.unet(noisy, timesteps, model.text_encoder(tokens)[0]).sample
    assert (drawn - plain).abs().max() > 1e-3


def test_plain_diffusers_loads_the_file_and_draws_otherwise(tokenizer, trained):
    """A fresh pipeline that knows nothing of this project."""
    fresh = build_tiny(tokenizer).pipeline()
    values = {"side": SIDE, "steps": 2, "guidance": 2.0}
    (before,) = draw(fresh, ["a sks clock"], [1], **values)
    fresh.load_lora_weights(trained / "subject", weight_name=LORA_FILE)
    (after,) = draw(fresh, ["a sks clock"], [1], **values)
    assert (before != after).any()
    fresh.unload_lora_weights()
    (without,) = draw(fresh, ["a sks clock"], [1], **values)
    np.testing.assert_array_equal(without, before)


def test_the_file_is_small_and_in_diffusers_format(trained):
    weights = load_file(trained / "subject" / LORA_FILE)
    assert all(key.startswith("unet.") and "lora" in key for key in weights)
    assert (trained / "subject" / LORA_FILE).stat().st_size < 20_000


def test_damaged_weights_are_refused(model, trained, tmp_path):
    denoiser = build_denoiser(model, FAST, torch.float32)
    (tmp_path / LORA_FILE).write_bytes(b"nothing")
    with pytest.raises(PromptError, match="damaged or of another model"):
        load_weights_into(denoiser, tmp_path, "lora")
    with pytest.raises(PromptError, match="missing, damaged, or of another model"):
        attach(model, tmp_path, "lora", torch.float32)
    with pytest.raises(PromptError, match="missing, damaged, or of another model"):
        attach(model, tmp_path / "nowhere", "lora", torch.float32)
    with pytest.raises(PromptError, match="missing, damaged, or of another model"):
        attach(model, tmp_path / "nowhere", "full", torch.float32)
    weights = load_file(trained / "subject" / LORA_FILE)
    save_file(dict(list(weights.items())[2:]), tmp_path / LORA_FILE)
    with pytest.raises(PromptError, match="damaged or of another model"):
        load_weights_into(denoiser, tmp_path, "lora")


def test_targets_that_are_no_layers_are_named(model):
    with pytest.raises(PromptError, match="None of the layers to_x is in the model's unet"):
        build_denoiser(model, replace(FAST, unet_targets=("to_x",)), torch.float32)


def test_a_private_copy_shares_or_copies(model):
    shared = private_copy(model.unet)
    own = private_copy(model.unet, share=False)
    half = private_copy(model.unet, dtype=torch.bfloat16)
    for name, parameter in model.unet.named_parameters():
        assert shared.get_parameter(name).data_ptr() == parameter.data_ptr()
        assert own.get_parameter(name).data_ptr() != parameter.data_ptr()
        assert half.get_parameter(name).dtype == torch.bfloat16
        assert parameter.dtype == torch.float32


def test_a_full_subject_draws(model, tmp_path):
    config = replace(FULL, steps=1, train_text_encoder=False)
    list(make_training(model, tmp_path, config).run())
    learned = read_subject(tmp_path / "subject")
    values = {"side": SIDE, "steps": 2, "guidance": 2.0}
    (after,) = draw(learned.pipeline(model), ["a sks clock"], [1], **values)
    (before,) = draw(model.pipeline(), ["a sks clock"], [1], **values)
    assert (before != after).any()
