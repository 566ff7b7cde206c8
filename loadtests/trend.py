"""Whether a series goes anywhere: Mann and Kendall's test, and Theil and Sen's slope.

Both look only at the order of pairs of points, so one stalled window or one collection of garbage moves neither; a
least-squares line would be bent by it. Price: O(n²) pairs, which is why they get windows and not requests.
(Mann 1945, Kendall 1975, Sen 1968; the variance is without ties' correction, which makes the test more careful.)
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_FEWEST = 8


@dataclass(frozen=True)
class Trend:
    """`slope` in units of y for each unit of x; `p_value` of there being none."""

    slope: float
    p_value: float


def trend_of(x: FloatArray, y: FloatArray) -> Trend | None:
    """The trend of `y` `[points]` over ascending `x` `[points]`; None with fewer than 8 points, too few to tell."""
    n = len(x)
    if n < _FEWEST:
        return None
    earlier, later = np.triu_indices(n, 1)
    rise, run = y[later] - y[earlier], x[later] - x[earlier]
    score = float(np.sign(rise).sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    z = (score - math.copysign(1, score)) / deviation if score else 0.0
    return Trend(float(np.median(rise / run)), math.erfc(abs(z) / math.sqrt(2)))
