import hashlib
import pickle
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from core.errors import Cancelled, ModelUnavailable
from core.models.catalogue import Entry
from core.models.loading import find_local, load_weights, locate, read_state_dict

COMMIT = "7790786db131bcdc639f24a915d9f2c331d843ee"


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build().state_dict()


@pytest.fixture
def checkpoint(tmp_path, state_dict) -> Path:
    """A small file in the layout of SAM's: one plain state dict, saved by torch."""
    path = tmp_path / "published" / "checkpoints" / "sam_vit_x_012345.pth"
    path.parent.mkdir(parents=True)
    torch.save(state_dict, path)
    return path


@pytest.fixture
def entry(checkpoint) -> Entry:
    return Entry(
        id="sam_vit_x",
        method="sam",
        set="full",
        title="SAM ViT-X",
        note="",
        file="checkpoints/sam_vit_x_012345.pth",
        url=checkpoint.as_uri(),
        sha256=sha256(checkpoint),
        bytes=checkpoint.stat().st_size,
        license="Apache-2.0",
        source="",
        memory_mib=1,
        builder="module:build",
    )


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> Path:
    """Empty caches of the hub client and of PyTorch; the hub is reached by no test by chance."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path


def in_hub_cache(root: Path, repo: str) -> Path:
    return root / "hf" / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT


def assert_equal(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert got.keys() == want.keys()
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=0, atol=0)


class TestLocate:
    def test_download_from_the_publisher(self, entry, state_dict, caches):
        seen = []
        path = locate(entry, allow_download=True, progress=lambda f, text: seen.append((f, text)))
        assert path == caches / "torch" / "checkpoints" / "sam_vit_x_012345.pth"
        assert_equal(read_state_dict(path, expected_sha256=entry.sha256), state_dict)
        assert [fraction for fraction, _ in seen] == [0.0, 1.0]
        assert "sam_vit_x_012345.pth" in seen[0][1]
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_a_second_call_needs_no_source(self, entry):
        path = locate(entry, allow_download=True)
        elsewhere = replace(entry, url="file:///nowhere")
        assert locate(elsewhere, allow_download=False) == path

    def test_another_file_under_that_name_is_not_kept(self, entry, checkpoint, caches):
        checkpoint.write_bytes(b"not what was published")
        with pytest.raises(ModelUnavailable, match=r"sam_vit_x_012345\.pth is not the published"):
            locate(entry, allow_download=True)
        assert list((caches / "torch" / "checkpoints").iterdir()) == []

    def test_stopping_a_download_leaves_nothing_behind(self, entry, caches):
        def stop(fraction: float, message: str) -> None:
            if fraction > 0:
                raise Cancelled("Stopped.")

        with pytest.raises(Cancelled):
            locate(entry, allow_download=True, progress=stop)
        assert list((caches / "torch" / "checkpoints").iterdir()) == []

    def test_without_a_network_the_message_says_what_to_do(self, entry):
        unreachable = replace(entry, url="http://127.0.0.1:9/sam.pth")  # the discard port
        with pytest.raises(ModelUnavailable) as caught:
            locate(unreachable, allow_download=True)
        message = caught.value.message
        assert "SAM ViT-X (sam_vit_x_012345.pth" in message
        assert "check the network" in message
        assert "use the embedded models" in message

    def test_downloads_can_be_switched_off(self, entry, monkeypatch):
        with pytest.raises(ModelUnavailable, match="downloads are switched off"):
            locate(entry, allow_download=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelUnavailable, match="downloads are switched off"):
            locate(entry, allow_download=True)

    def test_the_hub_cache_is_looked_at_first(self, entry, checkpoint, caches):
        entry = replace(entry, repo="someone/sam", revision=COMMIT)
        assert find_local(entry) is None
        cached = in_hub_cache(caches, "someone/sam") / entry.file
        cached.parent.mkdir(parents=True)
        cached.write_bytes(checkpoint.read_bytes())
        assert find_local(entry) == cached
        assert locate(entry, allow_download=False) == cached

    def test_a_missing_embedded_model_says_how_to_get_it(self, entry, tmp_path):
        embedded = replace(
            entry, set="embedded", file=str(tmp_path / "tiny.safetensors"), source="python -m x"
        )
        with pytest.raises(ModelUnavailable, match=r"tiny\.safetensors.*`python -m x`"):
            locate(embedded, allow_download=True)
        Path(embedded.file).touch()
        assert locate(embedded, allow_download=False) == Path(embedded.file)


class HubHandler(SimpleHTTPRequestHandler):
    """As much of a hub as a download needs: /<repo>/resolve/<commit>/<file> with its headers."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.split(f"/resolve/{COMMIT}", 1)[-1])

    def end_headers(self) -> None:
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(checkpoint, monkeypatch):
    """A hub on this machine that serves the folder of the published checkpoint."""
    handler = partial(HubHandler, directory=str(checkpoint.parents[1]))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestHub:
    def test_download_into_the_hub_cache(self, entry, hub, state_dict, caches):
        entry = replace(entry, repo="someone/sam", revision=COMMIT, url=None)
        fractions = []
        path = locate(entry, allow_download=True, progress=lambda f, _: fractions.append(f))
        assert path == in_hub_cache(caches, "someone/sam") / entry.file
        assert_equal(read_state_dict(path, expected_sha256=entry.sha256), state_dict)
        assert fractions[0] == 0.0 and fractions[-1] == 1.0
        assert fractions == sorted(fractions)

    def test_stopping(self, entry, hub):
        def stop(fraction: float, message: str) -> None:
            if fraction > 0:
                raise Cancelled("Stopped.")

        entry = replace(entry, repo="someone/sam", revision=COMMIT)
        with pytest.raises(Cancelled):
            locate(entry, allow_download=True, progress=stop)
        assert find_local(entry) is None

    def test_the_publisher_is_asked_when_the_repository_has_no_such_file(self, entry, hub, caches):
        moved = replace(entry, repo="someone/sam", revision=COMMIT, file="gone/" + entry.file_name)
        path = locate(moved, allow_download=True)
        assert path == caches / "torch" / "checkpoints" / entry.file_name


