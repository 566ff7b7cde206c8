"""An alarm for asyncio that rings on time, and what another machine's clock says.

asyncio's own timers ride on epoll's timeout, which counts whole milliseconds and rounds up: requests would leave up
to a millisecond late, and as latency counts from the schedule, every percentile would carry it. A Linux timerfd is
a file that becomes readable at an absolute time, and epoll wakes for it at once. Measured on two shared cores: 0.26
ms late at the median against 1.05 ms, same run. Spinning would do as well and take a core from the server under
test.

Price: two C functions through ctypes (`os.timerfd_create` is there from Python 3.13 on), and Linux only.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from slipway.errors import LoadTestError

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


class Waiter(Protocol):
    """Waits for points of a clock."""

    async def wait_until(self, moment_s: float) -> None:
        """Return at `moment_s`; at once (after letting the others run) when it has passed."""


class Clock(Protocol):
    """What a load is timed by."""

    def now(self) -> float:
        """Seconds from some origin; never goes back."""

    def alarm(self) -> AbstractContextManager[Waiter]:
        """For one task of the running loop."""


class Monotonic:
    """The machine's own."""

    def now(self) -> float:
        """`time.monotonic()`."""
        return time.monotonic()

    def alarm(self) -> "Alarm":
        """On time, see above."""
        return Alarm()


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Waits for points of `time.monotonic()`; other tasks of the running loop go on meanwhile. One task may use
    it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ring)
        self._waiting: asyncio.Future[None] = self._loop.create_future()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    async def wait_until(self, moment_s: float) -> None:
        """Return at `moment_s`; at once (after letting the others run) when it has passed."""
        self._waiting = self._loop.create_future()
        # A value of zero would disarm the timer.
        nanoseconds = max(int(moment_s * 1e9), 1)
        value = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(nanoseconds, 1_000_000_000)))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(value), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        await self._waiting

    def _ring(self) -> None:
        os.read(self._fd, 8)
        if not self._waiting.done():
            self._waiting.set_result(None)


@dataclass(frozen=True)
class Reading:
    """One question to another process about its monotonic clock: when asked and answered by ours, what it said."""

    asked_s: float
    said_s: float
    answered_s: float


@dataclass(frozen=True)
class Offset:
    """How another monotonic clock stands to ours."""

    ahead_s: float
    """The other one minus ours."""
    error_s: float
    """The truth is no farther away than this."""


def offset_of(readings: Sequence[Reading], *, same_machine: bool) -> Offset:
    """What `readings` tell (Cristian 1989): the answer that came soonest was said in the middle, or near it.

    On one machine the clock is one, unless the readings contradict (a namespace may shift it).
    """
    best = min(readings, key=lambda reading: reading.answered_s - reading.asked_s)
    error_s = (best.answered_s - best.asked_s) / 2
    ahead_s = best.said_s - (best.asked_s + best.answered_s) / 2
    return Offset(0.0, 0.0) if same_machine and abs(ahead_s) <= error_s else Offset(ahead_s, error_s)


def begins_at(starts_at_s: float, offset: Offset, now_s: float) -> float:
    """The moment `starts_at_s` of the other clock by ours. Raises `LoadTestError` if it is past."""
    here_s = starts_at_s - offset.ahead_s
    if here_s <= now_s:
        raise LoadTestError(
            f"The master's word to begin came {now_s - here_s:.1f} s late: the way to it is too slow for workers to "
            "begin together."
        )
    return here_s
