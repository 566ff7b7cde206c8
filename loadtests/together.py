"""How several workers begin at one moment, and end together.

Each worker tells the master when it has connected and drawn its first requests. When all have, the master answers with
a moment a little ahead, in wall-clock time, as machines have no other clock in common; each worker converts it to its
own monotonic clock once. On one machine the shares of the plan then fit to some microseconds, on several to what NTP
gives. A worker whose clock is so far off that the start is past, or lies far ahead, says so instead of sending.

The messages are Locust's own (`register_message`), over the connection that master and workers have anyway.
"""

import asyncio
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any

import gevent
from locust.runners import MasterRunner, WorkerRunner

from loadtests.clock import begins_at
from loadtests.dispatch import LEAD_S

_READY, _START, _DONE = "slipway-ready", "slipway-start", "slipway-done"
_AHEAD_S = 1.0
"""Time for the master's message to reach every worker."""


class Together:
    """The side of one process: a master's, a worker's, or that of one that is alone."""

    def __init__(self, runner: Any, workers: int) -> None:
        self._runner = runner
        self._workers = workers
        self._ready: set[str] = set()
        self._done: set[str] = set()
        self._connected = threading.Event()
        self._starts_at: Future[float] = Future()
        if isinstance(runner, MasterRunner):
            runner.register_message(_READY, self._on_ready)
            runner.register_message(_DONE, self._on_done)
        elif isinstance(runner, WorkerRunner):
            runner.register_message(_START, self._on_start)

    async def start(self) -> float:
        """The moment of `time.monotonic()` at which to begin, when everybody is ready. For the thread that sends."""
        if not isinstance(self._runner, WorkerRunner):
            return time.monotonic() + LEAD_S
        self._connected.set()
        return begins_at(await asyncio.wrap_future(self._starts_at), time.time(), time.monotonic())

    def tell(self) -> None:
        """Pass on that this worker is ready. For Locust's thread, now and then: no other may use its connection."""
        if self._connected.is_set():
            self._connected.clear()
            self._runner.send_message(_READY, {})

    def done(self) -> None:
        """This worker has sent its share and written its samples."""
        self._end({})

    def failed(self, why: str) -> None:
        """This worker can't send its share; there is nothing that the others could do instead."""
        self._end({"error": why})

    def _end(self, message: dict[str, str]) -> None:
        if isinstance(self._runner, WorkerRunner):
            self._runner.send_message(_DONE, message)

    def _on_ready(self, environment: Any, msg: Any, **_: Any) -> None:
        self._ready.add(msg.node_id)
        if len(self._ready) == self._workers:
            environment.runner.send_message(_START, {"at": time.time() + _AHEAD_S})

    def _on_start(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        self._starts_at.set_result(float(msg.data["at"]))

    def _on_done(self, environment: Any, msg: Any, **_: Any) -> None:
        self._done.add(msg.node_id)
        error = msg.data.get("error")
        if error:
            environment.process_exit_code = 1
            print(error, file=sys.stderr, flush=True)
        if (error or len(self._done) == self._workers) and environment.web_ui is None:
            # Not from here: quitting ends the greenlet that this runs in.
            gevent.spawn(environment.runner.quit)
