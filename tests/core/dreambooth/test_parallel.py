"""accelerate's settings, which are one for a process, belong to no training."""

import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from core.dreambooth.parallel import accelerator, make_optimizer


@pytest.fixture(autouse=True)
def fresh_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_others_may_have_another_precision_before_and_after():
    Accelerator(cpu=True, mixed_precision="bf16")
    with accelerator() as one:
        assert one.mixed_precision == "no"
        assert (one.process_index, one.num_processes, one.is_main_process) == (0, 1, True)
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"


def test_two_trainings_share_the_state_until_the_last_ends():
    with accelerator() as first:
        with accelerator() as second:
            pass
        assert first.num_processes == second.num_processes == 1
        module = torch.nn.Linear(1, 1)
        assert first.prepare_model(module, device_placement=False) is module
    assert not AcceleratorState._shared_state


def test_the_optimiser_is_adamw(monkeypatch):
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    values = {"rate": 1e-3, "decay": 0.1}
    for in_8bit in (True, False):  # no GPU
        one = make_optimizer(parameters, torch.device("cpu"), in_8bit=in_8bit, **values)
        assert type(one) is torch.optim.AdamW
    assert one.defaults["betas"] == (0.9, 0.999)
    assert (one.defaults["lr"], one.defaults["weight_decay"]) == (1e-3, 0.1)


def test_the_optimiser_is_in_8_bit_where_it_can_be(monkeypatch):
    made = []
    optim = SimpleNamespace(AdamW8bit=lambda *args, **values: made.append(values))
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=optim))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    make_optimizer([], torch.device("cuda"), rate=1e-3, decay=0.1, in_8bit=True)
    assert made == [{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}]


def test_without_bitsandbytes_a_gpu_has_plain_adamw(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    one = make_optimizer(parameters, torch.device("cuda"), rate=1e-3, decay=0.1, in_8bit=True)
    assert type(one) is torch.optim.AdamW
