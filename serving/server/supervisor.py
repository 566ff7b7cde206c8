"""The supervisor: starts Triton and Envoy, watches them, and leaves nothing behind, whoever dies first.

It is a process of its own, in its own session, because the process that wants the endpoint may be killed with
-9 and somebody must outlive it. The ways down, all ending in the same sweep:

- the parent closes the pipe, or is gone by any means: end of file on standard input;
- SIGTERM;
- Triton or Envoy ends: the parent is told why, with the last lines of the log;
- the supervisor itself is killed with -9: the kernel kills Triton and Envoy (PR_SET_PDEATHSIG), the parent sweeps;
- both are killed with -9: Triton and Envoy die, Triton's stubs follow by themselves within seconds, and the next start
  sweeps the files (`serving.server.runtime`).

A dead model process is mended rather than mourned: Triton never notices, so the supervisor counts the stubs
and watches the front door's health (a real inference), and has the model loaded again. A fourth time within a
minute, or a load that never ends, is given up.

supervisord, circus and honcho were considered. They restart children well, but none survives a kill -9 of
what started it, ties itself to a parent, removes shared memory, or can tell a healthy server with a dead
model from a healthy one.
"""

import contextlib
import ctypes
import dataclasses
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import psutil

from serving.frontdoor import credentials
from serving.frontdoor.door import Auth, Backend, FrontDoor, Limits, Tls
from serving.frontdoor.dynamic import write_configuration
from serving.frontdoor.overload import measure_service_ms
from serving.observability.exporter import write_sources
from serving.observability.page import MetricsPage
from serving.observability.settings import holds_back, observe_environment
from serving.observability.tracing import Collector, triton_options
from serving.server import triton
from serving.server.runtime import Runtime
from serving.server.supervision import Event, Plan
from slipway.errors import ServingError

_TICK_S = 0.2
_START_TICK_S = 0.05
_START_TIMEOUT_S = 120.0
_PORT_ATTEMPTS = 3
_DRAIN_S = 5.0
_FLUSH_S = 5.0
_SHORTEST_LOAD_TIMEOUT_S = 10.0
_MAX_RELOADS, _RELOAD_WINDOW_S = 3, 60.0
_ACCESS_LOG_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1


class _Leaving(Exception):  # noqa: N818
    """The parent is gone or asked to end."""


