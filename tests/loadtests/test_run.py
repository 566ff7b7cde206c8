"""The whole load test, with Locust and real sockets, against an endpoint that does what its texts say."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import loadtests
from loadtests.measured import of_file
from loadtests.plan import draw_plan
from loadtests.samples import SCHEMA, STARTED, read_samples
from slipway.artifacts import Artifact, read_artifact
from slipway.bundle import Bundle
from slipway.errors import LoadTestError
from slipway.recipe import LoadTest, Slo
from slipway.verdict import Verdict
from tests.loadtests.conftest import WriteTexts
from tests.loadtests.fake_endpoint import LABELS, fake_endpoint, label_of

pytestmark = pytest.mark.integration

# The lag is for `test_slo` to judge; a busy test machine must not.
ANY_LAG = 1e9


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with fake_endpoint() as address:
        yield address


def run(*arguments: Any, **options: Any) -> Artifact:
    """Without its page, which takes longer than most of these runs and has tests of its own."""
    return loadtests.run(*arguments, page=False, **options)


def section(rate: float = 80.0, duration_s: float = 1.0, **more: object) -> LoadTest:
    values = {"rate": rate, "duration_s": duration_s, "warmup_s": 0.3, "max_dispatch_lag_ms": ANY_LAG, **more}
    return LoadTest.model_validate(values)


def verdict_of(artifact: Artifact) -> Verdict:
    return Verdict.model_validate(artifact.json("verdict.json"))


def samples_of(artifact: Artifact) -> pa.Table:
    return pq.read_table(artifact.path / "samples.parquet")


def test_every_scheduled_arrival_has_a_sample_and_the_artifact_is_whole(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    load = section(seed=3)
    texts = write_texts([f"text {number}" for number in range(20)])
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts, endpoint={"layout": "fused"})
    assert read_artifact(artifact.path, "verdict").digest == artifact.digest
    assert artifact.manifest.parents[0].digest == bundle.artifact.digest
    samples = samples_of(artifact)
    assert samples.schema.remove_metadata() == SCHEMA
    plan = draw_plan(load, 20)
    np.testing.assert_allclose(samples["scheduled_s"], plan.scheduled_s)
    np.testing.assert_array_equal(samples["text_index"], plan.text_index)
    np.testing.assert_array_equal(samples["warmup"], plan.scheduled_s < 0)
    np.testing.assert_array_equal(samples["protocol"], np.array(load.protocols)[plan.protocol])
    np.testing.assert_allclose(pc.add(samples["lag_ms"], samples["service_ms"]), samples["latency_ms"], atol=1e-6)
    assert np.min(samples["lag_ms"]) >= 0
    verdict = verdict_of(artifact)
    assert verdict.outcome == "met", verdict.examples
    assert verdict.scheduled == (plan.scheduled_s >= 0).sum()
    assert verdict.achieved_rate == verdict.scheduled / load.duration_s
    assert verdict.endpoint == {"address": address, "model": "tiny", "layout": "fused"}
    assert verdict.texts == verdict.scheduled
    assert len(verdict.generators) == 1
    assert float(samples.schema.metadata[STARTED.encode()]) > 0


def test_a_stall_shows_in_the_tail_because_latency_counts_from_the_schedule(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    # 100 texts in one round of 160 arrivals: one or two stalls of 1.5 s in 4 s; all others are answered in a few ms.
    texts = write_texts(["!stall 1.5", *(f"text {number}" for number in range(99))])
    load = section(rate=40.0, warmup_s=0.0, duration_s=4.0, slo={"p99_ms": 500.0})
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts)
    verdict = verdict_of(artifact)
    assert verdict.outcome == "missed"
    assert verdict.latency.p99 > 1300
    assert verdict.failures == {}
    # What tells a stall from one slow request: those that came during it were late by what was left of it.
    late = pc.sum(pc.greater(samples_of(artifact)["latency_ms"], 300)).as_py()
    assert late > 0.5 * 40 * 1.2


def test_nobody_waits_for_a_connection_when_all_are_stuck(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    # The first text is asked before the load; it has to be answered.
    texts = write_texts(["text", *(f"!hang {number}" for number in range(400))])
    load = section(rate=200.0, warmup_s=0.0, duration_s=1.5, timeout_s=3.0)
    samples = samples_of(run(bundle, address, load, tmp_path / "verdict", texts=texts))
    hung = samples.filter(pc.equal(samples["outcome"], "timeout"))
    assert hung.num_rows >= 250
    # All were out together, and each was cut off `timeout_s` after it was sent (not after the one before it ended).
    assert np.max(hung["service_ms"]) < 3.0 * 1.5 * 1000
    assert np.max(hung["lag_ms"]) < 1500


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_wrong_answers_errors_and_timeouts_are_failures(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts, protocol: str
) -> None:
    texts = write_texts(["fine", "!wrong", "!error", "!hang"])
    load = section(protocols=[protocol], timeout_s=0.7, slo={"error_rate": 0.5})
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts)
    verdict = verdict_of(artifact)
    assert verdict.outcome == "missed"
    assert verdict.error_rate == pytest.approx(0.75, abs=0.1)
    rows = {row["text_index"]: row for row in samples_of(artifact).to_pylist()}
    assert {index: row["outcome"] for index, row in rows.items()} == {0: "ok", 1: "wrong", 2: "error", 3: "timeout"}
    assert rows[1]["detail"].startswith("expected ")
    assert "made to fail" in rows[2]["detail"]
    assert rows[3]["latency_ms"] >= 699


def test_texts_of_any_kind_arrive_as_they_are(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    quoting = 'quotes " \\ \n \t \x00 \u2028'
    texts = write_texts(["😀👩🏽‍🚀", "很好,非常满意。", quoting, "长" * 33_000, "x" * 100_000])
    artifact = run(bundle, address, section(), tmp_path / "verdict", texts=texts)
    assert set(samples_of(artifact)["text_index"].to_pylist()) == set(range(5))
    assert verdict_of(artifact).outcome == "met", verdict_of(artifact).examples


def test_a_server_that_dies_under_load_leaves_a_verdict(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts
) -> None:
    with fake_endpoint() as address:
        texts = write_texts(["fine", "!die"])
        artifact = run(bundle, address, section(timeout_s=2.0), tmp_path / "verdict", texts=texts)
    verdict = verdict_of(artifact)
    assert verdict.outcome == "missed"
    assert verdict.failures["error"] > 0


def test_nothing_answering_is_one_clear_line_and_writes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for protocols in (["grpc"], ["http"]):
            with pytest.raises(LoadTestError) as raised:
                run(bundle, address, section(protocols=protocols), tmp_path / "verdict")
            expected = f"Nothing answers {protocols[0]} at {address}. Start an endpoint with: slipway serve BUNDLE"
            assert str(raised.value) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_unknown_model_is_one_clear_line(bundle: Bundle, tmp_path: Path, protocol: str) -> None:
    with fake_endpoint(model="another") as address, pytest.raises(LoadTestError, match="does not serve model 'tiny'"):
        run(bundle, address, section(protocols=[protocol]), tmp_path / "verdict")
    assert list(tmp_path.iterdir()) == []


def test_something_that_accepts_and_says_nothing_is_one_clear_line(bundle: Bundle, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LoadTestError, match="did not answer one http request within 1 s"):
            run(bundle, address, section(protocols=["http"], timeout_s=1.0), tmp_path / "verdict")


def test_another_machine_is_refused_before_anything_is_sent(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="not this machine"):
        run(bundle, "192.0.2.1:8080", section(), tmp_path / "verdict")


_OWNER = """
import sys
from pathlib import Path
import loadtests
from slipway.bundle import Bundle
from slipway.recipe import LoadTest

