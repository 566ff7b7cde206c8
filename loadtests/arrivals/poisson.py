"""Independent callers: exponential gaps, so a second with twice the mean is ordinary.

The count varies from seed to seed (standard deviation √(rate · duration)); fixing it would make the gaps depend on each
other.
"""

from collections.abc import Iterator

import numpy as np

from loadtests.arrivals.rescaling import FloatArray, Window, exponential_points, flat, placed
from slipway.recipe.arrivals import Poisson


def poisson(rng: np.random.Generator, window: Window, section: Poisson) -> Iterator[FloatArray]:  # noqa: ARG001
    """Arrivals at `window.rate`."""
    return placed(exponential_points(rng), flat(window.rate, window.duration_s), window)
