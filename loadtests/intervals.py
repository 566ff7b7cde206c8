"""How well a run of this length knows a percentile, or a share: 95 % confidence intervals.

Of a percentile, from order statistics: of n independent latencies, Binomial(n, q) many lie below the true q-quantile,
so the two ranks that enclose 95 % of that distribution enclose the quantile with 95 % confidence, whatever the
latencies' distribution is (David & Nagaraja, *Order Statistics*, 7.1; Le Boudec, *Performance Evaluation*, 2.2). No
bootstrap is better at that, and for a p99.9 of a thousand requests most are worse: they can't leave the sample's range.

But latencies are not independent: a request that waits means that its neighbours wait. Taken as independent, 10,000
requests would promise far more than they know. So the window is cut into 30 blocks, and the number of requests above
the percentile is counted in each: if it varies d times as much as independent requests would, 10,000 requests are worth
10,000 / d (batch means; Law, *Simulation Modeling and Analysis*, 9.5.3), and the ranks are those of so few. `d` is
reported as `dependence`; it is never taken to be less than 1. A block bootstrap was the alternative: it says the same,
with a random number and hundreds of sorts. Price of ours: blocks must be longer than a disturbance. What happens once
in a run (one stall of seconds) is in one block, and then no method knows how often it would come in the next run.

Of a share: Wilson's interval (*JASA* 22, 1927), which is right for 0 of n, too, on n / d requests.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from slipway.verdict import Interval

CONFIDENCE = 0.95
BLOCKS = 30
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def quantile_interval(ordered: Floats, share: float, dependence: float = 1.0) -> Interval:
    """Interval of the `share`-quantile (0 to 1) of `ordered` (ascending, not empty).

    Its upper end is None if so few samples don't bound it: the maximum of 100 may well be below the p99.
    """
    count = len(ordered)
    worth = max(int(count / dependence), 1)
    low, high = _ranks(worth, share)
    # The same places among all samples as among as many independent ones.
    lower = ordered[min(max(math.floor(low * count / worth), 1), count) - 1]
    upper = None if high > worth else float(ordered[min(math.ceil(high * count / worth), count) - 1])
    return float(lower), upper


def share_interval(hits: float, count: int, dependence: float = 1.0) -> Interval:
    """Interval of the share of which `hits` of `count` (above 0) were seen."""
    worth = max(count / dependence, 1.0)
    share = hits / count
    centre = (share + _Z**2 / (2 * worth)) / (1 + _Z**2 / worth)
    half = _Z / (1 + _Z**2 / worth) * math.sqrt(share * (1 - share) / worth + _Z**2 / (4 * worth**2))
    return (0.0 if hits == 0 else max(centre - half, 0.0)), (1.0 if hits == count else min(centre + half, 1.0))


def dependence_of(happened: Bools) -> float:
    """How many requests are worth one independent request, at least 1, where `happened` is in order of schedule.

    The variance of the count between blocks over what it would be for independent requests of the same share.
    """
    size = len(happened) // BLOCKS
    share = float(happened.mean()) if len(happened) else 0.0
    if size < 2 or share in (0.0, 1.0):
        return 1.0
    counts = happened[: size * BLOCKS].reshape(BLOCKS, size).sum(axis=1)
    return max(float(counts.var(ddof=1)) / (size * share * (1 - share)), 1.0)


def _ranks(count: int, share: float) -> tuple[int, int]:
    """Ranks, from 1, of the order statistics that enclose the quantile; the upper may be `count` + 1: none does."""
    spread = 8 * math.sqrt(count * share * (1 - share)) + 8
    first = max(math.floor(count * share - spread), 0)
    last = min(math.ceil(count * share + spread), count)
    below = np.arange(first, last + 1)
    logarithms = np.array(
        [
            math.lgamma(count + 1) - math.lgamma(number + 1) - math.lgamma(count - number + 1)
            for number in below.tolist()
        ]
    )
    logarithms += below * math.log(share) + (count - below) * math.log1p(-share)
    reached = np.cumsum(np.exp(logarithms))
    tail = (1 - CONFIDENCE) / 2
    # P(rank l ≤ quantile) = P(at least l samples below it).
    low = int(below[int(np.searchsorted(reached, tail, side="right"))])
    high = int(below[min(int(np.searchsorted(reached, 1 - tail)), len(below) - 1)]) + 1
    return max(low, 1), high
