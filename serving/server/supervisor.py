"""The supervisor: starts Triton and Envoy, mends them, and leaves nothing behind, whoever dies first.

It is a process of its own, in its own session, because the process that wants the endpoint may be killed with
-9 and somebody must outlive it. The ways down, all ending in the same sweep:

- the parent closes the pipe, or is gone by any means: end of file on standard input;
- SIGTERM;
- something can't be mended: the parent is told why, with the last lines of the log;
- the supervisor itself is killed with -9: the kernel kills its children (`serving.server.launch`), the parent sweeps;
- both are killed with -9: Triton and Envoy die, Triton's stubs and the files stay until the next start sweeps them
  (`serving.server.runtime`).

Whatever else dies is mended rather than mourned: a model process (`serving.server.mending`), Triton (there, too), Envoy
(`serving.server.front`).

supervisord, circus, honcho, s6 and runit were considered. They restart children well, and that is the small part here,
a dozen lines. None survives a kill -9 of what started it and tells it why, ties itself to a parent, removes shared
memory, can tell a healthy server with a dead model from a healthy one, or drains a proxy before it ends what is
behind it; in a pod, systemd isn't there. So the loop is ours, and small: one thread that looks at every part five times
a second. It waits for none of them, but for an answer of Envoy's administration, two seconds at most. What takes long
runs beside it, and asks it to act (`do`).
"""

import contextlib
import os
import queue
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from serving.observability.page import MetricsPage
from serving.observability.settings import observe_environment
from serving.server.drain import Drain
from serving.server.fleet import Fleet
from serving.server.runtime import Runtime
from serving.server.supervision import Event, Plan
from serving.server.triton import LOOPBACK, PortTakenError
from serving.server.triton import environment as triton_environment
from slipway.errors import ServingError

_TICK_S = 0.2
_START_TICK_S = 0.05
_PORT_ATTEMPTS = 3
_REFUSING_S = 1.0

Result = TypeVar("Result")


class _Leaving(Exception):  # noqa: N818
    """The parent is gone or asked to end."""


class Supervisor:
    """Keeps one endpoint up until it is told to leave, its parent is gone, or it can't."""

    def __init__(self, runtime: Runtime, plan: Plan) -> None:
        self.runtime = runtime
        self.plan = plan
        self.fleet = Fleet(runtime, plan, self.note)
        self._parent = os.getppid()
        self._terminated = False
        self._metrics: MetricsPage | None = None
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()

    def run(self, when_ready: Callable[["Supervisor"], None]) -> int:
        """Start, watch, stop; the exit code. `when_ready` is called once, when the front door answers."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            metrics = self._metrics = self._listen_for_scrapers()
            version = self._start()
            metrics.keep()
            when_ready(self)
            stable = self.fleet.stable
            ports = (self.fleet.front.port, metrics.port, stable.server.http_port, stable.server.grpc_port)
            _tell(Event.ready(version, *ports, stable.instances))
            while True:
                self._tick(_TICK_S)
                metrics.keep()
                self._do_what_was_asked()
                self.fleet.step()
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

    def do(self, action: Callable[[], Result]) -> Result:
        """Have the loop do `action`, from another thread; returns or raises what it does. Takes up to a tick."""
        future: Future[Result] = Future()
        self._asked.put((action, future))
        return future.result()

    def note(self, message: str) -> None:
        """Say something to whoever wanted the endpoint."""
        _tell(Event("note", message))

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._terminated = True

    def _tick(self, seconds: float) -> None:
        """Sleep a moment; raises `_Leaving` if it is time to go."""
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        # Nothing is ever written to the pipe: readable means closed.
        if self._terminated or readable or os.getppid() != self._parent:
            raise _Leaving

    def _listen_for_scrapers(self) -> MetricsPage:
        observe = self.plan.observe
        host, port = observe.get("metrics_host", LOOPBACK), observe.get("metrics_port", 0)
        environment = triton_environment(self.runtime.id) | observe_environment(observe)
        return MetricsPage(self.runtime.path, host, port, environment)

    def _start(self) -> str:
        """Start both; returns Triton's version when the front door answers."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self.fleet.start()
                return self._await_start()
            except PortTakenError:
                self.fleet.end()
                self.fleet.stable.move()
                if attempt == _PORT_ATTEMPTS:
                    raise
        raise AssertionError

    def _await_start(self) -> str:
        fleet, version = self.fleet, None
        timeout_s = self.plan.start_timeout_s
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._tick(_START_TICK_S)
            for process in (fleet.stable.process, fleet.front.process):
                if process.is_running:
                    continue
                if process is fleet.stable.process and fleet.stable.found_its_ports_taken():
                    raise PortTakenError("no free ports for Triton were found; try again.")
                raise ServingError(process.obituary())
            version = version or fleet.stable.became_ready()
            if version is not None and fleet.is_healthy(fleet.stable):
                fleet.watch()
                return version
        words = fleet.stable.process.last_words()
        raise ServingError(f"the model was not ready after {timeout_s:g} s. {words}")

    def _do_what_was_asked(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                action, future = self._asked.get_nowait()
                try:
                    future.set_result(action())
                except BaseException as error:  # it belongs to whoever asked
                    future.set_exception(error)

    def _stop(self) -> None:
        """Drain, end, sweep: what was accepted is answered, or at the end of the grace time refused."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        front = self.fleet.front
        drain = Drain(front.admin, lambda: front.is_running)
        if drain.run(self.plan.grace_s):
            self.fleet.flush()
        else:
            # Without Triton, Envoy answers what still waits with 503.
            self.fleet.end_tritons()
            drain.is_answered(time.monotonic() + _REFUSING_S)
        self.fleet.end()
        if self._metrics is not None:
            self._metrics.close()
        self.runtime.sweep()


def _tell(event: Event) -> None:
    with contextlib.suppress(OSError):
        print(event.line(), flush=True)


def main(arguments: list[str]) -> int:
    """`python -m serving.server.supervisor DIRECTORY`, with a pipe on standard input that its parent holds open."""
    from serving.rollout.control import listen

    runtime = Runtime.join(Path(arguments[0]))
    return Supervisor(runtime, Plan.read(runtime.path)).run(when_ready=listen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
