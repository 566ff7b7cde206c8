"""Hub references, through the real client, against a small hub on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from slipway.assets import fetch, fingerprint
from slipway.errors import AssetError

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.integration

COMMIT = "c" * 40
WEIGHTS = b"weights" * 1000
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"1/0",
}


@dataclass
class FakeHub:
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    error: str = ""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    state = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.requests.append(path)
            if state.error:
                self.answer(401, b"", {"X-Error-Code": state.error})
            elif path.startswith("/api/models/org/name/revision/"):
                siblings = [{"rfilename": name, "size": len(content)} for name, content in state.files.items()]
                answer = {"id": "org/name", "sha": COMMIT, "siblings": siblings, "tags": []}
                self.answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
            elif (name := path.removeprefix(f"/org/name/resolve/{COMMIT}/")) in state.files:
                content = state.files[name]
                etag = hashlib.sha256(content).hexdigest() if name.endswith("tensors") else git_hash(content)
                self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def test_a_model_comes_without_pickles_and_code(hub: FakeHub, tmp_path: Path) -> None:
    asset = fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)
    assert [file.name for file in asset.files] == ["config.json", "model.safetensors"]
    assert (asset.path / "model.safetensors").read_bytes() == WEIGHTS
    assert fetch(f"hub:org/name@{COMMIT}", sha256=asset.sha256, cache=tmp_path) == asset


def test_a_commit_that_is_cached_needs_no_network(hub: FakeHub, tmp_path: Path) -> None:
    fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)
    hub.requests.clear()
    fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)
    assert hub.requests == []


def test_a_branch_is_asked_for_and_its_commit_told(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch("hub:org/name@main", cache=tmp_path)
    assert f"hub:org/name@{COMMIT}" in capsys.readouterr().err


def test_a_branch_offline_is_as_last_fetched(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fetch("hub:org/name@main", cache=tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch("hub:org/name@main", cache=tmp_path) == before
    assert "can't be reached" in capsys.readouterr().err


def test_offline_and_not_cached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AssetError, match="is not cached, and the hub can't be reached") as caught:
        fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)
    assert "(Connection refused)" in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_altered_cache_file_is_named(hub: FakeHub, tmp_path: Path, name: str) -> None:
    file = fetch(f"hub:org/name@{COMMIT}", cache=tmp_path).path / name
    file.resolve().write_bytes(b"altered")
    with pytest.raises(AssetError, match=rf"\({name}\) was altered"):
        fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RepoNotFound", "does not exist as a model on the hub"),
        ("RevisionNotFound", "has no revision ccc"),
        ("GatedRepo", "is gated: accept its terms"),
    ],
)
def test_what_can_not_be_had_says_why(hub: FakeHub, tmp_path: Path, code: str, message: str) -> None:
    hub.error = code
    with pytest.raises(AssetError, match=message):
        fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)


def test_a_model_of_pickles_only_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(AssetError, match="has no safetensors weights"):
        fetch(f"hub:org/name@{COMMIT}", cache=tmp_path)
    assert not list(tmp_path.rglob("*.bin"))


def test_the_fingerprint_is_of_revision_and_pin() -> None:
    one = fingerprint("hub:org/name@main", None)
    assert one == fingerprint("hub:org/name@main", None)
    assert one != fingerprint("hub:org/name@dev", None)
    assert one != fingerprint("hub:org/name@main", "0" * 64)
