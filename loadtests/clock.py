"""An alarm for gevent that rings on time.

gevent's own timers ride on epoll's timeout, which counts whole milliseconds and rounds up: measured on two shared
cores, they ring 0.95 ms late at the median, and as latency counts from the schedule, every percentile would carry
it. A Linux timerfd is a file that becomes readable at an absolute time, and epoll wakes for it at once: 0.16 ms
late, same run. Spinning would do as well and take a core from the server under test; a thread that sleeps would
have to win the interpreter lock first.

Price: three C calls through ctypes (`os.timerfd_create` is there from Python 3.13 on), and Linux only.
"""

import ctypes
import os
from types import TracebackType
from typing import Self

import gevent

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_READ = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Waits for points of `time.monotonic()`; other greenlets run meanwhile. One greenlet may use it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._watcher = gevent.get_hub().loop.io(self._fd, _READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.close()
        os.close(self._fd)

    def wait_until(self, moment_s: float) -> None:
        """Return at `moment_s`; at once (after letting the others run) when it has passed."""
        # A value of zero would disarm the timer.
        nanoseconds = max(int(moment_s * 1e9), 1)
        value = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(nanoseconds, 1_000_000_000)))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(value), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        gevent.get_hub().wait(self._watcher)
        os.read(self._fd, 8)
