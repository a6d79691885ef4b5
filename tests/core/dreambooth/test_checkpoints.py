"""Checkpoints: whole or not there, without pickle, and refused when they are damaged."""

import json
from dataclasses import replace

import pytest
import torch

from core.dreambooth.checkpoints import (
    FACTS_FILE,
    STATE_FILE,
    Facts,
    list_checkpoints,
    load_checkpoint,
    read_facts,
    save_checkpoint,
)
from core.dreambooth.lora import LORA_FILE, build_denoiser
from core.dreambooth.storage import whole_folder, write_atomically
from core.errors import PromptError
from tests.core.dreambooth.conftest import FAST

FACTS = Facts(
    step=0,
    seconds=1.5,
    seed=0,
    method="lora",
    base=("tiny", "0"),
    config_digest="d",
    pictures=("a", "b"),
    history=[{"step": 1, "loss": 0.5}],
)


@pytest.fixture
def parts(model):
    """A denoiser and its optimiser, after one step with gradients of one."""
    denoiser = build_denoiser(model, FAST, torch.float32)
    parameters = [parameter for _, parameter in denoiser.trained()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return denoiser, optimizer


def test_weights_optimiser_and_random_numbers_come_back(model, parts, tmp_path):
    denoiser, optimizer = parts
    path = save_checkpoint(tmp_path, denoiser, optimizer, replace(FACTS, step=3), keep=2)
    expected = torch.randn(3)
    again = build_denoiser(model, FAST, torch.float32)
    other = torch.optim.AdamW([p for _, p in again.trained()], lr=0.5)
    assert load_checkpoint(path, again, other) == replace(FACTS, step=3)
    assert torch.equal(torch.randn(3), expected)
    assert other.param_groups[0]["lr"] == 0.1
    state = other.state_dict()["state"]
    for index, values in optimizer.state_dict()["state"].items():
        assert all(torch.equal(values[name], state[index][name]) for name in values)


def test_files_are_safetensors_and_json(parts, tmp_path):
    path = save_checkpoint(tmp_path, *parts, replace(FACTS, step=12), keep=1)
    assert path.name == "checkpoint-000012"
    assert {one.name for one in path.iterdir()} == {LORA_FILE, STATE_FILE, FACTS_FILE}
    assert json.loads((path / FACTS_FILE).read_text())["pictures"] == ["a", "b"]


def test_old_ones_go_after_the_new_one_is_there(parts, tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, *parts, replace(FACTS, step=step), keep=2)
    assert [read_facts(path).step for path in list_checkpoints(tmp_path)] == [10, 100]


def test_half_written_ones_do_not_count(parts, tmp_path):
    save_checkpoint(tmp_path, *parts, replace(FACTS, step=1), keep=2)
    (tmp_path / "checkpoint-000002.partial").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-000001"]


@pytest.mark.parametrize("name", [STATE_FILE, FACTS_FILE, LORA_FILE])
def test_damaged_ones_are_refused(parts, tmp_path, name):
    path = save_checkpoint(tmp_path, *parts, replace(FACTS, step=1), keep=2)
    (path / name).write_bytes(b"\x00" * 20)
    with pytest.raises(PromptError, match="damaged.* or begin anew"):
        load_checkpoint(path, *parts)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "whole"
    with whole_folder(path) as partial:
        (partial / "file").write_text("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), whole_folder(path) as partial:
        (partial / "file").write_text("new")
        raise ZeroDivisionError
    assert (path / "file").read_text() == "old"
    with whole_folder(path) as partial:
        (partial / "other").write_text("new")
    assert [one.name for one in path.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_at_once(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
