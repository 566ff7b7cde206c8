"""Looks at the server while the load runs: processor, memory, Triton's counters, about once a second.

A thread of the process that waits for the generator, so that it takes nothing from the one that sends. Memory is
bounded however long the run is: when there are too many readings every second one is dropped and the pace halved.

A look costs some milliseconds of processor, most of it to find out whose a process is; so that is asked only when one
has gone, and every few seconds, for those that came.
"""

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from loadtests.server import Server
from loadtests.triton_statistics import Counters, read_counters
from slipway.errors import LoadTestError
from slipway.timeline import Reading, Usage, Work

_INTERVAL_S = 1.0
_MOST_READINGS = 600
_LOOK_FOR_NEW_S = 5.0


@dataclass(frozen=True)
class _Look:
    at_s: float
    """On the monotonic clock."""
    cpu_s: float
    """Processor time of the server since the monitor began, of processes that have ended, too."""
    generator_cpu_s: float
    machine_cpu_s: float
    rss_bytes: int
    counters: Counters | None


class Monitor:
    """Readings of one server over one run; use as a context manager."""

    def __init__(self, server: Server | None, metrics_url: str | None, model: str) -> None:
        self._server = server
        self._metrics_url = metrics_url
        self._model = model
        self._looks: list[_Look] = []
        self.interval_s = _INTERVAL_S
        """Between two looks; grows with the run."""
        self._known: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, tuple[float, float]] = {}
        self._looked_for_new_s = -1e9
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True, name="monitor")

    def __enter__(self) -> Self:
        if self._server is not None or self._metrics_url is not None:
            self._look()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._look()

    @property
    def looks(self) -> int:
        """How many are kept."""
        return len(self._looks)

    def readings(self, zero_s: float) -> list[Reading]:
        """One for each pair of neighbouring looks; `zero_s` is the run's start on the monotonic clock."""
        pairs = zip(self._looks, self._looks[1:], strict=False)
        return [
            Reading(at_s=after.at_s - zero_s, usage=self._usage(before, after), work=_work(before, after))
            for before, after in pairs
        ]

    def over(self, start_s: float, end_s: float) -> tuple[Usage | None, Work | None]:
        """Over the part of `[start_s, end_s]` (monotonic) that lies between two looks."""
        inside = [look for look in self._looks if start_s <= look.at_s <= end_s]
        if len(inside) < 2:
            inside = self._looks
        if len(inside) < 2:
            return None, None
        return self._usage(inside[0], inside[-1]), _work(inside[0], inside[-1])

    def _main(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._look()
            if len(self._looks) > _MOST_READINGS:
                del self._looks[1::2]
                self.interval_s *= 2

    def _look(self) -> None:
        cpu_s, rss = self._processes() if self._server is not None else (0.0, 0)
        counters = None
        if self._metrics_url is not None:
            with contextlib.suppress(LoadTestError):
                counters = read_counters(self._metrics_url, self._model)
        self._looks.append(_Look(time.monotonic(), cpu_s, _own_cpu_s(), _machine_cpu_s(), rss, counters))

    def _processes(self) -> tuple[float, int]:
        assert self._server is not None  # noqa: S101  (asked by the caller)
        now = time.monotonic()
        gone = any(not process.is_running() for process in self._known.values())
        if gone or now - self._looked_for_new_s > _LOOK_FOR_NEW_S:
            self._known = {process.pid: process for process in self._server.processes()}
            self._looked_for_new_s = now
        rss = 0
        for pid, process in self._known.items():
            with contextlib.suppress(psutil.Error):
                times, memory = process.cpu_times(), process.memory_info()
                used = times.user + times.system
                # What was used before the first look is no part of this run; who came later came during it.
                first, _ = self._cpu_s.get(pid, (0.0 if self._looks else used, used))
                self._cpu_s[pid] = (first, used)
                rss += memory.rss
        return sum(last - first for first, last in self._cpu_s.values()), rss

    def _usage(self, before: _Look, after: _Look) -> Usage | None:
        seconds = after.at_s - before.at_s
        if self._server is None or seconds <= 0:
            return None
        return Usage(
            cpu_cores=max(after.cpu_s - before.cpu_s, 0.0) / seconds,
            cores=len(os.sched_getaffinity(0)),
            rss_mb=after.rss_bytes / 1e6,
            generator_cores=max(after.generator_cpu_s - before.generator_cpu_s, 0.0) / seconds,
            machine_cores=max(after.machine_cpu_s - before.machine_cpu_s, 0.0) / seconds,
        )


def _work(before: _Look, after: _Look) -> Work | None:
    if before.counters is None or after.counters is None:
        return None
    return after.counters.since(before.counters)


def _machine_cpu_s() -> float:
    """Processor time of everything since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _own_cpu_s() -> float:
    """Processor time of the generator: the children of this process that aren't a server's, and what has ended."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("launch.py" in argument for argument in child.cmdline()):
                    times = child.cpu_times()
                    total += times.user + times.system
    return total
