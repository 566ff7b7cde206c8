"""Levels, one after the other: how does the server settle at each, and after the change?"""

from collections.abc import Iterator

import numpy as np

from loadtests.arrivals.rescaling import FloatArray, Intensity, Window, exponential_points, placed
from slipway.recipe.arrivals import Steps


def steps(rng: np.random.Generator, window: Window, section: Steps) -> Iterator[FloatArray]:
    """Poisson arrivals at each of `section.levels` times `window.rate`, for equal parts of the window."""
    edges = np.linspace(0, window.duration_s, len(section.levels) + 1)
    # Every level stands at the end of one step and at the beginning of the next: a jump.
    times = np.repeat(edges, 2)[1:-1]
    rates = window.rate * np.repeat(section.levels, 2)
    return placed(exponential_points(rng), Intensity(times, rates), window)
