"""Triton alone, without a front door and a supervisor: for what the model and its configuration promise."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from serving.repository import Repository
from serving.server.installation import chosen
from serving.server.processes import Process
from serving.server.runtime import Runtime
from serving.server.triton import (
    STACK_BYTES,
    PortTakenError,
    TritonServer,
    environment,
    stage_models,
)


class BareTriton:
    """A running server of one repository."""

    def __init__(self, server: TritonServer, log: Path) -> None:
        self.server = server
        self.log = log
        self.model = server.model
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{server.http_port}", timeout=30)
        self.grpc_address = f"127.0.0.1:{server.grpc_port}"

    def counts(self, model: str) -> tuple[int, int]:
        """Texts that a model has run, and its executions."""
        [stats] = self.http.get(f"/v2/models/{model}/stats").json()["model_stats"]
        return int(stats["inference_count"]), int(stats["execution_count"])


@contextlib.contextmanager
def bare_triton(path: Path) -> Iterator[BareTriton]:
    """Serve the repository at `path` until the block ends; raises with the log if it does not come up."""
    repository = Repository.open(path)
    runtime = Runtime.create()
    installation = chosen()
    installation.stage(runtime.path)
    stage_models(runtime.path, repository.models, 1)
    process = None
    try:
        for attempt in range(3):
            server = TritonServer.plan(installation, "cpu", runtime, repository.spec.model, 1)
            log = runtime.log(f"tritonserver{attempt}")
            process = _spawn(server, runtime, log)
            if _comes_up(server, process, log):
                break
        yield BareTriton(server, log)
    finally:
        if process is not None:
            process.end()
        runtime.sweep()
        runtime.release()


def _spawn(server: TritonServer, runtime: Runtime, log: Path) -> Process:
    return Process.spawn(
        "tritonserver",
        server.command(runtime.shared_memory_prefix),
        log=log,
        environment=environment(runtime.id, 1) | server.installation.environment(),
        stack_bytes=STACK_BYTES,
    )


def _comes_up(server: TritonServer, process: Process, log: Path) -> bool:
    """Whether it is ready; False if somebody else took its port, which on a busy machine happens."""
    deadline = time.monotonic() + 60
    try:
        while server.answering() is None:
            said = log.read_text(errors="replace")[-3000:]
            if not process.is_running and "already in use" in said:
                return False
            assert process.is_running, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
    except PortTakenError:
        process.end()
        return False
    return True
