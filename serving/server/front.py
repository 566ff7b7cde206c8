"""The front door's process: Envoy, its configuration on disk, its restart on the same port when it dies or hangs."""

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.frontdoor.clusters import cluster_name
from serving.frontdoor.credentials import Fingerprint, changed, fingerprint
from serving.frontdoor.door import Auth, Backend, FrontDoor, Limits, Tls
from serving.frontdoor.dynamic import BOOTSTRAP, WATCHED, Credentials, read_credentials, write_configuration
from serving.frontdoor.overload import measure_service_ms
from serving.observability.tracing import Collector
from serving.server.envoy_admin import SILENT, EnvoyAdmin
from serving.server.mending import Budget
from serving.server.processes import Process
from serving.server.runtime import Runtime
from serving.server.supervision import Plan
from serving.server.triton import environment
from serving.server.versions import ServedVersion
from slipway.errors import ServingError

_ACCESS_LOG_BYTES = 64 << 20
_APPLIED_S = 5.0
_FLUSH_S = 2.0
_MEASURING_S = 10.0
_POLL_S = 0.02


@dataclass(frozen=True)
class Share:
    """What a version gets of the traffic."""

    served: ServedVersion
    percent: int
    """Of the requests, which it answers."""
    shadow_percent: int = 0
    """Of the requests, which it is sent a copy of; its answers are thrown away."""

    @property
    def backend(self) -> Backend:
        """As the front door wants it."""
        return Backend(
            self.served.name,
            self.served.server.http_port,
            self.served.server.grpc_port,
            weight=self.percent,
            shadow_percent=self.shadow_percent,
            version=str(self.served.version),
        )


def clusters_of(served: ServedVersion) -> tuple[str, str]:
    """What Envoy calls its HTTP and its gRPC port."""
    backend = Share(served, 0).backend
    return cluster_name(backend, "http"), cluster_name(backend, "grpc")


