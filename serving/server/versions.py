"""One version of the model, served by a Triton of its own: started, watched, loaded again, ended.

A new version gets a process of its own rather than a place in the running Triton. Triton can load a second version
beside the first; but both would share its fate (one native crash ends all), its queues and its memory, and Envoy could
neither split traffic between them, nor tell their errors and latencies apart, nor drain one. The price is the memory
of a second server process, some 60 MB beside the model's own, while both are there.
"""

import contextlib
import http.client
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving.observability.settings import holds_back, observe_environment
from serving.observability.tracing import Collector, triton_options
from serving.server import triton
from serving.server.installation import installed
from serving.server.processes import Process
from serving.server.runtime import SHARED_MEMORY, Runtime
from serving.server.supervision import Plan
from slipway.processes import marked_processes

_FLUSH_S = 5.0


@dataclass(frozen=True)
class Release:
    """What is served: which repository, under which number. Numbers are given once in an endpoint's life."""

    version: int
    repository: str
    """Where it was staged from."""
    digest: str
    """Of the repository's manifest."""
    instances: int
    """Of what runs the model, as planned for a CPU."""
    runner: str
    """Name of Triton's model that runs it: of an ensemble, its encoder."""


class ServedVersion:
    """A Triton with one release; only the main thread may start it (`serving.server.processes`)."""

    def __init__(self, runtime: Runtime, plan: Plan, release: Release) -> None:
        self.release = release
        self._runtime = runtime
        self._plan = plan
        self._installation = installed(plan.triton)
        self.server = self._plan_server()
        self.start_s = 0.0
        """What its last start took, until the model was loaded."""
        self.instances = release.instances
        """Of what runs the model; since it was ready, as Triton counts them."""
        self.processes = 0
        """Model processes that a Triton has with it, since it was ready."""
        self._process: Process | None = None
        self._stubs: list[psutil.Process] = []

    @property
    def name(self) -> str:
        """What the front door calls it; a cluster is added and removed, but never changed."""
        return f"v{self.version}"

    @property
    def version(self) -> int:
        """Its number; `model_version` in the answers."""
        return self.release.version

    @property
    def process(self) -> Process:
        """Triton, after `start`."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process

    def start(self) -> None:
        """Start Triton; what is left of one that ran before is removed."""
        self.end()
        self._process = Process.spawn(
            "tritonserver",
            [*self.server.command(self._shared_memory_prefix), *triton_options(Collector.of(self._plan.observe))],
            log=self._runtime.log(f"tritonserver-{self.version}"),
            environment={
                **triton.environment(self._runtime.id, self.version),
                **self._installation.environment(),
                **observe_environment(self._plan.observe),
            },
            stack_bytes=triton.STACK_BYTES,
        )

    def move(self) -> None:
        """Take other ports at the next start."""
        self.server = self._plan_server()

    def found_its_ports_taken(self) -> bool:
        """Whether Triton ended because somebody else listens on a port that was free when it was chosen."""
        return "already in use" in self.process.log_tail()

    def became_ready(self) -> str | None:
        """Triton's version when it has loaded the model, None before."""
        version = self.server.answering()
        if version is not None and not self._counted():
            return None
        if version is not None:
            self.start_s = time.monotonic() - self.process.started
            self.find_stubs()
        return version

    def find_stubs(self) -> None:
        """Look for the model's processes; after a load those of the model before are among them for a moment."""
        self._stubs = self.living_stubs()

    def living_stubs(self) -> list[psutil.Process]:
        """The model processes that live now; looks through all processes, so not at every tick."""
        with contextlib.suppress(psutil.Error):
            return [child for child in psutil.Process(self.process.pid).children() if _is_alive(child)]
        return []

    def missing_stubs(self) -> int:
        """How many of the processes that there should be have died."""
        return max(0, self.processes - sum(map(_is_alive, self._stubs)))

    def kill_stubs(self) -> None:
        """End model processes that hang: Triton would wait for them before it lets a model go."""
        for stub in self._stubs:
            with contextlib.suppress(psutil.Error):
                stub.kill()

    def flush(self) -> None:
        """Let the model's processes write and send what they hold back, if they do; nothing is answered any more."""
        if self._process is not None and self._process.is_running and holds_back(self._plan.observe):
            self.server.unload(_FLUSH_S)

    def end(self) -> None:
        """Kill Triton and its model processes, and remove their shared memory; doing it twice is harmless."""
        if self._process is None:
            return
        self._process.end()
        self._process = None
        self.sweep()

    def sweep(self) -> None:
        """Kill the model processes and remove their shared memory, when Triton is dead.

        They don't go by themselves. And those that were started later have inherited Triton's sockets: as long as they
        live, connections to its ports are made and never answered.
        """
        for process in marked_processes(self._runtime.id):
            with contextlib.suppress(psutil.Error):
                if process.environ().get(triton.VERSION_MARKER) == str(self.version):
                    process.kill()
        for region in SHARED_MEMORY.glob(self._shared_memory_prefix + "*"):
            region.unlink(missing_ok=True)

    def remove(self) -> None:
        """End it in good order, and give back the disk that it was staged on."""
        self.flush()
        self.end()
        shutil.rmtree(triton.staged(self._runtime.path, self.version), ignore_errors=True)

    def _plan_server(self) -> triton.TritonServer:
        plan = self._plan
        return triton.TritonServer.plan(self._installation, plan.target, self._runtime, plan.model, self.version)

    def _counted(self) -> bool:
        """Learn from Triton how many instances and processes there are; whether it said so."""
        try:
            found = self.server.instances()
        except (OSError, http.client.HTTPException, ValueError):
            return False
        self.instances = found[self.release.runner].count
        self.processes = sum(
            one.count for one in found.values() if one.count and self._installation.runs_in_processes(one.backend)
        )
        return True

    @property
    def _shared_memory_prefix(self) -> str:
        return f"{self._runtime.shared_memory_prefix}{self.version}-"


def stage(runtime: Runtime, models: Path, version: int) -> None:
    """Stage the models of a repository as `version`; what was written of it is removed if the disk is full."""
    try:
        triton.stage_models(runtime.path, models, version)
    except OSError:
        shutil.rmtree(triton.staged(runtime.path, version), ignore_errors=True)
        raise


def _is_alive(stub: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(stub.status() != psutil.STATUS_ZOMBIE)
    return False
