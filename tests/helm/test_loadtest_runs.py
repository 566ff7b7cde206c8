"""Load tests in the cluster: the commands that are rendered run.

They run against an endpoint on the loopback, with nothing replaced but addresses and paths.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slipway.bundle import Bundle
from tests.helm.loadtest_values import EVERYTHING, container, pods, recipes, render
from tests.helm.rendering import Manifests
from tests.loadtests.fake_endpoint import fake_endpoint, label_of
from tests.tiny_bundle import write_tiny_bundle

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the answers that the fake endpoint gives."""
    file = tmp_path_factory.mktemp("texts") / "texts.parquet"
    sent = [f"text {number}" for number in range(50)]
    pq.write_table(pa.table({"text": sent, "predicted": [label_of(text) for text in sent]}), file)
    return file


class _Cluster:
    """What stands for it: pods' commands run here, with addresses and paths of this machine."""

    def __init__(self, manifests: Manifests, folder: Path, replaced: dict[str, str]) -> None:
        self._pods = pods(manifests)
        recipes(manifests, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._replaced = {
            "/etc/slipway/loadtest/": f"{folder}/",
            "--address=http://reviews-slipway.ml.svc:8080": f"--address=http://{replaced.pop('address')}",
            "0.0.0.0:5557": f"127.0.0.1:{port}",
            "reviews-slipway-loadtest.ml.svc:5557": f"127.0.0.1:{port}",
            "/results/$(POD_NAME)": f"{folder}/results/pod",
            "/tmp/verdict": f"{folder}/results/pod",  # noqa: S108
            "--wait=10m": "--wait=1m",
            **replaced,
        }

    @contextlib.contextmanager
    def start(self, role: str, *more: str) -> Iterator[subprocess.Popen[str]]:
        command = container(self._pods[role])
        arguments = list(command["args"])
        for place, real in self._replaced.items():
            arguments = [argument.replace(place, real) for argument in arguments]
        secrets = {each["name"]: "s3cret" for each in command["env"] if "secretKeyRef" in each.get("valueFrom", {})}
        plain = {each["name"]: each["value"] for each in command["env"] if "value" in each}
        process = subprocess.Popen(
            [sys.executable, "-m", "slipway", *arguments, *more],
            env={"PATH": os.environ["PATH"], **plain, **secrets},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


QUICK = {
    **EVERYTHING,
    "slo": {"latencyMs": 60000, "latencyPercent": 99, "availabilityPercent": 99.9},
    "loadtest": {
        **EVERYTHING["loadtest"],
        "workers": 2,
        "recipe": {"rate": 60, "duration_s": 2, "warmup_s": 0.5, "max_dispatch_lag_ms": 1e6},
        "test": {"rate": 20, "durationSeconds": 2},
    },
}


@pytest.mark.parametrize(
    ("latency_ms", "code", "said"),
    [(60000, 0, "SLO met at 20 requests/s"), (0.001, 2, "Missed at 20 requests/s")],
    ids=["met", "missed"],
)
def test_helm_test_ends_as_the_objective_says(
    helm: Path, bundle: Bundle, texts: Path, tmp_path: Path, latency_ms: float, code: int, said: str
) -> None:
    values = {**QUICK, "slo": {**QUICK["slo"], "latencyMs": latency_ms}}
    with fake_endpoint(api_key="s3cret") as address:
        cluster = _Cluster(
            render(helm, values), tmp_path, {"address": address, "/models/reviews/bundle": str(bundle.path)}
        )
        with cluster.start("test", f"--texts={texts}") as test:
            log, _ = test.communicate(timeout=90)
    assert test.returncode == code, log
    assert said in log


def test_master_and_workers_run_and_the_verdict_is_kept(
    helm: Path, bundle: Bundle, texts: Path, tmp_path: Path
) -> None:
    with fake_endpoint(api_key="s3cret") as address:
        cluster = _Cluster(
            render(helm, QUICK), tmp_path, {"address": address, "/models/reviews/bundle": str(bundle.path)}
        )
        # In the order in which a cluster may start them: workers before their master.
        with (
            cluster.start("run-worker") as first,
            cluster.start("run-worker") as second,
            cluster.start("run-master", f"--texts={texts}") as master,
        ):
            log, _ = master.communicate(timeout=120)
            assert master.returncode == 0, log
            for worker in (first, second):
                said, _ = worker.communicate(timeout=60)
                assert worker.returncode == 0, said
    assert "SLO met at 60 requests/s" in log
    kept = {file.name for file in (tmp_path / "results" / "pod").iterdir()}
    assert {"manifest.json", "samples.parquet", "verdict.json"} <= kept
