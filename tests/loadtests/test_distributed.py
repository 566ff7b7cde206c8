"""Workers on other machines: here processes that were started apart and share nothing with the master but a port."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import loadtests
from loadtests import Elsewhere
from loadtests.measured import of_file
from loadtests.plan import draw_plan
from loadtests.samples import STARTED, read_samples
from slipway.artifacts import Artifact
from slipway.bundle import Bundle
from slipway.cli import main
from slipway.errors import InvalidRunError, LoadTestError
from slipway.recipe import LoadTest
from slipway.verdict import Verdict
from tests.loadtests.conftest import WriteTexts
from tests.loadtests.fake_endpoint import fake_endpoint

pytestmark = pytest.mark.integration

# The lag is for `test_slo` to judge; a busy test machine must not.
ANY_LAG = 1e9

Workers = list[subprocess.Popen[str]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with fake_endpoint() as address:
        yield address


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@contextlib.contextmanager
def workers(count: int, port: int, *options: str, environment: dict[str, str] | None = None) -> Iterator[Workers]:
    """Processes of `slipway loadtest worker`, in a folder without anything."""
    command = [sys.executable, "-m", "slipway", "loadtest", "worker", "--master", f"127.0.0.1:{port}", *options]
    with contextlib.ExitStack() as running:
        started = []
        for _ in range(count):
            process = subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}), cwd="/"
            )
            running.callback(_end, process)
            started.append(process)
        yield started


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def elsewhere(port: int, wait_s: float = 90.0) -> Elsewhere:
    return Elsewhere("127.0.0.1", port, wait_s)


def section(rate: float = 80.0, duration_s: float = 2.0, **more: object) -> LoadTest:
    values = {"rate": rate, "duration_s": duration_s, "warmup_s": 0.5, "workers": 2, "max_dispatch_lag_ms": ANY_LAG}
    return LoadTest.model_validate(values | more)


def run(*arguments: Any, **options: Any) -> Artifact:
    return loadtests.run(*arguments, page=False, **options)


def verdict_of(artifact: Artifact) -> Verdict:
    return Verdict.model_validate(artifact.json("verdict.json"))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what was said; the process ends by itself."""
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_each_request_of_the_plan_is_sent_once_and_its_sample_comes_back(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    load = section(rate=150.0, slo={"error_rate": 0.0})
    plan = draw_plan(load, 1000)
    texts = [f"text {number}" for number in range(1000)]
    # More texts than requests, so that no text is sent twice by the plan.
    assert len(plan) < len(texts)
    log = tmp_path / "log"
    with fake_endpoint(log=log) as address, workers(2, port, "--once") as started:
        artifact = run(bundle, address, load, tmp_path / "verdict", texts=write_texts(texts), elsewhere=elsewhere(port))
        assert [ended(process)[0] for process in started] == [0, 0]
    samples = read_samples(artifact.path / "samples.parquet")
    np.testing.assert_allclose(samples["scheduled_s"], plan.scheduled_s, rtol=0, atol=0)
    np.testing.assert_array_equal(samples["text_index"], plan.text_index)
    asked = Counter(json.loads(line) for line in log.read_text().splitlines())
    # Beside the plan each worker asks once over each protocol, before the load.
    asked -= Counter({texts[0]: 4})
    assert asked == Counter(texts[index] for index in plan.text_index)
    verdict = verdict_of(artifact)
    assert verdict.outcome == "met", verdict.reason
    assert verdict.workers == 2
    measured = samples.filter(pa.compute.invert(samples["warmup"]))["latency_ms"].to_numpy()
    assert verdict.latency.p99 == pytest.approx(np.percentile(measured, 99))
    generators = of_file(artifact.path / "samples.parquet").generators
    assert [generator.host for generator in generators] == [socket.gethostname()] * 2
    # Processes of one machine have one clock.
    assert {generator.start_error_ms for generator in generators} == {0.0}
    assert float(samples.schema.metadata[STARTED.encode()]) > 0


@pytest.mark.slow
def test_percentiles_are_those_of_workers_of_this_machine(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    # Service times that leave a busy machine's own delays far behind.
    # One in five is slow, so that no percentile below is at the step between the two.
    texts = write_texts([f"!after {600 if number % 5 == 0 else 200} {number}" for number in range(100)])
    load = section(rate=60.0, duration_s=3.0)
    here = run(bundle, address, load, tmp_path / "here", texts=texts)
    with workers(2, port, "--once"):
        there = run(bundle, address, load, tmp_path / "there", texts=texts, elsewhere=elsewhere(port))
    columns = ["scheduled_s", "protocol", "text_index", "texts", "outcome", "version", "warmup"]
    samples = [pq.read_table(artifact.path / "samples.parquet", columns=columns) for artifact in (here, there)]
    assert samples[0].equals(samples[1])
    for name in ("p50", "p90", "p99", "mean"):
        figures = [getattr(verdict_of(artifact).latency, name) for artifact in (here, there)]
        assert figures[1] == pytest.approx(figures[0], rel=0.15), name


def test_a_recording_goes_to_the_workers_and_so_does_the_key_that_they_need(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = np.sort(np.random.default_rng(0).uniform(0, 2, 120))
    (tmp_path / "recording.csv").write_text("time\n" + "\n".join(map(repr, times.tolist())))
    load = section(
        arrivals={"process": "replay", "source": f"file:{tmp_path / 'recording.csv'}"},
        credentials={"environment": "ENDPOINT_KEY"},
    )
    monkeypatch.setenv("ENDPOINT_KEY", "s3cret")
    texts = write_texts(["fine"])
    with fake_endpoint(api_key="s3cret") as address, workers(2, port, "--once"):
        artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts, elsewhere=elsewhere(port))
    assert verdict_of(artifact).failures == {}
    samples = pq.read_table(artifact.path / "samples.parquet")
    np.testing.assert_allclose(samples["scheduled_s"], times - times[0] - 0.5)


def test_a_worker_without_the_key_ends_the_run_and_says_where(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = section(workers=1, credentials={"environment": "ENDPOINT_KEY"})
    with workers(1, port, "--once") as (process,):
        monkeypatch.setenv("ENDPOINT_KEY", "s3cret")
        with pytest.raises(LoadTestError, match=r"The worker on .*: .*has no variable ENDPOINT_KEY"):
            run(bundle, address, load, tmp_path / "verdict", texts=write_texts(["fine"]), elsewhere=elsewhere(port))
        code, said = ended(process)
    assert code == 1
    assert "ENDPOINT_KEY" in said
    assert not (tmp_path / "verdict").exists()


def test_a_worker_sends_to_another_machine_only_if_its_own_side_allows_it(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    with (
        workers(1, port, "--once"),
        pytest.raises(LoadTestError, match=r"The worker on .*: 192\.0\.2\.1:8080 is 192\.0\.2\.1, not this machine"),
    ):
        run(
            bundle,
            "192.0.2.1:8080",
            section(workers=1),
            tmp_path / "verdict",
            texts=write_texts(["fine"]),
            allow_remote=True,
            elsewhere=elsewhere(port),
        )


def test_workers_that_do_not_come_are_counted(bundle: Bundle, address: str, tmp_path: Path, port: int) -> None:
    with pytest.raises(LoadTestError, match=r"Only 0 of 2 workers came within 1 s\. Start each.*worker --master"):
        run(bundle, address, section(), tmp_path / "verdict", elsewhere=elsewhere(port, wait_s=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ending", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_worker_that_is_lost_under_load_makes_the_run_invalid(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, port: int, ending: signal.Signals
) -> None:
    load = section(duration_s=120.0)
    with workers(2, port, "--once") as started:
        struck: list[signal.Signals] = []

        def strike(report: dict[str, Any]) -> None:
            if report["zero_s"] is not None and report["elapsed_s"] > 1 and not struck:
                struck.append(ending)
                started[0].send_signal(ending)

        with pytest.raises(InvalidRunError, match=r"1 of 2 workers \(.+\) were lost while the load ran"):
            run(
                bundle,
                address,
                load,
                tmp_path / "verdict",
                texts=write_texts(["fine"]),
                elsewhere=elsewhere(port),
                progressed=strike,
            )
        # The other one sends no more: nobody would read what it measures.
        code, said = ended(started[1])
        assert code == 1
        assert "were lost while the load ran" in said
    assert list(tmp_path.iterdir()) == [tmp_path / "texts.parquet"]


@pytest.mark.slow
def test_a_worker_of_this_machine_that_is_lost_makes_the_run_invalid_too(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    killed: list[int] = []

    def strike(report: dict[str, Any]) -> None:
        if report["zero_s"] is not None and not killed:
            killed.append(report["pid"])
            os.kill(report["pid"], signal.SIGKILL)

    with pytest.raises(InvalidRunError, match=r"1 of 2 workers \(.+\) were lost while the load ran"):
        run(
            bundle,
            address,
            section(duration_s=120.0),
            tmp_path / "verdict",
            texts=write_texts(["fine"]),
            progressed=strike,
        )


def test_an_interrupted_master_lets_its_workers_go(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    class StoppedError(Exception):
        pass

    def stop(report: dict[str, Any]) -> None:
        if report["zero_s"] is not None:
            raise StoppedError

    with workers(2, port, "--once") as started:
        with pytest.raises(StoppedError):
            run(
                bundle,
                address,
                section(duration_s=120.0),
                tmp_path / "verdict",
                texts=write_texts(["fine"]),
                elsewhere=elsewhere(port),
                progressed=stop,
            )
        for process in started:
            code, said = ended(process)
            assert code == 1
            assert "The master went away" in said


@pytest.mark.slow
def test_the_same_workers_serve_one_master_after_the_other_and_end_when_none_calls(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    texts = write_texts(["fine", "very fine"])
    # One more than is needed: it has to wait, and takes nothing from the others.
    with workers(3, port, "--wait", "15") as started:
        for number in range(2):
            load = section(rate=40.0, duration_s=1.0, seed=number)
            artifact = run(bundle, address, load, tmp_path / str(number), texts=texts, elsewhere=elsewhere(port))
            np.testing.assert_array_equal(
                pq.read_table(artifact.path / "samples.parquet")["scheduled_s"], draw_plan(load, 2).scheduled_s
            )
        children = [child for process in started for child in psutil.Process(process.pid).children(recursive=True)]
        assert sum(ended(process)[1].count("handed over to the master") for process in started) == 4
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_both_sides_by_their_commands(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: tiny\nbase: {model: file:base}\ndata: {source: file:table.csv}\n"
        f"loadtest: {{rate: 60, duration_s: 1, warmup_s: 0.5, max_dispatch_lag_ms: {ANY_LAG:.1f}, connections: 4}}\n"
    )
    with fake_endpoint() as address, workers(1, port, "--once", "--wait", "1m"):
        arguments = ["loadtest", str(bundle.path), "--address", address, "--recipe", str(recipe), "--workers", "1"]
        arguments += ["--master", f"localhost:{port}", "--wait", "1m", "--out", str(tmp_path / "verdict")]
        arguments += ["--texts", str(write_texts(["fine"]))]
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    assert caught.value.code == 0
    assert "1 of 1 workers are here" in capsys.readouterr().err
    assert (tmp_path / "verdict" / "verdict.json").is_file()


def test_an_endpoint_that_is_being_started_is_waited_for(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    """The proxy's port is closed until the endpoint behind it is up."""
    with fake_endpoint() as behind, contextlib.ExitStack() as cleanup:
        opened = threading.Event()

        def open_door() -> None:
            cleanup.enter_context(_forward(port, behind))
            opened.set()

        threading.Timer(1.5, open_door).start()
        load = section(workers=1, rate=40.0, duration_s=1.0, protocols=["http"])
        artifact = run(
            bundle, f"127.0.0.1:{port}", load, tmp_path / "verdict", texts=write_texts(["fine"]), wait_s=60.0
        )
        assert opened.is_set()
    assert verdict_of(artifact).failures == {}


@contextlib.contextmanager
def _forward(port: int, to: str) -> Iterator[None]:
    """Pass connections at `port` on to `to`."""
    host, _, target = to.partition(":")
    listener = socket.create_server(("127.0.0.1", port))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(target)))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.slow
def test_a_capacity_is_found_with_workers_elsewhere(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, port: int
) -> None:
    load = section(
        rate=40.0,
        slo={"p99_ms": 400.0},
        capacity={"probe_s": 2.0, "warmup_s": 0.5, "min_requests": 20, "time_budget_s": 30.0, "max_rate": 80.0},
    )
    with fake_endpoint() as address, workers(2, port, "--wait", "60"):
        artifact = loadtests.find_capacity(
            bundle, address, load, tmp_path / "capacity", texts=write_texts(["fine"]), elsewhere=elsewhere(port)
        )
    found = artifact.json("capacity.json")
    assert len(found["probes"]) >= 2
    assert {probe["answer"] for probe in found["probes"]} <= {"met", "missed"}
