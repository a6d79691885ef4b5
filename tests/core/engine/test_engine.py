import gc
import json
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core.engine import engine as engine_module
from core.engine.cancellation import CancelToken
from core.engine.engine import Engine, get_engine, is_out_of_memory, weights_mib
from core.errors import Cancelled, ModelUnavailable, OutOfMemory
from core.models.catalogue import Entry
from core.models.loading import file_sha256, load_weights
from core.settings import Settings


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


class Builders(types.ModuleType):
    """The module that the entries' builders are imported from; counts what was built."""

    def __init__(self) -> None:
        super().__init__("tiny_builders")
        self.built: list[str] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def build(self, entry: Entry, state_dict: dict[str, torch.Tensor]) -> nn.Module:
        self.built.append(entry.id)
        self.started.set()
        assert self.go_on.wait(10)
        module = Tiny()
        load_weights(module, state_dict, name=entry.id)
        return module.eval().requires_grad_(False)

    def fail(self, entry: Entry, state_dict: dict[str, torch.Tensor]) -> nn.Module:
        self.built.append(entry.id)
        raise MemoryError


@pytest.fixture
def builders(monkeypatch) -> Builders:
    builders = Builders()
    monkeypatch.setitem(sys.modules, "tiny_builders", builders)
    return builders


@pytest.fixture
def models(tmp_path) -> dict[str, Entry]:
    """Three models of 40 MiB each, whose weights are one small file."""
    path = tmp_path / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(Tiny().state_dict(), path)
    first = Entry(
        id="a",
        method="sam",
        set="embedded",
        title="Tiny",
        note="",
        file=str(path),
        sha256=file_sha256(path),
        license="MIT",
        source="nowhere",
        memory_mib=40,
        builder="tiny_builders:build",
        low_precision=("encoder",),
    )
    return {model_id: replace(first, id=model_id) for model_id in "abc"}


@pytest.fixture
def engine(models, builders) -> Engine:
    return Engine("cpu", memory_budget_mib=100, models=models)


def loaded(engine: Engine) -> list[str]:
    return [model["id"] for model in engine.status()["models"]]


def test_a_model_is_loaded_when_it_is_first_wanted_and_kept(engine, builders):
    assert loaded(engine) == []
    with engine.model("a") as module:
        assert not module.training and not any(p.requires_grad for p in module.parameters())
        assert module(torch.ones(1, 4)).shape == (1, 2)
    with engine.model("a") as again:
        assert again is module
    assert builders.built == ["a"]


def test_stages_of_loading_are_told(engine):
    told = []
    with engine.model("a", progress=lambda fraction, text: told.append((fraction, text))):
        pass
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[0][1] == "Reading Tiny" and told[-1] == (1.0, "Tiny is ready")
    with engine.model("a", progress=lambda *_: pytest.fail("already loaded")):
        pass


def test_the_least_recently_used_model_makes_room(engine, builders):
    for model_id in "aba":
        with engine.model(model_id):
            pass
    with engine.model("c"):
        pass
    assert loaded(engine) == ["a", "c"]
    with engine.model("b"):
        pass
    assert loaded(engine) == ["c", "b"]
    assert builders.built == ["a", "b", "c", "b"]


def test_an_evicted_model_is_really_gone(engine):
    with engine.model("a") as module:
        alive = weakref.ref(module)
    del module
    assert engine.evict_idle() == ["a"]
    gc.collect()
    assert alive() is None and loaded(engine) == []


def test_a_model_in_use_stays(engine, monkeypatch):
    monkeypatch.setattr(engine_module, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "POLL_SECONDS", 0.0)
    with engine.model("a"), engine.model("b"):
        assert engine.evict_idle() == []
        with pytest.raises(ModelUnavailable, match="wait for models that others are using"):
            with engine.model("c"):
                pass
        assert loaded(engine) == ["a", "b"]
    with engine.model("c"):
        assert loaded(engine) == ["a", "c"]  # b was given back first


