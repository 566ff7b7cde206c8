"""Day and night: a sine, for autoscaling and for soaks. It begins at night, so that a run meets a rising rate first.

The sine is given by 1,000 straight lines a day; the rate is nowhere off by more than 5 millionths of its mean.
"""

from collections.abc import Iterator

import numpy as np

from loadtests.arrivals.rescaling import FloatArray, Intensity, Window, exponential_points, placed
from slipway.recipe.arrivals import Diurnal

_LINES = 1000


def diurnal(rng: np.random.Generator, window: Window, section: Diurnal) -> Iterator[FloatArray]:
    """Poisson arrivals at `window.rate` × (1 − depth · cos(2π t / period))."""
    phase = np.linspace(0, 1, _LINES + 1)
    rates = window.rate * (1 - section.depth * np.cos(2 * np.pi * phase))
    times = phase * (section.period_s or window.duration_s)
    return placed(exponential_points(rng), Intensity(times, np.maximum(rates, 0)), window)
