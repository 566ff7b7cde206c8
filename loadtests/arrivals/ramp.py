"""A rate that goes from one level to another in a straight line: at which rate do latencies leave the floor?"""

from collections.abc import Iterator

import numpy as np

from loadtests.arrivals.rescaling import FloatArray, Intensity, Window, exponential_points, placed
from slipway.recipe.arrivals import Ramp


def ramp(rng: np.random.Generator, window: Window, section: Ramp) -> Iterator[FloatArray]:
    """Poisson arrivals, from `section.start` to `section.end` times `window.rate`."""
    ends = window.rate * np.array([section.start, section.end])
    return placed(exponential_points(rng), Intensity(np.array([0.0, window.duration_s]), ends), window)
