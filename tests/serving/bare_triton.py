"""Triton alone, without a front door and a supervisor: for what the model and its configuration promise."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from serving.repository import Repository
from serving.server.runtime import Runtime
from serving.server.triton import TritonServer, environment, raise_stack_limit, stage


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
    process = None
    try:
        stage(runtime.path, repository.models, repository.spec.model)
        server = TritonServer.plan(runtime, repository.spec.model)
        log = runtime.log("tritonserver")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                server.command(runtime.shared_memory_prefix),
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment(runtime.id),
                cwd=runtime.path,
                preexec_fn=raise_stack_limit,  # noqa: PLW1509  # as the supervisor does
            )
        deadline = time.monotonic() + 60
        while server.answering() is None:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.05)
        yield BareTriton(server, log)
    finally:
        if process is not None:
            process.kill()
            process.wait()
        runtime.sweep()
        runtime.release()
