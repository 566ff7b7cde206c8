"""Assets against a real server on this machine: resumed, verified, offline, and safe from what is inside."""

import errno
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from slipway.assets import cache_root, fetch, fingerprint, index
from slipway.assets.hub import wanted_files
from slipway.errors import AssetError

unit = pytest.mark.unit
integration = pytest.mark.integration


@dataclass
class FakeIndex:
    """A package index that serves `files`, and misbehaves as told."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    advertised: dict[str, str] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    """The next answers end after so many bytes."""
    statuses: list[int] = field(default_factory=list)
    """The next answers for a file have this status."""
    ignores_range: bool = False
    speaks_json: bool = True
    ranges: list[str | None] = field(default_factory=list)

    def publish(self, filename: str, content: bytes) -> str:
        self.files[filename] = content
        self.advertised[filename] = hashlib.sha256(content).hexdigest()
        return self.advertised[filename]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    state = FakeIndex()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/simple/reviews/":
                self.list_files()
            elif (name := self.path.removeprefix("/files/")) in state.files:
                self.send_file(state.files[name])
            else:
                self.answer(404, b"")

        def list_files(self) -> None:
            if state.speaks_json:
                files = [
                    {
                        "filename": name,
                        "url": f"../../files/{name}",
                        "hashes": {"sha256": digest},
                        "size": len(state.files[name]),
                    }
                    for name, digest in state.advertised.items()
                ]
                page = json.dumps({"meta": {"api-version": "1.1"}, "name": "reviews", "files": files}).encode()
                self.answer(200, page, {"Content-Type": "application/vnd.pypi.simple.v1+json"})
            else:
                links = [f'<a href="/files/{n}#sha256={digest}">{n}</a>' for n, digest in state.advertised.items()]
                self.answer(200, "<br>".join(links).encode(), {"Content-Type": "text/html"})

        def send_file(self, content: bytes) -> None:
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            if state.statuses:
                self.answer(state.statuses.pop(0), b"")
            elif wanted and not state.ignores_range:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                place = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.answer(206, content[start:], {"Content-Range": place})
            else:
                self.answer(200, content)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.path.startswith("/files/") and state.cut_after and status in (200, 206):
                self.wfile.write(body[: state.cut_after.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.setenv("PIP_INDEX_URL", f"{state.url}/simple")
    monkeypatch.setattr(index, "between_tries", wait_none())
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_index" not in request.node.name:
        monkeypatch.setenv("SLIPWAY_CACHE", str(tmp_path / "cache"))


def tar(members: dict[str, bytes], suffix: str = "gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{suffix}") as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ROWS = b"text\tlabel\n" + os.urandom(300_000)
SDIST = tar(
    {
        "reviews-1.0/setup.py": b"raise SystemExit",
        "reviews-1.0/data/rows.tsv": ROWS,
        "reviews-1.0/data/b.txt": b"b",
    }
)
REFERENCE = "pypi:reviews==1.0/data/rows.tsv"


@pytest.fixture
def sha256(server: FakeIndex) -> str:
    return server.publish("reviews-1.0.tar.gz", SDIST)


def cached(pattern: str) -> Path:
    (found,) = (file for file in cache_root().rglob(pattern) if file.is_file())
    return found


class TestPackages:
    pytestmark = integration

    def test_a_file_in_an_sdist_is_fetched_by_its_digest(self, server: FakeIndex, sha256: str) -> None:
        server.publish("reviews-1.0-py3-none-any.whl", zipped({"data/rows.tsv": b"of the wheel"}))
        asset = fetch(REFERENCE, sha256=sha256)
        assert asset.path.read_bytes() == ROWS
        assert asset.files == (asset.path,)
        assert asset.sha256 == sha256

    def test_a_wheel_has_no_implied_folder(self, server: FakeIndex) -> None:
        digest = server.publish("reviews-1.0-py3-none-any.whl", zipped({"data/rows.tsv": b"of the wheel"}))
        assert fetch(REFERENCE, sha256=digest).path.read_bytes() == b"of the wheel"

    def test_a_folder(self, sha256: str) -> None:
        asset = fetch("pypi:reviews==1.0/data", sha256=sha256)
        assert [file.name for file in asset.files] == ["b.txt", "rows.tsv"]
        assert asset.path.name == "data"

    def test_a_pattern(self, sha256: str) -> None:
        asset = fetch("pypi:reviews==1.0/data/*.txt", sha256=sha256)
        assert [file.name for file in asset.files] == ["b.txt"]
        assert asset.path.is_dir()

    @pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
    def test_a_pattern_in_an_archive_in_an_archive(self, server: FakeIndex, suffix: str) -> None:
        inner = tar({"set/x_truth.txt": b"1", "set/y_truth.txt": b"2", "set/readme": b""}, suffix)
        digest = server.publish("reviews-1.0.zip", zipped({f"reviews-1.0/more/set.tar.{suffix}": inner}))
        asset = fetch(f"pypi:reviews==1.0/more/set.tar.{suffix}/set/*_truth.txt", sha256=digest)
        assert [file.read_bytes() for file in asset.files] == [b"1", b"2"]

    def test_an_index_that_only_speaks_html_will_do(self, server: FakeIndex, sha256: str) -> None:
        server.speaks_json = False
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS

    def test_what_is_cached_needs_no_network(self, sha256: str, monkeypatch: pytest.MonkeyPatch) -> None:
        fetch(REFERENCE, sha256=sha256)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS
        assert fetch("pypi:reviews==1.0/data/b.txt", sha256=sha256).path.read_bytes() == b"b"

    def test_offline_and_not_cached_says_what_to_do(self, sha256: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
        with pytest.raises(AssetError, match=r"not in the cache .* can't be reached .*SLIPWAY_CACHE") as caught:
            fetch(REFERENCE, sha256=sha256)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.usefixtures("server")
    def test_an_unknown_package(self) -> None:
        with pytest.raises(AssetError, match="there is no package revues on http"):
            fetch("pypi:revues==1.0/data", sha256="0" * 64)

    @pytest.mark.usefixtures("sha256")
    def test_an_unknown_version_is_told_those_there_are(self) -> None:
        with pytest.raises(AssetError, match=r"reviews==2.0 does not exist .* versions there: 1.0"):
            fetch("pypi:reviews==2.0/data", sha256="0" * 64)

    def test_a_digest_of_no_file_is_told_the_files_there_are(self, sha256: str) -> None:
        with pytest.raises(AssetError, match=rf"reviews-1.0.tar.gz \({sha256}\)"):
            fetch(REFERENCE, sha256="0" * 64)

    def test_a_digest_of_another_version(self, server: FakeIndex, sha256: str) -> None:
        server.publish("reviews-2.0.tar.gz", b"")
        with pytest.raises(AssetError, match=r"is of reviews-1.0.tar.gz, which is not version 2.0"):
            fetch("pypi:reviews==2.0/data", sha256=sha256)

    def test_a_path_that_is_not_inside_is_told_the_nearest(self, sha256: str) -> None:
        with pytest.raises(AssetError, match=r"holds no data/row.tsv; the nearest names are data/rows.tsv"):
            fetch("pypi:reviews==1.0/data/row.tsv", sha256=sha256)
        assert not list(cache_root().rglob(".tmp-*"))

    def test_no_digest_is_refused(self) -> None:
        with pytest.raises(AssetError, match="needs a sha256"):
            fetch(REFERENCE)


class TestDownloads:
    pytestmark = integration

    def test_a_broken_connection_is_resumed_where_it_ended(self, server: FakeIndex, sha256: str) -> None:
        server.cut_after = [1000, 5000]
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS
        assert server.ranges == [None, "bytes=1000-", "bytes=6000-"]

    def test_another_process_resumes(self, server: FakeIndex, sha256: str) -> None:
        server.cut_after = [1000, 0, 0, 0]
        with pytest.raises(AssetError, match="can't be reached"):
            fetch(REFERENCE, sha256=sha256)
        code = "import sys; from slipway.assets import fetch; fetch(sys.argv[1], sha256=sys.argv[2])"
        subprocess.run([sys.executable, "-c", code, REFERENCE, sha256], check=True)
        assert server.ranges[-1] == "bytes=1000-"

    def test_a_server_that_ignores_ranges_starts_over(self, server: FakeIndex, sha256: str) -> None:
        server.cut_after, server.ignores_range = [1000], True
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS

    @pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(SDIST), b"x" * (len(SDIST) + 1)])
    def test_a_rest_of_something_else_is_not_kept(self, sha256: str, left: bytes) -> None:
        folder = cache_root() / "pypi" / "reviews-1.0" / sha256
        folder.mkdir(parents=True)
        (folder / "reviews-1.0.tar.gz.part").write_bytes(left)
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS

    def test_a_busy_server_is_asked_again(self, server: FakeIndex, sha256: str) -> None:
        server.statuses = [503, 429]
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS

    def test_a_refusal_is_not_repeated(self, server: FakeIndex, sha256: str) -> None:
        server.statuses = [403]
        with pytest.raises(AssetError, match=r"answered 403 when asked for reviews-1.0.tar.gz"):
            fetch(REFERENCE, sha256=sha256)
        assert len(server.ranges) == 1

    def test_a_wrong_content_is_named_and_removed(self, server: FakeIndex, sha256: str) -> None:
        server.files["reviews-1.0.tar.gz"] = other = SDIST[::-1]
        with pytest.raises(AssetError, match=rf"expected {sha256}, found {hashlib.sha256(other).hexdigest()}"):
            fetch(REFERENCE, sha256=sha256)
        assert not [file for file in cache_root().rglob("reviews*") if file.is_file()]

    def test_two_processes_at_once_both_get_it(self, server: FakeIndex, sha256: str) -> None:
        code = "import sys; from slipway.assets import fetch; print(fetch(sys.argv[1], sha256=sys.argv[2]).path)"
        command = [sys.executable, "-c", code, REFERENCE, sha256]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        paths = {process.communicate()[0].strip() for process in both}
        assert [process.returncode for process in both] == [0, 0]
        assert Path(paths.pop()).read_bytes() == ROWS
        assert not paths
        assert len(server.ranges) == 1

    def test_a_full_disk_stays_an_os_error_and_leaves_nothing_extracted(
        self, sha256: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("slipway.assets.archives._write", full)
            with pytest.raises(OSError, match="No space left"):
                fetch(REFERENCE, sha256=sha256)
        assert not list(cache_root().rglob("extracted/*"))
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS


class TestAlteredCache:
    pytestmark = integration

    def test_an_altered_extracted_file_is_named(self, sha256: str) -> None:
        file = fetch(REFERENCE, sha256=sha256).path
        file.write_bytes(ROWS[:-1] + b"!")
        with pytest.raises(AssetError, match=r"rows.tsv was altered: its sha256 is .* rm -r") as caught:
            fetch(REFERENCE, sha256=sha256)
        assert str(file) in str(caught.value)

    def test_an_altered_archive_is_named(self, sha256: str) -> None:
        fetch(REFERENCE, sha256=sha256)
        archive = cached("*.tar.gz")
        archive.write_bytes(SDIST + b"!")
        with pytest.raises(AssetError, match=rf"altered: its sha256 is .*, not the pinned {sha256}") as caught:
            fetch(REFERENCE, sha256=sha256)
        assert f"rm '{archive}'" in str(caught.value)

    @pytest.mark.parametrize("pattern", ["rows.tsv", "*.tar.gz", "record.json"])
    def test_the_command_in_the_message_mends_it(self, sha256: str, pattern: str) -> None:
        fetch(REFERENCE, sha256=sha256)
        cached(pattern).write_bytes(b"altered")
        with pytest.raises(AssetError) as caught:
            fetch(REFERENCE, sha256=sha256)
        subprocess.run(shlex.split(str(caught.value).rpartition("again: ")[2]), check=True)
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS

    def test_a_missing_extracted_file_is_made_again_and_said(
        self, sha256: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fetch(REFERENCE, sha256=sha256).path.unlink()
        assert fetch(REFERENCE, sha256=sha256).path.read_bytes() == ROWS
        assert "extracting pypi:reviews==1.0/data/rows.tsv again" in capsys.readouterr().err

    def test_an_added_file_is_named(self, sha256: str) -> None:
        folder = fetch("pypi:reviews==1.0/data", sha256=sha256).path
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        with pytest.raises(AssetError, match=r"pytorch_model.bin was added"):
            fetch("pypi:reviews==1.0/data", sha256=sha256)

    def test_an_altered_record_is_named(self, sha256: str) -> None:
        fetch(REFERENCE, sha256=sha256)
        cached("record.json").write_text("{", encoding="utf-8")
        with pytest.raises(AssetError, match=r"record.json was altered"):
            fetch(REFERENCE, sha256=sha256)


class TestUnsafeArchives:
    pytestmark = integration

    @pytest.mark.parametrize("name", ["data/../../../evil", "/evil", "data/..\\evil"])
    @pytest.mark.parametrize("make", [tar, zipped])
    def test_a_name_that_leads_outside_is_refused(
        self, server: FakeIndex, tmp_path: Path, name: str, make: Any
    ) -> None:
        digest = server.publish(
            "reviews-1.0.zip" if make is zipped else "reviews-1.0.tar.gz", make({"data/a": b"", name: b"x"})
        )
        with pytest.raises(AssetError, match="names a file outside of itself"):
            fetch("pypi:reviews==1.0/data", sha256=digest)
        assert not list(tmp_path.rglob("*evil*"))

    def test_a_link_is_refused(self, server: FakeIndex) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            link = tarfile.TarInfo("data/passwords")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        digest = server.publish("reviews-1.0.tar.gz", buffer.getvalue())
        with pytest.raises(AssetError, match="as a link or a device"):
            fetch("pypi:reviews==1.0/passwords", sha256=digest)

    def test_a_bomb_is_refused_before_it_unpacks(self, server: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("slipway.assets.archives.MAX_BYTES", 1 << 20)
        digest = server.publish("reviews-1.0.tar.gz", tar({"data/zeros": bytes(2 << 20)}))
        with pytest.raises(AssetError, match="like a bomb"):
            fetch("pypi:reviews==1.0/zeros", sha256=digest)

    @pytest.mark.parametrize("content", [b"not an archive", SDIST[:1000]])
    def test_a_broken_archive_is_named(self, server: FakeIndex, content: bytes) -> None:
        digest = server.publish("reviews-1.0.tar.gz", content)
        with pytest.raises(AssetError, match=r"reviews-1.0.tar.gz can't be read as an archive"):
            fetch(REFERENCE, sha256=digest)


class TestFiles:
    pytestmark = unit

    def test_a_file_has_the_digest_that_sha256sum_prints(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_bytes(b"hello")
        asset = fetch(f"file:{tmp_path}/rows.csv")
        assert asset.sha256 == hashlib.sha256(b"hello").hexdigest() == fingerprint(f"file:{tmp_path}/rows.csv", None)

    def test_a_folder_has_one_that_does_not_depend_on_where_it_is(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name / "deep").mkdir(parents=True)
            (tmp_path / name / "deep" / "a.csv").write_bytes(b"a")
            (tmp_path / name / ".git").mkdir()
            (tmp_path / name / ".git" / "index").write_text(name, encoding="utf-8")
        assert fetch(f"file:{tmp_path}/one").sha256 == fetch(f"file:{tmp_path}/two").sha256

    def test_a_pattern_takes_what_matches_in_order(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv", "c.txt", ".hidden.csv"):
            (tmp_path / name).write_bytes(b"")
        assert [file.name for file in fetch(f"file:{tmp_path}/*.csv").files] == ["a.csv", "b.csv"]

    def test_a_changed_file_is_not_its_pin(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_bytes(b"hello")
        with pytest.raises(AssetError, match=r"rows.csv is not what its sha256 says: expected 000.*, found 2cf24"):
            fetch(f"file:{tmp_path}/rows.csv", sha256="0" * 64)

    def test_a_missing_file_is_told_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "reviews.csv").write_bytes(b"")
        with pytest.raises(AssetError, match=r"review.csv does not exist .*nearest name is reviews.csv"):
            fetch(f"file:{tmp_path}/review.csv")

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(AssetError, match="the folder is empty"):
            fetch(f"file:{tmp_path}")

    def test_the_fingerprint_of_a_file_changes_with_it(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.csv"
        file.write_bytes(b"1")
        before = fingerprint(f"file:{file}", None)
        file.write_bytes(b"2")
        assert fingerprint(f"file:{file}", None) != before

    def test_the_fingerprint_of_a_package_needs_no_network(self) -> None:
        one = fingerprint("pypi:reviews==1.0/a", "1" * 64)
        assert one == fingerprint("pypi:reviews==1.0/a", "1" * 64)
        assert (
            len(
                {
                    one,
                    fingerprint("pypi:reviews==1.0/b", "1" * 64),
                    fingerprint("pypi:reviews==1.0/a", "2" * 64),
                }
            )
            == 3
        )

    def test_a_reference_of_no_form_is_refused(self) -> None:
        with pytest.raises(AssetError, match="is not a reference"):
            fetch("http://example.com/rows.csv")


@unit
def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("SLIPWAY_CACHE")
    assert cache_root() == tmp_path / "xdg" / "slipway"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "slipway"


@unit
def test_a_cache_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(AssetError, match=r"the cache can't be written: .*Set SLIPWAY_CACHE"):
        fetch(REFERENCE, sha256="0" * 64)


@unit
def test_a_cache_where_no_folder_can_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_CACHE", "/proc/nowhere")
    with pytest.raises(AssetError, match=r"the cache can't be written: .*Set SLIPWAY_CACHE"):
        fetch(REFERENCE, sha256="0" * 64)


@unit
def test_of_a_hub_model_one_copy_of_the_weights_is_fetched_and_no_code() -> None:
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    same_weights = ["model.fp16.safetensors", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx"]
    others = ["onnx/config.json", "modeling_own.py", "training_args.bin", ".gitattributes"]
    assert wanted_files(wanted + same_weights + others, "model") == wanted


@integration
def test_the_default_data_comes_from_the_real_index() -> None:
    asset = fetch(
        "pypi:vaderSentiment==2.5/additional_resources/hutto_ICWSM_2014.tar.gz/hutto_ICWSM_2014/*_GroundTruth.txt",
        sha256="b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
        kind="dataset",
    )
    assert len(asset.files) == 4
    assert sum(file.read_bytes().count(b"\n") for file in asset.files) >= 23_000
