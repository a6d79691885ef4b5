"""Models as folders: the embedded one's sizes and tokens, the published layout, all refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch.testing import assert_close

from core.clip.build import MERGES, build_clip, embedded_tokenizer
from core.dreambooth import build
from core.dreambooth.build import (
    UNET_FILE,
    build_from_entry,
    build_pipeline,
    byte_pair_tokenizer,
    embedded_pipeline_config,
    save_model,
    text_weights_of_clip,
)
from core.errors import ModelUnavailable, PromptError
from core.models.catalogue import parse_entry
from core.models.loading import read_state_dict
from tests.core.dreambooth.conftest import build_tiny


@pytest.fixture(scope="module")
def words():
    return byte_pair_tokenizer(MERGES)


@pytest.fixture
def saved(engine, tmp_path):
    """A copy of the tiny model's folder and an entry for it."""
    entry = engine.entry("tiny")
    folder = shutil.copytree(Path(entry.file).parents[1], tmp_path / "tiny")
    return replace(entry, file=str(folder / UNET_FILE), card=folder / "card.json")


def load(entry):
    return build_from_entry(entry, read_state_dict(Path(entry.file)))


def numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_embedded_model_is_small_and_made_for_64_px(words):
    model = build_pipeline(embedded_pipeline_config(), words)
    table = model.text_encoder.get_input_embeddings()
    assert numbers(model.vae) <= 1_700_000
    assert 3_000_000 <= numbers(model.unet) <= 6_000_000
    assert numbers(model) - numbers(table) <= 20_000_000
    assert (model.factor, model.channels, model.resolution) == (8, 8, 64)
    assert model.scheduler.config.prediction_type == "v_prediction"
    assert model.check_side(128) == 128
    with pytest.raises(PromptError, match="multiple of 16, such as 64"):
        model.check_side(72)


@pytest.mark.parametrize(
    "text", ["a photo of a red clock on grass", "a sks dog!", "Crème  brûlée\n12", ""]
)
def test_tokens_are_the_embedded_clips(words, text):
    own = words(text).input_ids
    clip = embedded_tokenizer()([text])[0].tolist()
    assert clip[: len(own)] == own
    assert set(clip[len(own) :]) <= {0}
    assert words.model_max_length == 32


def test_the_text_encoder_may_begin_with_the_embedded_clips_weights(words):
    clip = build_clip().eval()
    text = "a photo of a red clock"
    model = build_pipeline(embedded_pipeline_config(), words)
    model.text_encoder.load_state_dict(text_weights_of_clip(clip.state_dict()))
    tokens = embedded_tokenizer()([text])
    with torch.no_grad():
        hidden = clip.token_embedding(tokens) + clip.positional_embedding
        expected = clip.ln_final(clip.transformer(hidden, attn_mask=clip.attn_mask))
    count = len(words(text).input_ids)
    assert_close(model.encode_prompts([text])[0, :count], expected[0, :count], atol=1e-5, rtol=1e-4)


def test_weights_are_the_seeds_own_and_global_numbers_stay(tokenizer):
    state = torch.get_rng_state()
    first, second = build_tiny(tokenizer), build_tiny(tokenizer)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_an_engine_gives_back_the_saved_model(engine, model):
    with engine.model("tiny") as loaded:
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert (loaded.id, loaded.model_set) == ("tiny", "embedded")
        assert loaded.sha256 == engine.entry("tiny").sha256 != ""
        assert loaded.tokenize(["a clock"]).tolist() == model.tokenize(["a clock"]).tolist()
        assert loaded.scheduler.config.prediction_type == "v_prediction"


def test_plain_diffusers_reads_the_folder(engine, model):
    folder = Path(engine.entry("tiny").file).parents[1]
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    assert type(pipeline.scheduler).__name__ == "DDPMScheduler"
    expected = model.encode_prompts(["a clock"])
    own = pipeline.encode_prompt("a clock", "cpu", 1, False)[0]
    assert_close(own, expected)


def test_saving_halves_the_weights_and_not_the_model(model, tmp_path):
    files = save_model(model, tmp_path)
    assert UNET_FILE in files
    stored = read_state_dict(tmp_path / UNET_FILE)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert next(model.unet.parameters()).dtype == torch.float32
    assert save_model(model, tmp_path) == files


def test_a_published_model_s_other_parts_come_from_the_hubs_cache(saved, monkeypatch):
    """The engine downloads the U-Net's file; the rest of the snapshot lies beside it."""
    entry = replace(saved, set="full", repo="owner/name", card=None)
    folder, asked = Path(saved.file).parents[1], {}

    def snapshot(repo, **values):
        asked.update(repo=repo, **values)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(build, "find_local", lambda entry: Path(entry.file))
    assert load(entry).model_set == "full"
    assert asked["repo"] == "owner/name"
    assert "text_encoder/model.safetensors" in asked["allow_patterns"]
    assert not any("safety_checker" in pattern for pattern in asked["allow_patterns"])

    def offline(*args, **values):
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ModelUnavailable, match="could not be downloaded .ConnectionError."):
        load(entry)


def test_a_full_catalogue_entry_reads(tmp_path):
    entry = parse_entry(
        {
            "id": "sd15",
            "method": "dreambooth",
            "set": "full",
            "title": "Stable Diffusion 1.5",
            "note": "",
            "repo": "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "file": UNET_FILE,
            "license": "CreativeML Open RAIL-M",
            "source": "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5",
            "memory_mib": 8000,
            "builder": "core.dreambooth.build:build_from_entry",
        },
        tmp_path,
    )
    assert entry.file_name == "diffusion_pytorch_model.safetensors"


def test_missing_files_are_named(saved):
    (Path(saved.file).parents[1] / "vae" / "config.json").unlink()
    with pytest.raises(ModelUnavailable, match="vae/config.json .* is missing"):
        load(saved)
    with pytest.raises(ModelUnavailable, match="not on this machine"):
        build_from_entry(replace(saved, file="nowhere"), {})


def test_changed_files_are_named(saved):
    path = Path(saved.file).parents[1] / "tokenizer" / "tokenizer_config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ModelUnavailable, match="tokenizer_config.json .* not the expected one"):
        load(saved)


@pytest.mark.parametrize("name", ["vae/config.json", "text_encoder/model.safetensors"])
def test_damaged_parts_are_refused(saved, name):
    (Path(saved.file).parents[1] / name).write_bytes(b"{")
    with pytest.raises(ModelUnavailable, match="Tiny is damaged"):
        load(replace(saved, card=None))
    (Path(saved.file).parents[1] / "unet" / "config.json").write_bytes(b"{")
    with pytest.raises(ModelUnavailable, match="unet/config.json .* missing or damaged"):
        load(replace(saved, card=None))


def test_weights_of_another_size_are_refused(saved):
    path = Path(saved.file).with_name("config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"block_out_channels": [8, 16]}))
    with pytest.raises(ModelUnavailable, match="do not fit tiny"):
        load(replace(saved, card=None))


def test_both_kinds_of_prediction_can_be_trained(tokenizer):
    assert build_tiny(tokenizer, "epsilon").scheduler.config.prediction_type == "epsilon"


def test_prompts_are_encoded_as_the_pipeline_does(model):
    expected = model.pipeline().encode_prompt("a sks clock", "cpu", 1, False)[0]
    assert_close(model.encode_prompts(["a sks clock"]), expected)
    assert model.fits("a sks clock")
    assert not model.fits("clock " * 30)
