"""Rates that change over time, and points placed by them.

By the time-rescaling theorem (Papangelou 1972; Brown et al., *Neural Computation* 14, 2002) the points t with Λ(t) = s,
where s are the points of a Poisson process of rate 1 and Λ is the integral of the rate, are a Poisson process of that
rate. So every process is drawn as unit-rate points and sent through the inverse of Λ. The other way is thinning (Lewis
& Shedler 1979): draw at the highest rate and throw points away. Rescaling was chosen because it draws no more than is
used (a spike of 50 × would cost 50 draws for each arrival kept), because the same seed at another rate is the same
stream of callers, faster, which makes two rates of a capacity search comparable, and because evenly spaced points go
through it just as well. Price: Λ must be inverted. Rates are therefore straight lines between points, whose integral
is a parabola with an exact inverse; a sine is given by many of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CHUNK = 8192
"""Arrivals that are drawn at a time."""


@dataclass(frozen=True)
class Window:
    """How much for how long: requests/s, s of warm-up before the measured window, s of that."""

    rate: float
    warmup_s: float
    duration_s: float


class Intensity:
    """Requests/s over time: straight lines between (`times_s`, `rates`), again and again after the last.

    `times_s` ascend from 0; the same time twice is a jump. Some rate is above 0.
    """

    def __init__(self, times_s: FloatArray, rates: FloatArray) -> None:
        self._times = np.asarray(times_s, dtype=np.float64)
        self._rates = np.asarray(rates, dtype=np.float64)
        pieces = np.diff(self._times) * (self._rates[1:] + self._rates[:-1]) / 2
        self._integral = np.concatenate([[0.0], np.cumsum(pieces)])

    @property
    def at_start(self) -> float:
        """Requests/s at time 0."""
        return float(self._rates[0])

    def integral(self, times_s: FloatArray) -> FloatArray:
        """Λ: requests that are expected from 0 until each of `times_s`."""
        rounds, within = np.divmod(times_s, self._times[-1])
        piece = self._piece(self._times, within)
        passed = within - self._times[piece]
        within_piece = passed * (self._rates[piece] + self._slope(piece) * passed / 2)
        expected: FloatArray = rounds * self._integral[-1] + self._integral[piece] + within_piece
        return expected

    def inverse(self, expected: FloatArray) -> FloatArray:
        """The times at which Λ reaches each of `expected`."""
        rounds, rest = np.divmod(expected, self._integral[-1])
        piece = self._piece(self._integral, rest)
        rest = rest - self._integral[piece]
        rate = self._rates[piece]
        # The root of the parabola in the form that loses no digits when the line is flat.
        root = np.sqrt(np.maximum(rate * rate + 2 * self._slope(piece) * rest, 0))
        below = rate + root
        passed = np.divide(2 * rest, below, out=np.zeros_like(rest), where=below > 0)
        reached: FloatArray = rounds * self._times[-1] + self._times[piece] + passed
        return reached

    def _slope(self, piece: npt.NDArray[np.int64]) -> FloatArray:
        length = self._times[piece + 1] - self._times[piece]
        rise = self._rates[piece + 1] - self._rates[piece]
        slope: FloatArray = np.divide(rise, length, out=np.zeros_like(rise), where=length > 0)
        return slope

    def _piece(self, edges: FloatArray, values: FloatArray) -> npt.NDArray[np.int64]:
        return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def flat(rate: float, duration_s: float) -> Intensity:
    """The same rate all the time."""
    return Intensity(np.array([0.0, duration_s]), np.array([rate, rate]))


def exponential_points(rng: np.random.Generator) -> Iterator[FloatArray]:
    """Points of a Poisson process of rate 1, without end."""
    last = 0.0
    while True:
        points = last + np.cumsum(rng.standard_exponential(CHUNK))
        last = float(points[-1])
        yield points


def even_points() -> Iterator[FloatArray]:
    """0, 1, 2, … without end."""
    first = 0
    while True:
        yield np.arange(first, first + CHUNK, dtype=np.float64)
        first += CHUNK


def placed(points: Iterator[FloatArray], intensity: Intensity, window: Window) -> Iterator[FloatArray]:
    """Unit-rate `points` as arrivals of `intensity`, which the warm-up holds at its first value."""
    warming = intensity.at_start * window.warmup_s
    for chunk in points:
        measured = intensity.inverse(np.maximum(chunk - warming, 0))
        if warming > 0:
            measured = np.where(chunk < warming, chunk / intensity.at_start - window.warmup_s, measured)
        # Rounding must not let a later arrival come first.
        measured = np.maximum.accumulate(measured)
        inside = int(np.searchsorted(measured, window.duration_s))
        yield measured[:inside]
        if inside < len(chunk):
            return
