"""How several workers begin at one moment, and end together: a worker's side. `conductor` has the master's.

Each worker says when it has connected and drawn its first requests. When all have, the master answers with a moment a
little ahead on its own monotonic clock. Clocks of machines differ, so each worker asks the master some times what its
clock says and takes the answer that came soonest: it is right to half of that round trip, which is some tenths of a
millisecond in a network of one's own. On one machine the clock is one. How far off the start may have been, and how
far the clocks had parted by the end, goes with the samples for `validity` to judge.

The messages are Locust's own (`register_message`), over the connection that master and workers have anyway.
"""

import asyncio
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gevent
import locust.runners
from gevent.event import AsyncResult

from loadtests.clock import Offset, Reading, begins_at, offset_of
from loadtests.dispatch import LEAD_S
from loadtests.job import SAMPLES, Job, take_over
from loadtests.parcels import Parcels
from loadtests.reports import Report, report
from slipway import __version__
from slipway.errors import LoadTestError
from slipway.verdict import Generator

READY, START, DONE, OVER = "slipway-ready", "slipway-start", "slipway-done", "slipway-over"
HELLO, JOB, PROGRESS = "slipway-hello", "slipway-job", "slipway-progress"
PING, PONG = "slipway-ping", "slipway-pong"

SILENCE_S = 10.0
"""A master or a worker that isn't heard for so long is gone; Locust's own limit is a minute, too long for a load that
nobody reads any more."""

_PINGS = 20
_PATIENCE_S = 5.0
_WAIT_S = 60.0


def boot_id() -> str:
    """The same in all processes that have one monotonic clock."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Alone:
    """The only process of a run."""

    async def start(self) -> float:
        """The moment of `time.monotonic()` at which to begin. For the thread that sends."""
        return time.monotonic() + LEAD_S

    def tell(self) -> None:
        """Pass on that this process is ready. For Locust's thread, now and then."""

    def progressed(self, values: Report) -> None:
        """Tell the master how far this process is."""

    def vouched(self, generator: Generator) -> Generator:
        """`generator` with what the start and the clocks were like."""
        return generator

    def done(self, samples: Path) -> None:
        """This process has sent its share and written its samples."""

    def failed(self, why: str) -> None:
        """This process can't send its share; there is nothing that the others could do instead."""


class Member(Alone):
    """A worker. `elsewhere`, once it has its job from the master, it shares no file with it."""

    def __init__(self, environment: Any) -> None:
        self._runner = environment.runner
        self.parcels = Parcels(self._runner, master=False)
        self.elsewhere = False
        # The master's options replace a worker's at the start, and these are its own affair.
        self._allow_remote: bool = environment.parsed_options.allow_remote
        self.progress_fd: int = environment.parsed_options.progress_fd
        self._connected = threading.Event()
        self._starts_at: Future[float] = Future()
        self._answer = AsyncResult()
        self._job = AsyncResult()
        self._over = AsyncResult()
        self._offset = Offset(0.0, 0.0)
        listeners = {START: self._on_start, PONG: self._on_pong, JOB: self._on_job, OVER: self._on_over}
        for message, listener in listeners.items():
            self._runner.register_message(message, listener)
        locust.runners.MASTER_HEARTBEAT_TIMEOUT = SILENCE_S
        # Locust waits for ever for the first one.
        self._runner.last_heartbeat_timestamp = time.time()

    def job(self, scratch: Path) -> Job:
        """What this worker, which shares no file with its master, has to send."""
        self.elsewhere = True
        self._runner.send_message(HELLO, {"version": __version__, "host": socket.gethostname()})
        message = _within(self._job, _WAIT_S, "The master gave this worker nothing to do.")
        report(self.progress_fd, begun=message["address"])
        return take_over(message, self.parcels, scratch, allow_remote=self._allow_remote)

    async def start(self) -> float:  # noqa: D102
        self._starts_at = Future()
        self._connected.set()
        return await asyncio.wrap_future(self._starts_at)

    def tell(self) -> None:
        """Compare the clocks and say that this worker is ready. No other thread may use the connection."""
        if self._connected.is_set():
            self._connected.clear()
            self._offset = self._compare_clocks()
            self._runner.send_message(READY, {})

    def progressed(self, values: Report) -> None:  # noqa: D102
        if self.elsewhere:
            self._runner.send_message(PROGRESS, values)

    def vouched(self, generator: Generator) -> Generator:  # noqa: D102
        if not self.elsewhere:
            return generator
        now = self._compare_clocks()
        drift_s = max(abs(now.ahead_s - self._offset.ahead_s) - now.error_s - self._offset.error_s, 0.0)
        known = {
            "host": socket.gethostname(),
            "start_error_ms": 1000 * self._offset.error_s,
            "clock_drift_ms": 1000 * drift_s,
        }
        return generator.model_copy(update=known)

    def done(self, samples: Path) -> None:
        """This worker has sent its share; returns when nobody needs its samples any more."""
        if not self.elsewhere:
            self._runner.send_message(DONE, {})
            return
        self._runner.send_message(DONE, {"parcel": self.parcels.offer(SAMPLES, samples).message()})
        # Without a limit of its own: if the master is gone, its silence ends this process.
        self._over.get()

    def failed(self, why: str) -> None:  # noqa: D102
        where = f"The worker on {socket.gethostname()}: " if self.elsewhere else ""
        self._runner.send_message(DONE, {"error": where + why})

    def _compare_clocks(self) -> Offset:
        readings = []
        boots = set()
        for _ in range(_PINGS):
            self._answer = AsyncResult()
            self._runner.send_message(PING, {"asked": time.monotonic()})
            asked, said, answered, boot = _within(
                self._answer, _PATIENCE_S, f"The master did not answer within {_PATIENCE_S:g} s."
            )
            readings.append(Reading(asked, said, answered))
            boots.add(boot)
        return offset_of(readings, same_machine=boots == {boot_id()})

    def _on_pong(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        answered = time.monotonic()
        self._answer.set((msg.data["asked"], msg.data["said"], answered, msg.data["boot"]))

    def _on_job(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        self._job.set(msg.data)

    def _on_start(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        try:
            self._starts_at.set_result(begins_at(float(msg.data["at"]), self._offset, time.monotonic()))
        except LoadTestError as error:
            self._starts_at.set_exception(error)

    def _on_over(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002
        # Here and not where it is waited for, as the master's word to quit follows.
        error = msg.data.get("error")
        if error:
            report(self.progress_fd, error=error)
            # Not from here: quitting ends the greenlet that messages are handled in.
            gevent.spawn(self._runner.quit)
        else:
            report(self.progress_fd, over=True)
        self._over.set(None)


def _within(answer: AsyncResult, seconds: float, otherwise: str) -> Any:
    try:
        return answer.get(timeout=seconds)
    except gevent.Timeout:
        raise LoadTestError(otherwise) from None