class Payload:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code of the file was run')",))


class TestReadStateDict:
    def test_both_formats(self, checkpoint, state_dict, tmp_path):
        safe = tmp_path / "tiny.safetensors"
        save_file(state_dict, safe)
        for path in (safe, checkpoint):
            assert_equal(read_state_dict(path, expected_sha256=sha256(path)), state_dict)

    def test_the_older_format_of_torch(self, state_dict, tmp_path):
        path = tmp_path / "old.pth"
        torch.save(state_dict, path, _use_new_zipfile_serialization=False)
        assert_equal(read_state_dict(path), state_dict)

    def test_a_changed_weight_is_noticed(self, state_dict, tmp_path):
        path = tmp_path / "tiny.safetensors"
        save_file(state_dict, path)
        published = sha256(path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        read_state_dict(path)  # a valid file, if nobody compares it with the published one
        with pytest.raises(ModelUnavailable, match=r"tiny\.safetensors is not the expected one"):
            read_state_dict(path, expected_sha256=published)

    @pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.pth"])
    def test_truncated(self, name, state_dict, tmp_path):
        path = tmp_path / name
        (save_file if path.suffix == ".safetensors" else torch.save)(state_dict, path)
        for size in (0, 5, path.stat().st_size // 2, path.stat().st_size - 1):
            path.write_bytes(path.read_bytes()[:size])
            with pytest.raises(ModelUnavailable, match=name.replace(".", r"\.")):
                read_state_dict(path)

    def test_code_in_a_file_is_refused_and_not_run(self, tmp_path):
        zipped = tmp_path / "zipped.pth"
        torch.save({"weight": torch.zeros(1), "extra": Payload()}, zipped)
        plain = tmp_path / "plain.pth"
        plain.write_bytes(pickle.dumps(Payload(), protocol=2))
        for path in (zipped, plain):
            with pytest.raises(ModelUnavailable, match="holds more than tensors"):
                read_state_dict(path)

    @pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_what_a_training_puts_around_weights_is_taken_off(
        self, wrapper, prefix, state_dict, tmp_path
    ):
        content = {prefix + name: tensor for name, tensor in state_dict.items()}
        if wrapper:
            content = {"epoch": 3, "optimizer": {"lr": [0.1]}, wrapper: content}
        torch.save(content, tmp_path / "training.pth")
        assert_equal(read_state_dict(tmp_path / "training.pth"), state_dict)

    def test_a_tensor_may_be_called_model(self, tmp_path):
        content = {"model": torch.ones(1), "module.state_dict": torch.zeros(1)}
        torch.save(content, tmp_path / "odd.pth")
        assert read_state_dict(tmp_path / "odd.pth").keys() == {"model", "state_dict"}

    @pytest.mark.parametrize(
        "content",
        [
            {"weights": {"a": torch.zeros(1)}},
            {"model": {"a": [1]}},
            {"state_dict": {"model": {"a": torch.zeros(1)}}},
            [torch.zeros(1)],
            {1: 2},
        ],
    )
    def test_another_layout(self, content, tmp_path):
        path = tmp_path / "wrapped.pth"
        torch.save(content, path)
        with pytest.raises(ModelUnavailable, match=r"wrapped\.pth is no plain list"):
            read_state_dict(path)

    def test_missing(self, tmp_path):
        with pytest.raises(ModelUnavailable, match=r"none\.pth is missing"):
            read_state_dict(tmp_path / "none.pth")

    @settings(
        deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data(), suffix=st.sampled_from([".safetensors", ".pth"]))
    def test_damage_gives_weights_or_the_error_and_nothing_else(
        self, data, suffix, tmp_path, state_dict
    ):
        path = tmp_path / f"damaged{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(state_dict, path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            assert all(isinstance(t, torch.Tensor) for t in read_state_dict(path).values())
        except ModelUnavailable as error:
            assert path.name in error.message


class TestLoadWeights:
    def test_loads(self, state_dict):
        module = build()
        load_weights(module, state_dict, name="SAM ViT-X")
        assert_equal(module.state_dict(), state_dict)

    def test_every_kind_of_misfit_is_named(self, state_dict):
        wrong = dict(state_dict)
        del wrong["1.bias"], wrong["1.weight"]
        wrong["2.weight"] = torch.zeros(1)
        wrong["0.weight"] = torch.zeros(4, 3)
        module = build()
        before = {key: value.clone() for key, value in module.state_dict().items()}
        with pytest.raises(ModelUnavailable) as caught:
            load_weights(module, wrong, name="SAM ViT-X")
        message = caught.value.message
        assert "SAM ViT-X" in message
        assert "2 missing (1.bias, 1.weight)" in message
        assert "1 unexpected (2.weight)" in message
        assert "0.weight (4, 3) for (2, 3)" in message
        assert_equal(module.state_dict(), before)

    def test_long_lists_are_cut(self):
        with pytest.raises(ModelUnavailable, match=r"7 missing \(.*, .*, .* and 4 more\)"):
            load_weights(build(), {}, name="SAM")
