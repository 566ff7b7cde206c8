"""Nothing is left behind, whoever dies first; and what can be mended is."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

import serving
from serving.protocol import inference_body
from serving.server import runtime
from serving.server.runtime import Runtime
from slipway.bundle import Bundle
from slipway.errors import ArtifactError, ServingError
from slipway.processes import marked_processes
from slipway.recipe import Auth, Serve
from tests.serving.conftest import OWNER, Owner, eventually
from tests.tiny_bundle import write_tiny_bundle

pytestmark = [pytest.mark.integration]

SUPERVISOR, TRITON, ENVOY, STUB = (
    "serving.server.supervisor",
    "bin/tritonserver",
    "_bin/envoy",
    "triton_python_backend_stub",
)

Own = Callable[..., Owner]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_owner_that_is_told_to_end_exits_with_0_and_leaves_nothing(own: Own, number: signal.Signals) -> None:
    owner = own()
    owner.process.send_signal(number)
    assert owner.process.wait(30) == 0
    assert owner.leftovers() == []


def test_a_killed_owner_leaves_nothing(own: Own) -> None:
    owner = own()
    owner.process.kill()
    assert eventually(lambda: not owner.leftovers()), owner.leftovers()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_owner_that_ends_while_starting_leaves_nothing(repository: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(repository), "{}"], stderr=subprocess.DEVNULL)
    try:
        owner = psutil.Process(process.pid)
        # Between fork and exec a child has its parent's command line.
        assert eventually(lambda: any(SUPERVISOR in child.cmdline() for child in owner.children()))
        [supervisor] = owner.children()
        directory = Path(supervisor.cmdline()[-1])
        assert eventually(lambda: marked_processes(directory.name))
    finally:
        process.send_signal(number)
        process.wait(30)
    assert eventually(lambda: not directory.exists() and not marked_processes(directory.name))


def test_when_the_supervisor_is_killed_the_owner_says_so_and_leaves_nothing(own: Own) -> None:
    owner = own()
    [victim] = owner.named(SUPERVISOR)
    victim.kill()
    _, errors = owner.process.communicate(timeout=60)
    assert owner.process.returncode == 1
    assert "the endpoint's supervisor was killed by SIGKILL" in errors
    assert owner.leftovers() == []


def test_when_owner_and_supervisor_are_killed_the_next_start_clears_what_they_left(own: Own) -> None:
    owner = own()
    [supervisor] = owner.named(SUPERVISOR)
    supervisor.suspend()
    owner.process.kill()
    supervisor.kill()
    # Triton is dead before they are: an owner has a lot of memory to give back, and holds its lock meanwhile.
    owner.process.wait()
    assert eventually(lambda: not owner.named(SUPERVISOR))
    assert eventually(lambda: not owner.named(TRITON) and not owner.named(ENVOY))
    assert owner.runtime.exists()
    following = Runtime.create()
    try:
        assert owner.leftovers() == []
    finally:
        following.sweep()
        following.release()


def test_a_runtime_directory_in_use_is_not_swept_by_another_start() -> None:
    first, second = Runtime.create(), Runtime.create()
    try:
        assert first.path.exists()
    finally:
        for one in (first, second):
            one.sweep()
            one.release()


def test_what_an_owner_left_that_was_still_dying_is_swept_when_its_lock_is_gone() -> None:
    dying, following = Runtime.create(), Runtime.create()
    try:
        dying.release()
        runtime.sweep_abandoned()
        assert not dying.path.exists()
        assert following.path.exists()
    finally:
        following.sweep()
        following.release()


def test_directories_that_dead_servers_left_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.time() - 1000
    processes = [
        {"name": "tritonserver", "create_time": started, "status": psutil.STATUS_SLEEPING},
        {"name": "tritonserver", "create_time": started - 5000, "status": psutil.STATUS_ZOMBIE},
        {"name": "python", "create_time": started - 5000, "status": psutil.STATUS_RUNNING},
    ]
    monkeypatch.setattr(psutil, "process_iter", lambda *_: [SimpleNamespace(info=each) for each in processes])
    monkeypatch.setattr(runtime, "marked_processes", lambda _: [])
    monkeypatch.setattr(runtime, "ENVIRONMENTS", tmp_path)
    for name, made in {"dead01": started - 1000, "in_use": started - 1000, "living": started + 100}.items():
        directory = tmp_path / f"python_env_{name}"
        directory.mkdir()
        if name == "in_use":
            (directory / "file").touch()
        os.utime(directory, (made, made))
    one = Runtime.create()
    one.sweep()
    one.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["python_env_in_use", "python_env_living"]


def test_a_base_directory_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.tempfile, "gettempdir", lambda: "/tmp/x")  # noqa: S108
    monkeypatch.setattr(runtime, "Path", lambda _: tmp_path)
    planted = tmp_path / f"slipway-{runtime.os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(ServingError, match="only you can enter"):
        Runtime.create()


def test_dead_model_processes_make_health_fail_until_the_model_is_loaded_again(own: Own) -> None:
    owner = own()
    health = f"http://{owner.address}/healthz"
    assert httpx.get(health).status_code == 200
    [supervisor] = owner.named(SUPERVISOR)
    supervisor.suspend()
    for stub in owner.named(STUB):
        stub.kill()
    assert eventually(lambda: httpx.get(health).status_code == 503)
    assert httpx.get(f"http://{owner.address}/v2/health/live").status_code == 503
    for protocol in ("grpc", "http"):
        with (
            serving.Client(owner.address, "tiny", protocol) as client,
            pytest.raises(serving.EndpointUnavailableError, match="not available"),
        ):
            client.classify(["good"])
    supervisor.resume()
    assert eventually(lambda: httpx.get(health).status_code == 200)
    with serving.Client(owner.address, "tiny") as client:
        assert client.classify(["good"])[0].label == "positive"
    owner.process.send_signal(signal.SIGINT)
    _, errors = owner.process.communicate(timeout=30)
    assert "2 of 2 model processes died; the model was loaded again" in errors


@pytest.mark.slow
def test_a_model_that_hangs_is_a_504_and_is_replaced(own: Own) -> None:
    owner = own(timeout_s=0.5)
    for stub in owner.named(STUB):
        stub.suspend()
    url = f"http://{owner.address}/v2/models/tiny/infer"
    answer = httpx.post(url, json=inference_body("good"), timeout=30)
    assert answer.status_code == 504
    assert answer.json()["error"].startswith("no answer within 0.5 s")
    assert eventually(lambda: httpx.post(url, json=inference_body("good"), timeout=30).status_code == 200)


def test_what_was_accepted_is_answered_before_the_end(own: Own) -> None:
    owner = own()
    [triton] = owner.named(TRITON)
    triton.suspend()
    url = f"http://{owner.address}/v2/models/tiny/infer"
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.post, url, json=inference_body("good"), timeout=30)
        assert eventually(lambda: owner.active_requests() == 1)
        owner.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not is_accepting(owner.address))
        triton.resume()
        assert answer.result().status_code == 200
    assert owner.process.wait(30) == 0


def is_accepting(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def test_a_port_in_use_is_refused_in_one_line_before_anything_starts(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        with pytest.raises(ServingError, match=f"port {port} on 127.0.0.1 is in use") as caught:
            serving.start(repository, Serve(port=port))
        assert "\n" not in str(caught.value)
        assert {process.pid for process in psutil.Process().children(recursive=True)} == before


def test_a_repository_with_an_altered_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    written = serving.write_repository(bundle, tmp_path / "repository", Serve())
    tokenizer = written.path / "models" / "tiny" / "1" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("good", "goof"))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json has changed"):
        serving.start(written.path, Serve(port=0))


def test_an_altered_bundle_is_refused(tmp_path: Path) -> None:
    altered = write_tiny_bundle(tmp_path / "bundle")
    model = altered.path / "cpu" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"model\.onnx has changed"):
        serving.serve(altered.path, Serve(port=0, auth=Auth(keyless="loopback")))
    assert not (tmp_path / "repository").exists()


def test_a_served_repository_is_left_as_it_was(endpoint: serving.Endpoint, repository: Path) -> None:
    serving.Repository.open(repository)


def test_serve_prints_a_curl_line_that_works_as_pasted_and_ends_with_0(bundle: Bundle) -> None:
    code = (
        "import sys; from pathlib import Path; import serving; from slipway.recipe import Auth, Serve;"
        "section = Serve(port=0, instances=1, auth=Auth(keyless='loopback'));"
        "sys.exit(serving.serve(Path(sys.argv[1]), section))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(bundle.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        answer = subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout  # noqa: S602
        assert '"positive"' in answer
        assert '"score"' in answer
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
