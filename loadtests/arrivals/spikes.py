"""Bursts: what a push notification, a market's opening or a retry storm does to a quiet service."""

from collections.abc import Iterator

import numpy as np

from loadtests.arrivals.rescaling import FloatArray, Intensity, Window, exponential_points, placed
from slipway.recipe.arrivals import Spikes


def spikes(rng: np.random.Generator, window: Window, section: Spikes) -> Iterator[FloatArray]:
    """Poisson arrivals at `window.rate`, `section.height` times as many for `length_s` of every `every_s`."""
    begins = section.first_s
    ends = begins + section.length_s
    times = np.array([0.0, begins, begins, ends, ends, section.every_s])
    rates = window.rate * np.array([1.0, 1.0, section.height, section.height, 1.0, 1.0])
    return placed(exponential_points(rng), Intensity(times, rates), window)
