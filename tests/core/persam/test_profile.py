"""A profile comes back as it was, or a sentence says why not."""

import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from core.errors import PromptError
from core.persam.profile import (
    MAX_FILE_BYTES,
    THUMBNAIL_SIDE,
    Profile,
    draw_thumbnail,
)
from core.persam.scale import ScaleWeights
from core.persam.target import Reference, Target


def profile(**changes) -> Profile:
    random = torch.Generator().manual_seed(0)
    values = {
        "name": "my “cup” 컵",
        "model_id": "sam_embedded",
        "model_sha256": "ab" * 32,
        "target": Target(*torch.randn(2, 2, 16, generator=random)),
        "scale_weights": ScaleWeights(0.2, -0.1),
        "thumbnail": np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3),
    }
    return Profile(**values | changes)


@pytest.mark.parametrize("weights", [None, ScaleWeights(1.23, -0.11)])
def test_round_trip(tmp_path, weights):
    saved = profile(scale_weights=weights)
    path = saved.save(tmp_path / "cup.safetensors")
    loaded = Profile.read(path)
    assert (loaded.name, loaded.model_id, loaded.model_sha256) == (
        saved.name,
        saved.model_id,
        saved.model_sha256,
    )
    assert torch.equal(loaded.target.means, saved.target.means)
    assert torch.equal(loaded.target.maxima, saved.target.maxima)
    assert np.array_equal(loaded.thumbnail, saved.thumbnail)
    if weights is None:
        assert loaded.scale_weights is None
    else:
        np.testing.assert_allclose(loaded.scale_weights.vector, weights.vector, atol=1e-6)
    assert path.stat().st_size < 10_000


@settings(max_examples=60)
@given(st.data())
def test_no_changed_byte_passes(data):
    """Every byte counts: header, tensors, and what is between them."""
    whole = bytearray(profile().to_bytes())
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        loaded = Profile.from_bytes(bytes(whole))
    except PromptError:
        return
    assert loaded.name == profile().name, "only padding may change without notice"
    assert torch.equal(loaded.target.means, profile().target.means)


@given(st.binary(max_size=200))
def test_other_files_are_refused(data):
    with pytest.raises(PromptError):
        Profile.from_bytes(data)


def test_truncated_oversized_and_foreign_files(tmp_path):
    with pytest.raises(PromptError, match="damaged"):
        Profile.from_bytes(profile().to_bytes()[:-9])
    large = tmp_path / "large.safetensors"
    large.write_bytes(bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(PromptError, match="limit"):
        Profile.read(large)
    with pytest.raises(PromptError, match="limit"):
        Profile.from_bytes(large.read_bytes())
    with pytest.raises(PromptError, match="no PerSAM profile"):
        Profile.from_bytes(save({"means": torch.zeros(1, 4)}))


def test_another_version_is_named():
    data = profile().to_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["version"] = "7"
    text = json.dumps(header).encode()
    with pytest.raises(PromptError, match="'7'"):
        Profile.from_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize(
    "changes",
    [
        {"target": Target(torch.full((1, 4), torch.nan), torch.zeros(1, 4))},
        {"target": Target(torch.zeros(1, 4), torch.zeros(1, 4))},
        {"target": Target(torch.ones(1, 4), torch.ones(1, 5))},
        {"target": Target(torch.ones(99, 4), torch.ones(99, 4))},
        {"scale_weights": ScaleWeights(float("inf"), 0)},
        {"thumbnail": np.zeros((THUMBNAIL_SIDE + 1, 5, 3), np.uint8)},
    ],
)
def test_senseless_values_are_refused_though_the_checksum_fits(changes):
    with pytest.raises(PromptError, match="damaged"):
        Profile.from_bytes(profile(**changes).to_bytes())


def test_it_belongs_to_one_model():
    entry = SimpleNamespace(id="sam_embedded", title="SAM, embedded", sha256="ab" * 32)
    profile().check_model(entry)
    with pytest.raises(PromptError, match="sam_vit_b"):
        profile().check_model(SimpleNamespace(**{**vars(entry), "id": "sam_vit_b"}))
    with pytest.raises(PromptError, match="other weights"):
        profile().check_model(SimpleNamespace(**{**vars(entry), "sha256": "cd" * 32}))


@pytest.mark.parametrize("size", [(3, 400), (200, 150)])
def test_thumbnails_are_small(size):
    mask = np.zeros(size, bool)
    mask[1:, 5:60] = True
    image = np.full((*size, 3), 90, np.uint8)
    thumbnail = draw_thumbnail(Reference(image, mask))
    assert thumbnail.dtype == np.uint8 and max(thumbnail.shape[:2]) == THUMBNAIL_SIDE
    assert min(thumbnail.shape[:2]) >= 1
