"""Chats on an engine: from the catalogue's files to streamed answers, and what is kept between."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.engine import CancelToken
from core.engine import engine as engine_module
from core.engine.engine import Engine
from core.errors import Cancelled, ImageError, ModelUnavailable, PromptError
from core.models.catalogue import Entry, catalogue
from core.pixellm import generation, published, serving
from core.pixellm.build import entry_config
from core.pixellm.config import PixelLMConfig
from core.pixellm.pipeline import segment
from core.pixellm.results import Finished, TargetFound, TextPiece
from core.pixellm.serving import converse, default_chat, read_picture
from tests.core.pixellm.conftest import small_config, small_model, word_tokenizer

TWO = "the cup SEG and a clock SEG . </s>"
ONE = "it is the cup SEG . </s>"


@pytest.fixture(scope="module")
def entry(tmp_path_factory) -> Entry:
    """The small model's files, as the catalogue lists them."""
    folder = tmp_path_factory.mktemp("models")
    state_dict = small_model().network.state_dict()
    tensors = {name: value.contiguous().clone() for name, value in state_dict.items()}
    save_file(tensors, folder / "small.safetensors")
    word_tokenizer().backend_tokenizer.save(str(folder / "words.json"))
    return Entry(
        id="small",
        method="pixellm",
        set="embedded",
        title="Small",
        note="",
        file=str(folder / "small.safetensors"),
        license="",
        source="",
        memory_mib=1,
        builder="core.pixellm.build:build_from_entry",
        config={**small_config().to_dict(), "tokenizer": "words.json"},
    )


@pytest.fixture
def engine(entry) -> Engine:
    return Engine(device="cpu", models={"small": entry})


def result_of(events):
    """The last event's result; the events before are checked for their order."""
    *before, last = list(events)
    assert isinstance(last, Finished) and not any(isinstance(one, Finished) for one in before)
    text = "".join(one.text for one in before if isinstance(one, TextPiece))
    assert text == last.result.answer.text
    found = [one.target.number for one in before if isinstance(one, TargetFound)]
    assert found == [target.number for target in last.result.targets]
    return last.result


def test_an_answer_is_the_pipelines_own(engine, picture, script, model):
    script(TWO)
    ours = result_of(converse(engine, "small", picture, "what is here"))
    script(TWO)
    expected = segment(model, picture, "what is here")
    assert ours.answer == expected.answer
    assert (ours.segmentation.model, ours.segmentation.model_set) == ("small", "embedded")
    for one, other in zip(ours.targets, expected.targets, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
    seconds = ours.segmentation.seconds
    assert {"encode", "words", "masks", "total"} == set(seconds)
    assert seconds["total"] >= seconds["encode"] + seconds["words"]


def test_a_conversation_goes_on_from_its_history(engine, picture, script):
    script(TWO, ONE)
    first = result_of(converse(engine, "small", picture, "what is here"))
    history = [first.turn.to_json()]
    second = result_of(converse(engine, "small", picture, "and this", history))
    assert [target.number for target in first.targets + second.targets] == [1, 2, 3]


def test_the_picture_is_encoded_once_and_before_the_first_question(engine, picture, script):
    assert read_picture(engine, "small", picture) > 0
    script(ONE, ONE)
    for _ in range(2):
        result_of(converse(engine, "small", picture, "what is it"))
    stats = engine.embeddings.stats()
    assert (stats.misses, stats.hits, stats.entries) == (1, 2, 1)


def test_nothing_of_a_visitor_keeps_a_model_in_memory(engine, picture, script):
    script(ONE)
    result = result_of(converse(engine, "small", picture, "what is it"))
    with engine.model("small") as network:
        alive = weakref.ref(network)
    del network
    assert engine.evict_idle() == ["small"] and alive() is None and result.answer.text


def test_stopping_keeps_what_was_said_and_frees_the_model(engine, picture, script):
    script(TWO)
    token, text = CancelToken(), ""
    events = converse(engine, "small", picture, "what is here", cancel=token)
    for event in events:
        if isinstance(event, TargetFound):
            token.cancel()
        elif isinstance(event, TextPiece):
            text += event.text
    assert event.result.answer.ending == "stopped" and event.result.answer.text == text
    assert len(event.result.targets) == 1
    with pytest.raises(Cancelled):
        list(converse(engine, "small", picture, "what is here", cancel=token))
    left = converse(engine, "small", picture, "what is here")
    script(TWO)
    next(left)
    left.close()
    assert engine.evict_idle() == ["small"]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"question": " "}, PromptError, "There is no question"),
        ({"question": "x" * 10_000}, PromptError, "10000 characters; the limit is 1000"),
        ({"style": "loud"}, PromptError, "answer style 'loud'"),
        ({"history": [3]}, PromptError, "cannot be read"),
        ({"model_id": "other"}, ModelUnavailable, "There is no model 'other'"),
        ({"image": np.zeros((4, 4), np.uint8)}, ImageError, "cannot be used"),
    ],
)
def test_what_is_wrong_is_said(engine, picture, changes, error, sentence):
    arguments = {"model_id": "small", "image": picture, "question": "what", "history": ()}
    arguments |= changes
    with pytest.raises(error, match=sentence):
        list(converse(engine, **arguments))