class Front:
    """Keeps Envoy running. Only the main thread may start it (`serving.server.processes`)."""

    def __init__(self, runtime: Runtime, plan: Plan, tell: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._plan = plan
        self._tell = tell
        self.admin = EnvoyAdmin(runtime.admin_socket)
        self.port = plan.port
        """Where it listens; 0 until Envoy has taken one."""
        self._process: Process | None = None
        self._budget = Budget()
        self._answered_at = time.monotonic()
        self._mended: tuple[str, float] | None = None
        self._service_ms: dict[int, float] = {}
        self._credentials: Credentials | None = None
        self._seen: Fingerprint = ()

    @property
    def process(self) -> Process:
        """Envoy, after `start`."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether there is an Envoy."""
        return self._process is not None and self._process.is_running

    def start(self, shares: Sequence[Share]) -> None:
        """Write the configuration and start Envoy with it; raises `ServingError` if credentials can't be read."""
        self._credentials = read_credentials(self._door(shares))
        self._seen = self._credentials.seen
        self.configure(shares)
        self._say_if_there_is_no_key(self._credentials)
        self._spawn()

    def configure(self, shares: Sequence[Share]) -> None:
        """Write the configuration for `shares`; a running Envoy takes up what changed.

        Credentials are those that were read last: a file that broke since must not hold a candidate in traffic. Raises
        `OSError` if the disk is full.
        """
        write_configuration(self._door(shares), self._runtime.path, self._credentials)

    def await_applied(self) -> None:
        """Wait until Envoy routes by what was written last; not longer than a few seconds, if it can't."""
        written = json.loads((self._runtime.path / WATCHED / "routes.json").read_text(encoding="utf-8"))
        deadline = time.monotonic() + _APPLIED_S
        while time.monotonic() < deadline:
            with contextlib.suppress(*SILENT):
                if self.admin.routes_version() == written["version_info"]:
                    return
            time.sleep(_POLL_S)

    def learn_service_time(self, served: ServedVersion, shares: Sequence[Share]) -> None:
        """Let the bound on requests in flight follow from what the model takes on this machine, now that it runs."""
        plan, port, instances = self._plan, served.server.http_port, served.instances
        try:
            # The first answers are slow, and nobody waits for them: callers' deadline is not theirs.
            patience_s = max(plan.timeout_s, _MEASURING_S)
            taken = measure_service_ms(port, plan.model, plan.probes, instances, timeout_s=patience_s)
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(f"the model did not answer when its speed was measured: {error}.") from error
        self._service_ms[served.version] = taken
        self.configure(shares)

    def infer_service_time(self, served: ServedVersion, other: ServedVersion, ratio: float) -> None:
        """`served` takes `ratio` times as long as `other` does; measured itself, it would be slowed by callers of both.

        It holds as soon as most requests go to `served`.
        """
        if other.version in self._service_ms:
            self._service_ms[served.version] = ratio * self._service_ms[other.version]

    def health(self) -> dict[str, bool]:
        """Cluster → whether it is healthy; empty when Envoy doesn't answer."""
        try:
            found = self.admin.health()
        except SILENT:
            return {}
        self._answered_at = time.monotonic()
        return found

    def is_healthy(self, served: ServedVersion, health: dict[str, bool]) -> bool:
        """Whether `served` is, over both protocols, by what `health` found."""
        return all(health.get(cluster, False) for cluster in clusters_of(served))

    def step(self, patience_s: float) -> None:
        """Start Envoy again if it died or hangs; raises `ServingError` if that doesn't help.

        Callers' connections are lost with it, and so is what was under way on them. The port stays.
        """
        if not self.process.is_running:
            self._restart(self.process.ending())
        elif time.monotonic() - self._answered_at > patience_s:
            self.process.end()
            self._restart(f"envoy has not answered for {patience_s:g} s")
        elif self._answered_at > self.process.started:
            self._budget.healthy()
            if self._mended is not None:
                what, since = self._mended
                self._mended = None
                self._tell(f"{what}; it was started again in {time.monotonic() - since:.1f} s")

    def take_new_credentials(self, shares: Sequence[Share]) -> None:
        """Let Envoy know of credentials whose files have changed; bad ones change nothing."""
        door = self._door(shares)
        if not changed(door, self._seen):
            return
        self._seen = fingerprint(door)
        before = self._credentials
        try:
            self._credentials = read_credentials(door)
            self.configure(shares)
        except (ServingError, OSError) as error:
            self._credentials = before
            self._tell(f"credentials stay as they were: {error}")
        else:
            self._tell("credentials were read again")
            self._say_if_there_is_no_key(self._credentials)

    def rotate_access_log(self) -> None:
        """Begin another file when this one is large; one older file is kept."""
        log = self._runtime.access_log
        # It is not there where it goes to the standard output.
        with contextlib.suppress(*SILENT):
            if log.stat().st_size > _ACCESS_LOG_BYTES:
                log.rename(log.with_suffix(".log.1"))
                self.admin.reopen_logs()

    def end(self) -> None:
        """End Envoy, which writes what is left of its access log; doing it twice is harmless."""
        if self._process is not None:
            self._process.end(_FLUSH_S)
            self._process = None

    def _say_if_there_is_no_key(self, credentials: Credentials) -> None:
        """An empty file closes the door; whoever didn't mean it should know why all are refused."""
        file = (self._plan.auth or {}).get("keys")
        if file and not credentials.keys:
            self._tell(f"{file} has no keys: nobody is let in by one")

    def _restart(self, what: str) -> None:
        self._budget.spend(lambda: f"{what}. {self.process.last_words()}")
        self._mended = self._mended or (what, time.monotonic())
        # What was written last is what Envoy starts with, also when the disk is full by now.
        self._spawn()

    def _spawn(self) -> None:
        # A killed Envoy leaves its sockets' files, and another would not bind to them.
        self._runtime.admin_socket.unlink(missing_ok=True)
        self._runtime.health_socket.unlink(missing_ok=True)
        options = {
            "-c": self._runtime.path / BOOTSTRAP,
            "--log-level": "warning",
            "--concurrency": self._plan.workers,
            # Every answer says that the connection ends, from the first moment of a drain on.
            "--drain-strategy": "immediate",
            "--file-flush-interval-msec": 1000,
            "--drain-time-s": max(1, round(self._plan.grace_s)),
        }
        self._process = Process.spawn(
            "envoy",
            # Hot restart would keep a file in /dev/shm that Envoy never removes.
            [self._plan.envoy, "--disable-hot-restart", *(str(part) for option in options.items() for part in option)],
            log=self._runtime.log("envoy"),
            environment=environment(self._runtime.id),
        )
        self._answered_at = self._process.started

    def _door(self, shares: Sequence[Share]) -> FrontDoor:
        plan = self._plan
        main = max(shares, key=lambda share: share.percent).served
        return FrontDoor(
            model=plan.model,
            host=plan.host,
            port=self.port,
            backends=tuple(share.backend for share in shares),
            health_text=plan.probes[0],
            max_body_bytes=plan.max_body_bytes,
            max_connections=plan.max_connections,
            max_queue=plan.max_queue,
            instances=main.instances,
            timeout_s=plan.timeout_s,
            admin_socket=self._runtime.admin_socket,
            access_log=Path(plan.access_log) if plan.access_log else self._runtime.access_log,
            health_socket=self._runtime.health_socket,
            labels=tuple(plan.labels),
            auth=Auth.of(plan.auth) if plan.auth else None,
            tls=Tls.of(plan.tls) if plan.tls else None,
            limits=Limits(**plan.limits),
            collector=Collector.of(plan.observe),
            service_ms=self._service_ms.get(main.version),
        )
