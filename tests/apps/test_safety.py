"""What a public demo must not do: hand out files, fetch addresses, take anything as a picture."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


def upload(http, name: str, data: bytes) -> httpx.Response:
    return http.post("gradio_api/upload", files={"files": (name, data)})


def call(http, api_name: str, *data) -> str:
    """The events that an endpoint sends, by plain HTTP."""
    event = http.post(f"gradio_api/call/{api_name}", json={"data": list(data)}).json()["event_id"]
    return http.get(f"gradio_api/call/{api_name}/{event}").text


def test_the_installed_gradio_has_its_known_holes_closed():
    version = tuple(int(part) for part in importlib.metadata.version("gradio").split(".")[:2])
    assert version >= (6, 20)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "core/settings.py",
        str(ROOT / "README.md"),
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "http://127.0.0.1:9/",
    ],
)
def test_no_file_of_the_server_is_handed_out(http, path):
    answer = http.get(f"gradio_api/file={path}")
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(ROOT / "assets/examples/cat.jpg"), "http://127.0.0.1:9/x.png"]
)
def test_a_path_that_was_not_uploaded_is_no_picture(http, path):
    picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
    events = call(http, "segment_sam", picture, [[1, 1, 1]], [], True, "embedded")
    assert "event: error" in events and "event: complete" not in events
    assert "root:" not in events


def test_too_large_an_upload_is_refused(http):
    answer = upload(http, "large.png", bytes(51 * 2**20))
    assert answer.status_code == 413


@pytest.mark.parametrize("name", ["a.svg", "a.html"])
def test_uploaded_markup_comes_back_as_an_attachment(http, name):
    (path,) = upload(http, name, b"<svg onload='alert(1)'/>").json()
    answer = http.get(f"gradio_api/file={path}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("name", ["../../../evil.png", "..\\evil.png", "/etc/evil.png"])
def test_uploads_stay_in_their_folder(http, server, name):
    (path,) = upload(http, name, b"x").json()
    assert Path(path).resolve().is_relative_to(server.folder)


def test_script_in_an_error_comes_back_as_text(http, square_picture):
    (path,) = upload(http, "square.png", square_picture.read_bytes()).json()
    picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
    events = call(
        http, "segment_sam", picture, [[1, 1, 1]], [], True, "<img src=x onerror=alert(1)>"
    )
    assert "event: error" in events
    assert "<img" not in events and "&lt;img" in events


def test_endpoints_of_the_page_are_not_announced(http):
    config = http.get("config").json()
    public = {
        dependency["api_name"]
        for dependency in config["dependencies"]
        if dependency["api_visibility"] == "public"
    }
    assert public == {
        "segment_sam",
        "segment_everything",
        "segment_words",
        "propose_objects",
        "segment_edges",
        "segment_persam",
        "learn_persam",
        "follow_persam",
        "segment_robustsam",
        "segment_text",
        "chat_segment",
        "dreambooth_train",
        "dreambooth_sample",
        "list_models",
        "health",
    }


def test_nothing_is_watched_and_nothing_refers_to_the_outside(http):
    assert http.get("monitoring").status_code in (403, 404)
    config = http.get("config").json()
    assert config["analytics_enabled"] is False
    texts = json.dumps([part["props"] for part in config["components"]])
    assert "googleapis" not in texts and "cdn." not in texts


def test_another_site_cannot_use_a_local_server(http):
    answer = http.post(
        "gradio_api/call/health", json={"data": []}, headers={"origin": "https://evil.example"}
    )
    allowed = answer.headers.get("access-control-allow-origin", "")
    assert "evil" not in allowed and allowed != "*"