def test_a_model_waits_for_room(engine):
    """The third model is asked for while both others are in use, and comes when one is free."""
    in_use, release = threading.Event(), threading.Event()

    def use(model_id: str) -> None:
        with engine.model(model_id):
            in_use.set()
            assert release.wait(10)

    with ThreadPoolExecutor(2) as pool, engine.model("b"):
        first = pool.submit(use, "a")
        assert in_use.wait(10)
        in_use.clear()
        second = pool.submit(use, "c")
        release.set()
        first.result(10), second.result(10)
        assert loaded(engine) == ["b", "c"]


def test_a_model_larger_than_the_budget_is_refused(models, builders):
    engine = Engine("cpu", memory_budget_mib=39, models=models)
    with pytest.raises(ModelUnavailable, match="needs about 40 MiB .* 39 MiB are set aside"):
        with engine.model("a"):
            pass
    assert builders.built == []


def test_the_budget_comes_from_the_settings_or_from_what_is_free(models, monkeypatch):
    settings = Settings(model_memory_mib=77, embedding_cache_mib=3)
    engine = Engine("cpu", settings=settings, models=models)
    assert engine.memory_budget_mib == 77
    assert engine.embeddings.stats().max_bytes == 3 * 2**20
    monkeypatch.setattr(engine_module, "free_memory_mib", lambda device: 1000)
    assert Engine("cpu", models=models).memory_budget_mib == pytest.approx(700)


class TestConcurrentCallers:
    def test_one_load_serves_all(self, engine, builders):
        builders.go_on.clear()

        def use() -> int:
            with engine.model("a") as module:
                return id(module)

        with ThreadPoolExecutor(4) as pool:
            users = [pool.submit(use) for _ in range(4)]
            assert builders.started.wait(10)
            assert engine.status()["models"] == [
                {"id": "a", "state": "loading", "users": 0, "memory_mib": 40}
            ]
            builders.go_on.set()
            assert len({user.result(10) for user in users}) == 1
        assert builders.built == ["a"]

    def test_a_loading_model_holds_nobody_else_up(self, engine, builders):
        with engine.model("b"):
            pass
        builders.started.clear()
        builders.go_on.clear()
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(engine.model("a").__enter__)
            assert builders.started.wait(10)
            with engine.model("b"):
                pass
            builders.go_on.set()
            assert loading.result(10) is not None

    def test_the_next_caller_loads_when_the_first_one_cancels(self, engine, builders):
        builders.go_on.clear()
        cancel = CancelToken()

        def use(token: CancelToken | None) -> nn.Module:
            with engine.model("a", cancel=token) as module:
                return module

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(use, cancel)
            assert builders.started.wait(10)
            second = pool.submit(use, None)
            cancel.cancel()
            builders.go_on.set()
            with pytest.raises(Cancelled):
                first.result(10)
            assert isinstance(second.result(10), Tiny)
        assert builders.built == ["a", "a"]

    def test_many_threads_and_models(self, engine, builders):
        barrier = threading.Barrier(6)

        def use(model_id: str) -> bool:
            barrier.wait(10)
            for _ in range(10):
                with engine.model(model_id) as module:
                    assert module(torch.ones(1, 4)).isfinite().all()
                    assert engine.status()["memory_reserved_mib"] <= 100
            return True

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(use, "abcabc"))
        assert all(model["users"] == 0 for model in engine.status()["models"])


class TestFailures:
    def test_unknown_id(self, engine):
        with pytest.raises(ModelUnavailable, match="no model 'z': choose one of a, b, c"):
            with engine.model("z"):
                pass

    def test_cancelled_before_and_while_loading(self, engine, builders):
        cancel = CancelToken()
        with pytest.raises(Cancelled):
            with engine.model("a", cancel, lambda fraction, text: cancel.cancel()):
                pass
        with pytest.raises(Cancelled):
            with engine.model("a", cancel):
                pass
        assert builders.built == [] and loaded(engine) == []

    def test_a_tampered_file_is_named_and_leaves_no_trace(self, engine, models):
        path = Path(models["a"].file)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(ModelUnavailable, match=r"tiny\.safetensors is not the expected one"):
            with engine.model("a"):
                pass
        assert loaded(engine) == []

    def test_out_of_memory_while_loading(self, models, builders):
        models["a"] = replace(models["a"], builder="tiny_builders:fail")
        engine = Engine("cpu", memory_budget_mib=100, models=models)
        with pytest.raises(OutOfMemory, match="smaller model"):
            with engine.model("a"):
                pass
        assert loaded(engine) == []

    def test_an_error_of_the_caller_gives_the_model_back(self, engine):
        with pytest.raises(KeyError), engine.model("a"):
            raise KeyError
        assert engine.status()["models"][0]["users"] == 0


