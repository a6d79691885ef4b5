import pytest
import torch
from torch import nn

from core.engine import device as device_module
from core.engine.device import (
    describe,
    free_memory_mib,
    lower_precision,
    pick_device,
    pick_precision,
)
from core.errors import ModelUnavailable

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def machine(monkeypatch):
    """Pretend that the machine has these devices."""

    def set_up(*, cuda: bool = False, mps: bool = False, bf16: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


def test_the_fastest_device_is_picked(machine):
    machine(cuda=True, mps=True)
    assert pick_device() == torch.device("cuda:0")
    machine(mps=True)
    assert pick_device() == MPS
    machine()
    assert pick_device() == CPU
    machine(cuda=True)
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "meta:x", ""])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ModelUnavailable, match=f"{name!r} is not on this machine"):
        pick_device(name)


def test_precision(machine):
    machine(cuda=True, bf16=True)
    assert pick_precision(CUDA) == torch.bfloat16
    machine(cuda=True)
    assert pick_precision(CUDA) == torch.float16
    assert pick_precision(CPU) == pick_precision(MPS) == torch.float32
    assert pick_precision(CUDA, "float32") == torch.float32
    assert pick_precision(CPU, "bfloat16") == torch.bfloat16
    with pytest.raises(ModelUnavailable, match="CPU cannot run in float16"):
        pick_precision(CPU, "float16")
    with pytest.raises(ModelUnavailable, match="'int4' is not known"):
        pick_precision(CUDA, "int4")


def test_devices_in_words(monkeypatch):
    monkeypatch.setattr(device_module, "usable_cores", lambda: 2)
    assert describe(CPU) == "CPU, 2 cores"
    monkeypatch.setattr(device_module, "usable_cores", lambda: 1)
    assert describe(CPU) == "CPU, 1 core"
    assert describe(MPS) == "Apple GPU"


def test_free_memory_keeps_to_the_container(monkeypatch, tmp_path):
    headroom = device_module._container_headroom
    assert headroom(tmp_path) is None
    for name, text in [("memory.max", "max"), ("memory.current", "300"), ("memory.stat", "")]:
        (tmp_path / name).write_text(text)
    assert headroom(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 100\n")
    assert headroom(tmp_path) == 800
    monkeypatch.setattr(device_module, "_container_headroom", lambda: 3 * 2**20)
    assert free_memory_mib(CPU) == 3
    monkeypatch.setattr(device_module, "_container_headroom", lambda: None)
    assert free_memory_mib(CPU) > 3


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.norm(self.conv(x))  # (B, 8, H - 2, W - 2)
        return features, features.flatten(1).argmax(1)


def test_lower_precision_stays_inside_the_module():
    torch.manual_seed(0)
    encoder, pixels = Encoder().eval(), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected, _ = encoder(pixels)
        lower_precision(encoder, torch.bfloat16, CPU)
        features, best = encoder(pixels)
    assert encoder.conv.weight.dtype == torch.bfloat16
    assert encoder.norm.weight.dtype == torch.float32
    assert features.dtype == torch.float32 and best.dtype == torch.int64
    assert 0 < (features - expected).abs().max() < 0.05
