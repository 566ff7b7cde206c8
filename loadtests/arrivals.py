"""Arrival processes: when requests come, decided before the first one is sent.

The schedule is a plain array, drawn from a seed and never touched by what the server does: that is what makes the load
open-loop. A closed-loop user waits for its answer before it sends again, so a server that stalls silences its own
critics ("coordinated omission", Gil Tene, *How NOT to Measure Latency*, 2015). The price is memory: 8 bytes an arrival.

A process is one function from (generator, requests/s, seconds) to ascending times in [0, seconds), and one line in
`PROCESSES`.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Process = Callable[[np.random.Generator, float, float], FloatArray]


def poisson(rng: np.random.Generator, rate: float, duration_s: float) -> FloatArray:
    """Independent callers: exponential gaps, so a second with twice the mean is ordinary.

    The count varies from seed to seed (standard deviation √(rate · duration)); fixing it would make the gaps depend on
    each other.
    """
    expected = rate * duration_s
    times = np.cumsum(rng.exponential(1 / rate, int(expected + 6 * expected**0.5) + 16))
    while times[-1] < duration_s:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.exponential(1 / rate, len(times)))])
    return _before(times, duration_s)


def constant(rng: np.random.Generator, rate: float, duration_s: float) -> FloatArray:  # noqa: ARG001
    """A metronome: kinder than reality, and the right thing when two runs must meet the very same load."""
    return _before(np.arange(int(np.ceil(rate * duration_s)) + 1) / rate, duration_s)


def _before(times: FloatArray, end_s: float) -> FloatArray:
    return times[: int(np.searchsorted(times, end_s))]


PROCESSES: dict[str, Process] = {"poisson": poisson, "constant": constant}
