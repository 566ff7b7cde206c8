"""What is served and by whom: the stable version, perhaps a candidate beside it, and the front door before both.

Whatever changes the fleet is called by the supervisor's loop, never by two threads at a time.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from serving.observability.exporter import write_sources
from serving.server.front import Front, Share
from serving.server.mending import Mending
from serving.server.runtime import Runtime
from serving.server.supervision import Plan
from serving.server.versions import Release, ServedVersion
from slipway.errors import ServingError

_BALLAST_BYTES = 1 << 20


class Fleet:
    """The endpoint's processes. `tell` says what was mended."""

    def __init__(self, runtime: Runtime, plan: Plan, tell: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._plan = plan
        self._tell = tell
        # A check waits in the queue as any request does; only silence beyond that is a hung model.
        self._patience_s = plan.timeout_s + 5.0
        self.front = Front(runtime, plan, tell)
        self.stable = ServedVersion(
            runtime, plan, Release(1, plan.repository, plan.digest, plan.instances, plan.runner)
        )
        self.candidate: ServedVersion | None = None
        self._mending: Mending | None = None
        self._shares = [Share(self.stable, 100)]
        self._last_version = 1
        self._ballast = runtime.path / "ballast"
        self._is_stale = False

    def start(self) -> None:
        """Start Triton with the stable version, and Envoy before it."""
        _fill(self._ballast)
        self.stable.start()
        self.front.start(self._shares)

    def watch(self) -> None:
        """Both are ready: from now on they are mended, and Envoy keeps the port that it has taken."""
        self.front.port = self.front.admin.port()
        self.front.learn_service_time(self.stable, self._shares)
        self._mending = Mending(self.stable, self._patience_s, self._tell)
        self._write_scrape()

    def is_healthy(self, served: ServedVersion) -> bool:
        """Whether `served` has answered a real inference lately, as Envoy knows it."""
        return self.front.is_healthy(served, self.front.health())

    def step(self) -> None:
        """Mend what is broken, and do what is due; raises `ServingError` if something can't be mended."""
        health = self.front.health()
        self.front.step(self._patience_s)
        # An Envoy that is silent says nothing about the model, and is mended first.
        healthy = not health or self.front.is_healthy(self.stable, health)
        if self._mending is not None and self._mending.step(healthy=healthy):
            self._is_stale = True
        if self._is_stale:
            with contextlib.suppress(OSError, ServingError):
                self._apply(self._shares)
                self._is_stale = False
        self.front.take_new_credentials(self._shares)
        self.front.rotate_access_log()

    def next_version(self) -> int:
        """A number for a candidate; one that is not promoted keeps it, so that its answers can be told for ever."""
        if self.candidate is not None:
            raise ServingError("another version is being promoted.")
        self._last_version += 1
        return self._last_version

    def start_candidate(self, release: Release) -> ServedVersion:
        """Start a Triton with a release that was staged, beside the stable one. It gets no traffic yet.

        Raises `OSError` if the disk is full; what was staged is removed then.
        """
        candidate = ServedVersion(self._runtime, self._plan, release)
        try:
            candidate.start()
        except OSError:
            candidate.remove()
            raise
        self.candidate = candidate
        return candidate

    def share(self, percent: int, shadow_percent: int = 0) -> None:
        """Give the candidate so much of the traffic, and copies of so much of it; the stable version gets the rest."""
        self._apply([Share(self.stable, 100 - percent), Share(self._required(), percent, shadow_percent)])

    def promote(self) -> ServedVersion:
        """Make the candidate the stable version; returns the old one, out of the front door and still running."""
        old, new = self.stable, self._required()
        self._apply([Share(new, 100)])
        self.stable, self.candidate = new, None
        if self._mending is not None:
            self._mending.close()
        self._mending = Mending(new, self._patience_s, self._tell)
        self._write_scrape()
        return old

    def withdraw(self) -> ServedVersion:
        """Take the candidate out of the front door; returns it, still running."""
        candidate = self._required()
        self._apply([Share(self.stable, 100)])
        self.candidate = None
        return candidate

    def flush(self) -> None:
        """Let the models write what they hold back; nothing is answered any more."""
        for served in filter(None, (self.candidate, self.stable)):
            served.flush()

    def end_tritons(self) -> None:
        """End what answers; Envoy refuses from then on."""
        for served in filter(None, (self.candidate, self.stable)):
            served.end()

    def end(self) -> None:
        """End every process."""
        self.end_tritons()
        self.front.end()

    def _required(self) -> ServedVersion:
        if self.candidate is None:
            raise RuntimeError("there is no candidate")
        return self.candidate

    def _apply(self, shares: list[Share]) -> None:
        """Raises `OSError` if the disk is full; all is as it was then."""
        try:
            self.front.configure(shares)
        except OSError:
            # A full disk must not keep a bad candidate in traffic: there is a little space that only this may use.
            self._ballast.unlink(missing_ok=True)
            self.front.configure(shares)
        self._shares = shares
        self._write_scrape()
        _fill(self._ballast)

    def _write_scrape(self) -> None:
        """Tell the page of metrics whom to ask; on a full disk it asks whom it asked before."""
        ports = {
            "stable" if share.served is self.stable else "candidate": share.served.server.metrics_port
            for share in self._shares
        }
        with contextlib.suppress(OSError):
            write_sources(self._runtime.path, ports, self._runtime.admin_socket, self._runtime.health_socket)


def _fill(ballast: Path) -> None:
    """Take up space that can be given back when there is no other."""
    if ballast.exists():
        return
    with contextlib.suppress(OSError), ballast.open("wb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, _BALLAST_BYTES)
        except OSError:
            ballast.unlink()
            raise
