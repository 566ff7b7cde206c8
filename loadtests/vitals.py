"""How the generator itself is doing: whether its figures are about the server or about itself.

While requests are timed, a task looks at the clocks a few times a second and the garbage collector reports its pauses.
What is found goes with the samples (`slipway.verdict.Generator`), for `validity` to judge:

- processor time of the thread that sends: at a whole core, answers wait to be read, and look late;
- how late the task itself was called: the loop stood still, whether or not an arrival was due then;
- wall clock against monotonic clock: somebody set the time; deadlines and start times of other machines are off;
- time that the monotonic clock did not count: the machine was suspended;
- requests that failed because this machine had no port or descriptor left.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from slipway.verdict import Generator

_INTERVAL_S = 0.2
_CLOSE_READINGS_S = 0.005


class Clocks(NamedTuple):
    """One look at the machine's clocks, in s."""

    monotonic: float
    wall: float
    boot: float


def read_clocks() -> Clocks | None:
    """All at one moment; None if the reader was interrupted in between, which would look like a jump."""
    before = time.monotonic()
    wall, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    return Clocks(before, wall, boot) if time.monotonic() - before < _CLOSE_READINGS_S else None


class Vitals:
    """Collects; used within one event loop, in the thread that sends."""

    def __init__(self, clocks: Callable[[], Clocks | None] = read_clocks) -> None:
        self._clocks = clocks
        self._last = clocks()
        self._begun_s = time.monotonic()
        self._thread_s, self._process_s = time.thread_time(), time.process_time()
        self._collection_began_s = 0.0
        self.exhausted = 0
        """Requests that failed for want of a socket, port or buffer here."""
        self._stood_still_s = 0.0
        self._pause_s = 0.0
        self._jumped_s = 0.0
        self._suspended_s = 0.0

    def look(self) -> None:
        """Compare the clocks with the last look."""
        found = self._clocks()
        if found is None:
            return
        if self._last is not None:
            passed = found.monotonic - self._last.monotonic
            asleep = (found.boot - self._last.boot) - passed
            self._suspended_s += max(asleep, 0.0)
            # The wall clock goes on while the machine sleeps; that is no jump.
            self._jumped_s = max(self._jumped_s, abs((found.wall - self._last.wall) - passed - asleep))
        self._last = found

    def stood_still(self, seconds: float) -> None:
        """The event loop came back so much later than it should."""
        self._stood_still_s = max(self._stood_still_s, seconds)

    def collected(self, phase: str, _: dict[str, int]) -> None:
        """What `gc.callbacks` wants."""
        if phase == "start":
            self._collection_began_s = time.monotonic()
        else:
            self._pause_s = max(self._pause_s, time.monotonic() - self._collection_began_s)

    def summary(self, unsent: int) -> Generator:
        """What was found, `unsent` requests included."""
        elapsed = max(time.monotonic() - self._begun_s, 1e-9)
        return Generator(
            sending_cpu=(time.thread_time() - self._thread_s) / elapsed,
            process_cpu=(time.process_time() - self._process_s) / elapsed,
            longest_stall_ms=self._stood_still_s * 1000,
            longest_collection_ms=self._pause_s * 1000,
            clock_jump_s=self._jumped_s,
            suspended_s=self._suspended_s,
            exhausted=self.exhausted,
            unsent=unsent,
        )


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Vitals]:
    """Vitals that are being collected."""
    vitals = Vitals()

    async def watch() -> None:
        while True:
            due = time.monotonic() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            vitals.stood_still(time.monotonic() - due)
            vitals.look()

    gc.callbacks.append(vitals.collected)
    watching = asyncio.create_task(watch())
    try:
        yield vitals
    finally:
        watching.cancel()
        gc.callbacks.remove(vitals.collected)