def test_a_small_picture_is_refused_before_a_model_is_loaded(engine):
    with pytest.raises(ImageError):
        read_picture(engine, "small", np.zeros((2, 2, 4), np.uint8))
    assert engine.status()["models"] == []


def test_running_out_of_memory_is_said_and_frees_the_cache(engine, picture, monkeypatch):
    read_picture(engine, "small", picture)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(generation, "choose_token", fail)
    with pytest.raises(ModelUnavailable, match="needs more memory"):
        list(converse(engine, "small", picture, "what"))
    assert engine.embeddings.stats().entries == 0


def test_the_sets_have_their_models(monkeypatch):
    assert default_chat("embedded") == "pixellm_embedded"
    monkeypatch.setattr(serving, "for_method", lambda *_: [])
    with pytest.raises(ModelUnavailable, match="no PixelLM in the set 'other'"):
        default_chat("other")


# --- published models -----------------------------------------------------------------------------


@pytest.fixture
def downloads(monkeypatch):
    """What would be downloaded."""
    asked: list[str] = []

    def fetch(size):
        asked.append(size)
        raise ModelUnavailable("no network in a test")

    monkeypatch.setattr(published, "download_published", fetch)
    return asked


def published_engine(monkeypatch, tmp_path, free_mib: int) -> Engine:
    """An engine on a machine with so much memory, where config.json was downloaded."""
    path = tmp_path / "hf_model" / "config.json"
    path.parent.mkdir()
    path.write_text("{}")
    monkeypatch.setattr(engine_module, "locate", lambda *_, **__: path)
    monkeypatch.setattr(published, "free_memory_mib", lambda device: free_mib)
    return Engine(device="cpu", memory_budget_mib=20_000, models=catalogue())


def test_missing_memory_is_said_before_anything_is_downloaded(
    monkeypatch, tmp_path, downloads, picture
):
    engine = published_engine(monkeypatch, tmp_path, 10_000)
    with pytest.raises(ModelUnavailable, match="PixelLM-7B needs about 15744 MiB .* 5744 MiB are"):
        read_picture(engine, "pixellm_7b", picture)
    monkeypatch.setattr(engine_module, "locate", lambda *_, **__: pytest.fail("a download"))
    with pytest.raises(ModelUnavailable, match="5744 MiB are missing"):
        list(converse(engine, "pixellm_7b", picture, "what is it"))
    assert downloads == [] and engine.status()["models"] == []


def test_with_room_the_published_files_are_fetched(monkeypatch, tmp_path, downloads, picture):
    engine = published_engine(monkeypatch, tmp_path, 40_000)
    for size in ("7B", "13B"):
        with pytest.raises(ModelUnavailable, match="no network"):
            read_picture(engine, f"pixellm_{size.lower()}", picture)
    assert downloads == ["7B", "13B"]


@pytest.mark.parametrize(
    ("free", "kind"), [(20_000, None), (12_000, "8bit"), (7_000, "4bit"), (3_000, None)]
)
def test_a_gpu_quantises_as_little_as_it_can(monkeypatch, free, kind):
    monkeypatch.setattr(published, "free_memory_mib", lambda device: free)
    monkeypatch.setattr(published, "find_spec", lambda name: object())
    config = PixelLMConfig.published_7b()
    assert published.least_quantization(config, torch.device("cuda")) == kind
    assert published.least_quantization(config, torch.device("cpu")) is None


def test_entries_of_published_models_say_what_they_take():
    for size, config in (
        ("7b", PixelLMConfig.published_7b()),
        ("13b", PixelLMConfig.published_13b()),
    ):
        entry = catalogue()[f"pixellm_{size}"]
        assert entry_config(entry) == config
        assert entry.memory_mib == published.memory_mib(config, torch.bfloat16, "4bit")
        assert entry.repo == published.REPOSITORIES[size.upper()]
