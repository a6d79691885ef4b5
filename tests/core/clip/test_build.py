"""CLIPs from the catalogue's entries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.clip import build
from core.errors import ModelUnavailable
from core.models.catalogue import Entry

ENTRY = Entry(
    id="some_clip",
    method="clip",
    set="embedded",
    title="Some CLIP",
    note="",
    file="some.safetensors",
    license="",
    source="",
    memory_mib=100,
    builder="core.clip.build:build_from_entry",
    config={"model": build.EMBEDDED},
)


def test_weights_make_the_same_model() -> None:
    torch.manual_seed(0)
    original = build.build_clip().eval()
    again = build.build_from_entry(ENTRY, original.state_dict())
    model = build.with_tokenizer(ENTRY, again)
    tokens = model.tokenize(["a red apple", "nothing like it"])
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        close = {"rtol": 0, "atol": 1e-5}  # frozen weights take another path through attention
        torch.testing.assert_close(original.encode_text(tokens), again.encode_text(tokens), **close)
        torch.testing.assert_close(
            original.encode_image(images), again.encode_image(images), **close
        )
    assert (model.id, model.model_set, model.patch_size, model.image_size) == (
        "some_clip",
        "embedded",
        8,
        96,
    )


def test_weights_of_another_model_are_refused() -> None:
    state = build.build_clip().state_dict()
    state.pop("logit_scale")
    with pytest.raises(ModelUnavailable, match="1 missing"):
        build.build_from_entry(ENTRY, state)


def test_published_models_have_clips_own_tokenizer() -> None:
    assert build.published_tokenizer().vocab_size == 49408
    assert build.embedded_tokenizer().vocab_size < 5000
    full = replace(ENTRY, set="full", repo="owner/name")
    model = build.with_tokenizer(full, build.build_clip())
    assert model.tokenize is build.published_tokenizer()


def test_the_configuration_is_open_clips() -> None:
    import open_clip

    assert build.EMBEDDED in open_clip.list_models()
    assert Path(build.MERGES).is_file()
