"""Artifacts from a store: what arrives is what the digest says, or nothing is there."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from slipway.artifacts import MANIFEST, Artifact, read_artifact, write_artifact
from slipway.cli import cli
from slipway.errors import ArtifactError, SlipwayError
from slipway.fetching import fetch

pytestmark = [pytest.mark.unit]


@dataclass
class Store:
    """An HTTP server of a folder; `bucket/models/reviews` in it is an artifact."""

    root: Path
    port: int
    artifact: Artifact
    authorizations: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/bucket/models/reviews"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    root = tmp_path / "store"
    with write_artifact(root / "bucket/models/reviews", "bundle", name="reviews", inputs="x") as draft:
        (draft.path / "cpu").mkdir()
        (draft.path / "cpu/model.onnx").write_bytes(bytes(range(256)) * 50_000)
        draft.write_json("标签.json", ["好", "坏"])
    artifact = read_artifact(root / "bucket/models/reviews")
    seen: list[str | None] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("authorization"))
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Store(root, server.server_address[1], artifact, seen)
        server.shutdown()


def test_an_artifact_of_another_kind_is_not_fetched_over(store: Store, tmp_path: Path) -> None:
    with write_artifact(tmp_path / "out", "checkpoint", name="reviews", inputs="x") as draft:
        (draft.path / "weights").touch()
    with pytest.raises(ArtifactError, match="is a checkpoint; a bundle will not replace it"):
        fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    assert read_artifact(tmp_path / "out").manifest.kind == "checkpoint"


def test_an_artifact_comes_whole_over_http(store: Store, tmp_path: Path) -> None:
    found = fetch(store.url, tmp_path / "out", digest=f"sha256:{store.artifact.digest}")
    assert read_artifact(tmp_path / "out", "bundle").digest == found.digest == store.artifact.digest
    assert found.json("标签.json") == ["好", "坏"]


def test_an_artifact_comes_from_a_bucket_with_the_credentials_of_the_environment(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "AWS_ENDPOINT": f"http://127.0.0.1:{store.port}",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    fetch("s3://bucket/models/reviews", tmp_path / "out", digest=store.artifact.digest)
    assert read_artifact(tmp_path / "out").digest == store.artifact.digest
    assert all(header and header.startswith("AWS4-HMAC-SHA256 Credential=someone/") for header in store.authorizations)


def test_an_artifact_comes_from_a_folder(store: Store, tmp_path: Path) -> None:
    fetch(store.artifact.path.as_uri(), tmp_path / "out", digest=store.artifact.digest)
    assert read_artifact(tmp_path / "out").digest == store.artifact.digest


def test_what_is_there_already_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    asked = len(store.authorizations)
    fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    assert len(store.authorizations) == asked


def test_a_damaged_copy_is_fetched_again(store: Store, tmp_path: Path) -> None:
    fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    (tmp_path / "out/cpu/model.onnx").write_bytes(b"half")
    fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    assert read_artifact(tmp_path / "out").digest == store.artifact.digest


def test_another_manifest_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds another artifact"):
        fetch(store.url, tmp_path / "out", digest="0" * 64)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"other", bytes(range(256)) * 50_000 + b"more"])
def test_a_changed_file_is_refused_and_nothing_stays(store: Store, content: bytes, tmp_path: Path) -> None:
    (store.artifact.path / "cpu/model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cpu/model.onnx .* is not what its manifest says"):
        fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    assert list(tmp_path.iterdir()) == [store.root]


def test_a_missing_file_is_named_and_nothing_stays(store: Store, tmp_path: Path) -> None:
    (store.artifact.path / "cpu/model.onnx").unlink()
    with pytest.raises(SlipwayError, match=r"cpu/model\.onnx can't be had"):
        fetch(store.url, tmp_path / "out", digest=store.artifact.digest)
    assert list(tmp_path.iterdir()) == [store.root]


@pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "a/../../escaped", MANIFEST])
def test_a_manifest_that_names_files_elsewhere_is_refused(store: Store, name: str, tmp_path: Path) -> None:
    manifest = store.artifact.manifest
    manifest.files[name] = manifest.files["cpu/model.onnx"]
    (store.artifact.path / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    digest = read_artifact(store.artifact.path, verify=False).digest
    with pytest.raises(ArtifactError, match="outside of the artifact"):
        fetch(store.url, tmp_path / "out", digest=digest)
    assert list(tmp_path.iterdir()) == [store.root]


@pytest.mark.parametrize("digest", ["", "sha256:", "latest", "g" * 64, "0" * 63])
def test_what_is_no_digest_is_said_to_be_none(store: Store, digest: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no digest"):
        fetch(store.url, tmp_path / "out", digest=digest)


@pytest.mark.parametrize("url", ["", "reviews", "ftp://host/x", "s3://", "http://127.0.0.1:1/x"])
def test_a_place_that_is_none_is_one_clear_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"no place|can't be had"):
        fetch(url, tmp_path / "out", digest="0" * 64)


def test_a_folder_of_somebody_elses_is_not_replaced(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="will not be replaced"):
        fetch(store.url, tmp_path / "out", digest=store.artifact.digest)


def test_the_command_fetches_and_says_what(store: Store, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["fetch", store.url, str(tmp_path / "out"), "--digest", f"sha256:{store.artifact.digest}"]
    )
    assert result.exit_code == 0, result.output
    assert read_artifact(tmp_path / "out").digest == store.artifact.digest