bundle, address, out, workers = sys.argv[1:]
load = LoadTest(rate=20.0, duration_s=120.0, workers=int(workers))
under_way = lambda report: print("under way", flush=True)
loadtests.run(Bundle.open(Path(bundle)), address, load, Path(out), progressed=under_way)
"""


@pytest.mark.parametrize(("ending", "workers"), [(signal.SIGINT, 1), (signal.SIGKILL, 1), (signal.SIGKILL, 2)])
def test_an_interrupted_run_leaves_no_process_and_no_half_verdict(
    bundle: Bundle, address: str, tmp_path: Path, ending: signal.Signals, workers: int
) -> None:
    out = tmp_path / "verdict"
    command = [sys.executable, "-c", _OWNER, str(bundle.path), address, str(out), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "under way\n"
        generators = psutil.Process(owner.pid).children(recursive=True)
        assert generators
        os.kill(owner.pid, ending)
        owner.wait(timeout=20)
    _, alive = psutil.wait_procs(generators, timeout=20)
    assert alive == []
    assert not out.exists()
    # A killed owner can't tidy up; what it leaves is no artifact, and the next run of this one removes it.
    run(bundle, address, section(rate=20.0, duration_s=1.0, slo=Slo(error_rate=0.99)), out)
    assert [path.name for path in tmp_path.iterdir()] == ["verdict"]


def test_the_locustfile_runs_by_itself(bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts) -> None:
    texts = write_texts(["fine", "very fine"])
    locustfile = Path(loadtests.__file__).parent / "locustfiles" / "load.py"
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "-u", "1", "--host", address]
    command += ["--bundle", str(bundle.path), "--texts", str(texts), "--rate", "40", "--duration-s", "2"]
    command += ["--warmup-s", "0.5", "--samples", str(tmp_path / "samples.parquet"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    measured = pq.read_table(tmp_path / "samples.parquet")
    measured = measured.filter(pc.invert(measured["warmup"]))
    statistics = {row["method"]: row["num_requests"] for row in json.loads(done.stdout)}
    assert statistics == Counter(measured["protocol"].to_pylist())


def test_workers_send_the_plan_of_one_from_one_moment_on(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    load = section(workers=2, rate=60.0, duration_s=3.0, slo={"error_rate": 0.2})
    texts = write_texts([*(f"text {number}" for number in range(19)), "!error"])
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts)
    samples = read_samples(artifact.path / "samples.parquet")
    plan = draw_plan(load, 20)
    np.testing.assert_allclose(samples["scheduled_s"], plan.scheduled_s)
    np.testing.assert_array_equal(samples["text_index"], plan.text_index)
    assert len(of_file(artifact.path / "samples.parquet").generators) == 2
    verdict = verdict_of(artifact)
    assert verdict.outcome == "met", verdict.reason
    assert verdict.workers == 2
    assert verdict.failures["error"] >= 9


def test_a_worker_that_can_not_begin_ends_the_run(bundle: Bundle, tmp_path: Path) -> None:
    with fake_endpoint(model="another") as address, pytest.raises(LoadTestError, match="does not serve model 'tiny'"):
        run(bundle, address, section(workers=2), tmp_path / "verdict")
    assert list(tmp_path.iterdir()) == []


def test_batches_are_sent_and_every_answer_of_them_is_checked(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    texts = write_texts([*(f"text {number}" for number in range(30)), "!wrong"])
    load = section(batch_size={1: 1.0, 8: 1.0}, slo={"error_rate": 1.0, "wrong": 1000})
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts)
    rows = samples_of(artifact).to_pylist()
    assert {row["texts"] for row in rows} == {1, 8}
    plan = draw_plan(load, 31)
    for number, row in enumerate(rows):
        sent = plan.texts_of(number)
        assert row["outcome"] == ("wrong" if 30 in sent else "ok")
        if len(sent) > 1 and 30 in sent:
            assert row["detail"].startswith(f"text {sent.index(30) + 1} of 8: expected ")
    assert {row["protocol"] for row in rows} == {"grpc", "http"}


def test_generate_is_a_protocol_like_the_others(
    bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts
) -> None:
    texts = write_texts(["fine", "!wrong"])
    load = section(protocols=["generate", "http"], slo={"error_rate": 1.0, "wrong": 1000})
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts)
    outcomes = {(row["protocol"], row["text_index"]): row["outcome"] for row in samples_of(artifact).to_pylist()}
    assert outcomes[("generate", 0)] == outcomes[("http", 0)] == "ok"
    assert outcomes[("generate", 1)] == outcomes[("http", 1)] == "wrong"


def test_answers_are_held_to_the_version_that_gave_them(bundle: Bundle, address: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.parquet"
    columns = {
        "text": ["fine", "!version 2 a"],
        "predicted": [label_of("fine"), LABELS[1]],
        "predicted:2": [LABELS[1], LABELS[0]],
    }
    pq.write_table(pa.table(columns), texts)
    verdict = verdict_of(run(bundle, address, section(), tmp_path / "verdict", texts=texts))
    assert verdict.outcome == "met", verdict.examples
    assert set(verdict.by_version) == {"1", "2"}


def test_a_closed_loop_runs_and_says_so(bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts) -> None:
    load = section(loop="closed", users=3)
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=write_texts(["fine"]))
    verdict = verdict_of(artifact)
    assert verdict.loop == "closed"
    assert verdict.failures == {}
    assert verdict.scheduled > 50
    assert "closed loop of 3 users" in verdict.reason


def test_a_protected_endpoint_is_entered_with_a_key_from_the_environment(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "s3cret")
    texts = write_texts(["fine"])
    with fake_endpoint(api_key="s3cret") as address:
        for protocol in ("grpc", "http"):
            with pytest.raises(LoadTestError, match="does not let us in over"):
                run(bundle, address, section(protocols=[protocol]), tmp_path / "verdict", texts=texts)
        load = section(credentials={"environment": "ENDPOINT_KEY"})
        artifact = run(bundle, address, load, tmp_path / "verdict", texts=texts)
    assert verdict_of(artifact).outcome == "met"
    written = [path.read_bytes() for path in artifact.path.iterdir()]
    assert not any(b"s3cret" in content for content in written)


def test_an_endpoint_with_tls_is_entered_if_its_certificate_is_trusted(
    bundle: Bundle, tmp_path: Path, write_texts: WriteTexts
) -> None:
    certificate, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-out", ca, "-keyout", tmp_path / "key.pem"], check=True, capture_output=True)
    certificate.write_bytes(ca.read_bytes() + (tmp_path / "key.pem").read_bytes())
    texts = write_texts(["fine"])
    with fake_endpoint(certificate=certificate) as numeric:
        address = f"https://localhost:{numeric.rpartition(':')[2]}"
        for protocol in ("grpc", "http"):
            untrusted = section(protocols=[protocol], timeout_s=2.0)
            with pytest.raises(LoadTestError, match=r"Nothing answers|did not answer"):
                run(bundle, address, untrusted, tmp_path / "verdict", texts=texts)
        load = section(tls={"ca": str(ca)})
        verdict = verdict_of(run(bundle, address, load, tmp_path / "verdict", texts=texts))
    assert verdict.outcome == "met", verdict.examples
    assert set(verdict.by_protocol) == {"grpc", "http"}


def test_a_recording_is_replayed(bundle: Bundle, address: str, tmp_path: Path, write_texts: WriteTexts) -> None:
    times = np.array([0.0, 0.1, 0.1, 0.9, 1.4])
    pq.write_table(pa.table({"time": times + 1e9}), tmp_path / "recording.parquet")
    replay = {"process": "replay", "source": f"file:{tmp_path / 'recording.parquet'}"}
    load = section(arrivals=replay, warmup_s=0.0, duration_s=2.0)
    artifact = run(bundle, address, load, tmp_path / "verdict", texts=write_texts(["fine"]))
    np.testing.assert_allclose(samples_of(artifact)["scheduled_s"], times, atol=1e-6)
    assert verdict_of(artifact).offered_rate == 2.5
