"""Measuring on a shared machine: what other processes took meanwhile is known, and spoilt runs are repeated."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from benchmarks.serving.processes import tree, used_s

T = TypeVar("T")


class Watch:
    """Repeats runs in which others took more than `most` of all cores, for `patience_s` in all; then takes any."""

    def __init__(self, most: float, patience_s: float) -> None:
        self._most = most
        self._ends = time.monotonic() + patience_s
        self.shares: list[float] = []
        """Of the machine that others took in the runs that were kept."""

    def __call__(self, run: Callable[[], T]) -> T:
        """The first undisturbed run, or when patience is over the least disturbed one."""
        best: tuple[float, T] | None = None
        while True:
            found = self._once(run)
            if best is None or found[0] < best[0]:
                best = found
            if best[0] <= self._most or time.monotonic() > self._ends:
                self.shares.append(best[0])
                return best[1]
            time.sleep(0.5)

    def _once(self, run: Callable[[], T]) -> tuple[float, T]:
        began, busy, own = time.monotonic(), _busy_s(), _own_s()
        result = run()
        others = (_busy_s() - busy) - (_own_s() - own)
        return others / (os.cpu_count() or 1) / (time.monotonic() - began), result

    def __str__(self) -> str:
        """For the conditions of a table."""
        shares = sorted(self.shares)
        middle, most = shares[len(shares) // 2], shares[-1]
        return f"other processes took {middle:.0%} of the cores in the middle run and {most:.0%} in the worst"


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _own_s() -> float:
    return used_s(tree(psutil.Process()))