class TestOutOfMemoryGuard:
    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            ),
        ],
    )
    def test_it_says_what_to_do(self, engine, error):
        with pytest.raises(OutOfMemory, match="try a smaller picture"):
            with engine.out_of_memory_guard():
                raise error

    def test_everything_idle_is_freed(self, engine):
        engine.embeddings.put("key", torch.zeros(4))
        with engine.model("a"):
            pass
        with engine.model("b"), pytest.raises(OutOfMemory):
            with engine.out_of_memory_guard():
                raise MemoryError
        assert loaded(engine) == ["b"]
        assert engine.embeddings.stats().entries == 0

    def test_tensors_of_the_failed_work_are_freed(self, engine):
        alive = []

        def work() -> None:
            logits = torch.zeros(8)
            alive.append(weakref.ref(logits))
            raise MemoryError

        with pytest.raises(OutOfMemory) as caught:
            with engine.out_of_memory_guard():
                work()
        assert alive[0]() is None  # although the traceback is still held
        assert caught.value.__cause__ is None

    def test_a_real_allocation_that_no_machine_can_hold(self, engine):
        with pytest.raises(OutOfMemory), engine.out_of_memory_guard():
            torch.empty(2**55, dtype=torch.uint8)

    def test_other_errors_pass(self, engine):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            with engine.out_of_memory_guard():
                torch.ones(2, 3) @ torch.ones(2, 3)
        with pytest.raises(ValueError), engine.out_of_memory_guard():
            raise ValueError
        assert not is_out_of_memory(ValueError("out of memory"))


def test_the_precision_is_used_where_the_entry_allows_it(models, builders):
    engine = Engine("cpu", "bfloat16", memory_budget_mib=100, models=models)
    with engine.model("a") as module:
        assert module.encoder.weight.dtype == torch.bfloat16
        assert module.decoder.weight.dtype == torch.float32
        assert module(torch.ones(1, 4)).dtype == torch.float32


def test_status_can_be_sent_as_json(engine):
    with engine.model("a"):
        status = json.loads(json.dumps(engine.status()))
    assert status["device"] == "cpu" and status["precision"] == "float32"
    assert status["device_name"].startswith("CPU, ")
    assert (status["memory_budget_mib"], status["memory_reserved_mib"]) == (100, 40)
    assert status["models"] == [{"id": "a", "state": "loaded", "users": 1, "memory_mib": 40}]
    assert status["embeddings"]["entries"] == 0
    assert status["memory_free_mib"] > 0


def test_weights_are_measured():
    assert weights_mib(Tiny()) == (4 * 4 + 4 + 4 * 2 + 2) * 4 / 2**20


def test_one_engine_for_the_process(monkeypatch):
    monkeypatch.setattr(engine_module, "_engine", None)
    barrier = threading.Barrier(4)

    def ask(_: int) -> Engine:
        barrier.wait(10)
        return get_engine()

    with ThreadPoolExecutor(4) as pool:
        assert len({id(engine) for engine in pool.map(ask, range(4))}) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_gpu_is_free_again_after_it_ran_out(models, builders):
    engine = Engine("cuda", memory_budget_mib=100, models=models)
    before = torch.cuda.memory_reserved()
    with pytest.raises(OutOfMemory), engine.out_of_memory_guard():
        blocks = []
        while True:
            blocks.append(torch.empty(2**30, dtype=torch.uint8, device="cuda"))
    del blocks
    engine.evict_idle()
    assert torch.cuda.memory_reserved() <= before + 2**26
    with engine.model("a") as module:
        assert module(torch.ones(1, 4, device="cuda")).dtype == torch.float32
