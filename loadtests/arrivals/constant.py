"""A metronome: kinder than reality, and the right thing when two runs must meet the very same load."""

from collections.abc import Iterator

import numpy as np

from loadtests.arrivals.rescaling import FloatArray, Window, even_points, flat, placed
from slipway.recipe.arrivals import Constant


def constant(rng: np.random.Generator, window: Window, section: Constant) -> Iterator[FloatArray]:  # noqa: ARG001
    """Arrivals 1 / `window.rate` apart."""
    return placed(even_points(), flat(window.rate, window.duration_s), window)