class Supervisor:
    """Keeps one endpoint up until it is told to leave, its parent is gone, or it can't."""

    def __init__(self, runtime: Runtime, plan: Plan) -> None:
        self._runtime = runtime
        self._plan = plan
        self._parent = os.getppid()
        self._terminated = False
        self._triton: subprocess.Popen[bytes] | None = None
        self._envoy: subprocess.Popen[bytes] | None = None
        self._door: FrontDoor
        self._credentials: credentials.Fingerprint = ()
        self._loader = ThreadPoolExecutor(1)
        self._load_timeout_s = _SHORTEST_LOAD_TIMEOUT_S
        self._reloads: list[float] = []
        self._collector = Collector.of(plan.observe)
        self._environment = {**triton.environment(runtime.id), **observe_environment(plan.observe)}
        self._metrics: MetricsPage | None = None
        self._server: triton.TritonServer | None = None

    def run(self) -> int:
        """Start, watch, stop; the exit code."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            started = time.monotonic()
            self._metrics = MetricsPage(
                self._runtime.path,
                self._plan.observe.get("metrics_host", triton.LOOPBACK),
                self._plan.observe.get("metrics_port", 0),
                self._environment,
            )
            server, version = self._start()
            self._server = server
            self._metrics.keep()
            self._load_timeout_s = max(_SHORTEST_LOAD_TIMEOUT_S, 5 * (time.monotonic() - started))
            ports = (self._front_port(), self._metrics.port, server.http_port, server.grpc_port)
            _tell(Event.ready(version, *ports))
            self._watch(server, self._metrics)
        except _Leaving:
            return 0
        except ServingError as error:
            _tell(Event("failed", str(error)))
            return 1
        except Exception:
            # The log goes with the directory; the parent is the only one who can still tell.
            _tell(Event("failed", f"the endpoint's supervisor failed:\n{traceback.format_exc()}"))
            return 1
        finally:
            self._stop()
        return 0

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._terminated = True

    def _tick(self, seconds: float = _TICK_S) -> None:
        """Sleep a moment; raises `_Leaving` if it is time to go, `ServingError` if a child ended."""
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        # Nothing is ever written to the pipe: readable means closed.
        if self._terminated or readable or os.getppid() != self._parent:
            raise _Leaving
        for name, process in (("tritonserver", self._triton), ("envoy", self._envoy)):
            if process is not None and process.poll() is not None:
                raise ServingError(self._obituary(name, process.returncode))

    # Starting

    def _start(self) -> tuple[triton.TritonServer, str]:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            server = triton.TritonServer.plan(self._runtime, self._plan.model)
            try:
                return server, self._start_on(server)
            except triton.PortTakenError:
                if attempt == _PORT_ATTEMPTS:
                    raise
                self._end_children()
        raise AssertionError

    def _start_on(self, server: triton.TritonServer) -> str:
        """Start both on the ports of `server`; returns Triton's version when the front door answers."""
        command = [*server.command(self._runtime.shared_memory_prefix), *triton_options(self._collector)]
        write_sources(self._runtime.path, {"stable": server.metrics_port}, self._runtime.admin_socket)
        self._triton = self._spawn("tritonserver", command, triton.raise_stack_limit)
        self._door = self._front_door(server)
        self._credentials = credentials.fingerprint(self._door)
        config = write_configuration(self._door, self._runtime.path)
        self._envoy = self._spawn("envoy", self._envoy_command(config))
        deadline = time.monotonic() + _START_TIMEOUT_S
        version = None
        while time.monotonic() < deadline:
            try:
                self._tick(_START_TICK_S)
            except ServingError:
                if "already in use" in self._log_tail("tritonserver"):
                    raise triton.PortTakenError("no free ports for Triton were found; try again.") from None
                raise
            version = version or server.answering()
            if version is not None and self._is_healthy():
                self._learn_service_time(server)
                return version
        raise ServingError(f"the model was not ready after {_START_TIMEOUT_S:g} s. {self._last_words('tritonserver')}")

    def _spawn(
        self, name: str, command: list[str], prepare: Callable[[], None] | None = None
    ) -> subprocess.Popen[bytes]:
        supervisor = os.getpid()
        libc = ctypes.CDLL(None, use_errno=True)

        def in_child() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if prepare is not None:
                prepare()

        with self._runtime.log(name).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._runtime.path,
                preexec_fn=in_child,  # noqa: PLW1509  # there is one thread until a model has to be loaded again
            )

    def _envoy_command(self, config: Path) -> list[str]:
        # Hot restart would keep a file in /dev/shm that Envoy never removes.
        options = ["--disable-hot-restart", "--log-level", "warning", "--concurrency", str(self._plan.workers)]
        return [self._plan.envoy, "-c", str(config), *options]

    def _front_door(self, server: triton.TritonServer) -> FrontDoor:
        plan = self._plan
        return FrontDoor(
            model=plan.model,
            host=plan.host,
            port=plan.port,
            backends=(Backend("stable", server.http_port, server.grpc_port),),
            health_text=plan.health_text,
            max_body_bytes=plan.max_body_bytes,
            max_connections=plan.max_connections,
            instances=plan.instances,
            timeout_s=plan.timeout_s,
            admin_socket=self._runtime.admin_socket,
            access_log=self._runtime.access_log,
            collector=self._collector,
            labels=tuple(plan.labels),
            auth=Auth.of(plan.auth) if plan.auth else None,
            tls=Tls.of(plan.tls) if plan.tls else None,
            limits=Limits(**plan.limits),
        )

    def _learn_service_time(self, server: triton.TritonServer) -> None:
        """Let the bound on requests in flight follow from what the model takes on this machine, now that it runs."""
        try:
            taken = measure_service_ms(
                server.http_port, self._plan.model, self._plan.probes, timeout_s=self._plan.timeout_s
            )
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(f"the model did not answer when its speed was measured: {error}.") from error
        self._door = dataclasses.replace(self._door, service_ms=taken)
        write_configuration(self._door, self._runtime.path)

    def _take_new_credentials(self) -> None:
        """Let the front door know of credentials whose files have changed; bad ones change nothing."""
        if not credentials.changed(self._door, self._credentials):
            return
        self._credentials = credentials.fingerprint(self._door)
        try:
            write_configuration(self._door, self._runtime.path)
        except ServingError as error:
            _tell(Event("note", f"credentials stay as they were: {error}"))
        else:
            _tell(Event("note", "credentials were read again"))

    # Watching

    def _watch(self, server: triton.TritonServer, metrics: MetricsPage) -> None:
        stubs = self._stubs()
        healthy_at = time.monotonic()
        # A check waits in the queue as any request does; only silence beyond that is a hung model.
        patience = self._plan.timeout_s + 5.0
        while True:
            self._tick()
            metrics.keep()
            if self._is_healthy():
                healthy_at = time.monotonic()
            missing = self._plan.processes - sum(map(_is_alive, stubs))
            if missing > 0:
                self._mend(server, f"{missing} of {self._plan.processes} model processes died")
            elif time.monotonic() - healthy_at > patience:
                # Triton would wait for them before it lets the old model go.
                for stub in stubs:
                    with contextlib.suppress(psutil.Error):
                        stub.kill()
                self._mend(server, f"the model has not answered for {patience:g} s")
            else:
                self._rotate_access_log()
                self._take_new_credentials()
                continue
            stubs = self._stubs()
            healthy_at = time.monotonic()

    def _mend(self, server: triton.TritonServer, what: str) -> None:
        now = time.monotonic()
        self._reloads = [moment for moment in self._reloads if now - moment < _RELOAD_WINDOW_S]
        if len(self._reloads) >= _MAX_RELOADS:
            raise ServingError(
                f"{what} again after the model was loaded {_MAX_RELOADS} times within {_RELOAD_WINDOW_S:g} s; "
                f"giving up. {self._last_words('tritonserver')}"
            )
        self._reloads.append(now)
        # Beside the loop, so that an owner that dies meanwhile is noticed.
        load = self._loader.submit(server.reload, self._load_timeout_s)
        while not load.done():
            self._tick()
        try:
            load.result()
        except triton.ModelNotLoadedError as error:
            _tell(Event("note", f"{what}; {error}"))
        except ServingError as error:
            raise ServingError(f"{what}; {error}; giving up. {self._last_words('tritonserver')}") from error
        else:
            _tell(Event("note", f"{what}; the model was loaded again in {time.monotonic() - now:.1f} s"))

    def _stubs(self) -> list[psutil.Process]:
        """Triton's model processes that are alive; looks through all processes, so not at every tick."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._triton.pid).children() if self._triton else []
            return [child for child in children if _is_alive(child)]
        return []

    def _is_healthy(self) -> bool:
        """What the front door says of itself; see `serving.frontdoor.clusters` for what it asks."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            hosts = [
                host
                for cluster in json.loads(self._ask_envoy("GET", "/clusters?format=json"))["cluster_statuses"]
                for host in cluster.get("host_statuses", [])
            ]
            return bool(hosts) and all(
                host["health_status"].get("eds_health_status") == "HEALTHY"
                and not host["health_status"].get("failed_active_health_check")
                for host in hosts
            )
        return False

    def _front_port(self) -> int:
        listeners = json.loads(self._ask_envoy("GET", "/listeners?format=json"))["listener_statuses"]
        return int(listeners[0]["local_address"]["socket_address"]["port_value"])

    def _rotate_access_log(self) -> None:
        log = self._runtime.access_log
        with contextlib.suppress(OSError, http.client.HTTPException):
            if log.stat().st_size > _ACCESS_LOG_BYTES:
                log.rename(log.with_suffix(".log.1"))
                self._ask_envoy("POST", "/reopen_logs")

    def _ask_envoy(self, method: str, path: str) -> bytes:
        connection = _UnixConnection(self._runtime.admin_socket)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()

    # Stopping

    def _stop(self) -> None:
        """Drain, end, sweep: the front door closes first, so that what was accepted is answered."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if _is_running(self._envoy) and _is_running(self._triton):
            self._drain()
            if self._server is not None and holds_back(self._plan.observe):
                self._server.unload(_FLUSH_S)
        self._end_children()
        if self._metrics is not None:
            self._metrics.close()
        self._runtime.sweep()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            self._ask_envoy("POST", "/drain_listeners")
            deadline = time.monotonic() + _DRAIN_S
            while time.monotonic() < deadline:
                active = self._ask_envoy("GET", "/stats?filter=^http.front.downstream_rq_active$")
                if int(active.decode().rpartition(":")[2]) == 0:
                    return
                time.sleep(0.05)

    def _end_children(self) -> None:
        """Kill them: what was accepted has been answered, and what Triton would tidy up in three seconds is swept."""
        for process in (self._envoy, self._triton):
            if process is not None:
                process.kill()
                process.wait()
        self._envoy = self._triton = None

    # Telling

    def _obituary(self, name: str, code: int) -> str:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{name} {how}. {self._last_words(name)}"

    def _last_words(self, name: str) -> str:
        tail = self._log_tail(name)
        return f"The last lines of its log:\n{tail}" if tail else "Its log is empty."

    def _log_tail(self, name: str, lines: int = 12) -> str:
        from serving.privacy.masking import mask

        with contextlib.suppress(OSError):
            text = self._runtime.log(name).read_text(encoding="utf-8", errors="replace")
            # Triton prints tables of its options; the lines that matter are between them.
            kept = [line for line in text.splitlines() if line.strip() and line[0] not in "+|"]
            return "\n".join(f"  {mask(line)}" for line in kept[-lines:])
        return ""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; httpx can do it, too, and takes a quarter of a second to import."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _is_alive(stub: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(stub.status() != psutil.STATUS_ZOMBIE)
    return False


def _is_running(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def _tell(event: Event) -> None:
    with contextlib.suppress(OSError):
        print(event.line(), flush=True)


def main(arguments: list[str]) -> int:
    """`python -m serving.server.supervisor DIRECTORY`, with a pipe on standard input that its parent holds open."""
    runtime = Runtime.join(Path(arguments[0]))
    return Supervisor(runtime, Plan.read(runtime.path)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
