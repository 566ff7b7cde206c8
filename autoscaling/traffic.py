"""Traffic: requests/s at each second, known in full before anything is simulated.

Rates here are means; the simulation draws the arrivals, so that a constant traffic is a Poisson process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """`rates[s]` requests/s in second `s`."""

    name: str
    rates: FloatArray

    def __post_init__(self) -> None:
        if not len(self.rates) or not np.isfinite(self.rates).all() or (self.rates < 0).any():
            raise ValueError(f"{self.name}: rates must be numbers of at least 0, one for each second")

    def __len__(self) -> int:
        return len(self.rates)

    def between(self, start_s: float, end_s: float) -> float:
        """Mean rate from `start_s` to `end_s`."""
        part = self.rates[int(start_s) : max(int(start_s) + 1, int(end_s))]
        return float(part.mean()) if len(part) else 0.0

    def peak(self, start_s: float, end_s: float) -> float:
        """Highest rate from `start_s` to `end_s`."""
        part = self.rates[int(start_s) : max(int(start_s) + 1, int(np.ceil(end_s)))]
        return float(part.max()) if len(part) else 0.0


def constant(rate: float, duration_s: int) -> Traffic:
    """The same rate all the time."""
    return Traffic("constant", np.full(duration_s, float(rate)))


def ramp(start: float, end: float, duration_s: int, *, ramp_s: int | None = None) -> Traffic:
    """From `start` to `end` in `ramp_s` (by default a half of the duration), then `end`."""
    climb = duration_s // 2 if ramp_s is None else ramp_s
    seconds = np.arange(duration_s)
    return Traffic("ramp", start + (end - start) * np.minimum(1.0, seconds / max(1, climb)))


def spike(base: float, peak: float, duration_s: int, *, at_s: int | None = None, for_s: int = 300) -> Traffic:
    """`base`, and `peak` for `for_s` seconds from `at_s` (by default after a third of the duration)."""
    begin = duration_s // 3 if at_s is None else at_s
    rates = np.full(duration_s, float(base))
    rates[begin : begin + for_s] = peak
    return Traffic("spike", rates)


def diurnal(low: float, high: float, duration_s: int = 86_400, *, period_s: int = 86_400) -> Traffic:
    """A day: a sine between `low` at its beginning and `high` in its middle."""
    seconds = np.arange(duration_s)
    return Traffic("diurnal", low + (high - low) * 0.5 * (1 - np.cos(2 * np.pi * seconds / period_s)))


def recorded(times_s: Sequence[float] | FloatArray, name: str = "recorded") -> Traffic:
    """Counts of recorded arrivals, second by second from the first one."""
    times = np.asarray(times_s, dtype=np.float64)
    if not len(times) or not np.isfinite(times).all():
        raise ValueError("recorded traffic needs the times of at least one arrival, in seconds")
    return Traffic(name, np.bincount((times - times.min()).astype(np.int64)).astype(np.float64))
