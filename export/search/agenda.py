"""What a search has before it, and about how long that takes: for the person who waits.

Each step has a nominal duration, from one core of a current server; what the finished ones really took corrects the
rest. Progress by count of variants would stand still at a student that trains for minutes.
"""

import time
from collections.abc import Callable

from export.search.plans import Cut

_TRIAL_S = {
    "fp32": 4.0,
    "int8-dynamic": 10.0,
    "int8-nncf": 25.0,
    "int8-mixed": 30.0,
}
_OTHER_TRIAL_S = 10.0
_OPERATIONS_PER_S = 2e11
_CUT_S = 25.0


class Agenda:
    """Steps of a search and their nominal seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._left: dict[str, float] = {}
        self._done = 0.0
        self._steps = 0

    def add(self, step: str, seconds: float) -> None:
        """Plan `step`; one that is planned already stays as it is."""
        self._left.setdefault(step, seconds)

    def finish(self, step: str) -> None:
        """`step` is done, or won't be."""
        self._done += self._left.pop(step, 0.0)
        self._steps += 1

    def __str__(self) -> str:
        """For example `4 of 14, about 3 min left`."""
        total = self._steps + len(self._left)
        if not self._done:
            return f"{self._steps} of {total}"
        left = sum(self._left.values()) * (self._clock() - self._began) / self._done
        return f"{self._steps} of {total}, about {_rounded(left)} left"


def trial_seconds(quantizer: str) -> float:
    """Nominal duration of making one variant and asking it dev."""
    return _TRIAL_S.get(quantizer, _OTHER_TRIAL_S)


def cut_seconds(cut: Cut) -> float:
    """Nominal duration of making one student."""
    return _CUT_S + cut.operations / _OPERATIONS_PER_S


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
