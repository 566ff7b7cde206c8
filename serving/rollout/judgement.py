"""Whether a candidate keeps its bounds, on the evidence of one window, with honesty about how much evidence that is.

A judgement is one of three:

- *breached*: a version in bounds would hardly ever give such figures. It is rolled back at once, not at the end of the
  step.
- *within*: the figures are in bounds, on enough requests. At the end of the step the next one begins.
- *unclear*: out of bounds, but it may be chance; or too few requests to say anything. The step is watched on, and the
  candidate rolled back if that doesn't clear it up: what can't be shown to be good doesn't go on.

Failures are tested exactly: how likely would so many be, at the rate that is allowed (binomial)? Latencies are
compared at the highest percentile that so many requests can bound at all: the largest of n values is above the true p99
with 95 % probability from n = 299 on, above the p95 from 59, the p90 from 29; bounds are order statistics (David and
Nagaraja 2003, 7.1). So a p99 is compared where there is one, and no p99 of forty requests is ever believed. A sequence
of looks finds more by chance than one look does, so the level for failures is strict; a false alarm costs the rollback
of a good version, which is the cheap mistake.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Bucket = tuple[float, float, int]
"""Lower bound, width, count; milliseconds."""

_Z = 1.959964
_ONE_SIDED = 0.05
_HARDLY = 0.005
"""A version in bounds may show so many failures with this probability, at one look."""
_MOST_IN_COMMON = 0.05
"""Of what fails with the stable version; one that has just crashed excuses nothing."""
_PERCENTILES = (0.99, 0.95, 0.9, 0.5)
_RESOLUTION_MS = 1.0
"""Envoy counts whole milliseconds: a ratio of two small numbers says less than it seems to."""
_EXACT_UNTIL = 200.0


@dataclass(frozen=True)
class Bounds:
    """What a recipe allows; see `slipway.recipe.rollout`."""

    max_error_rate: float
    max_latency_ratio: float
    min_requests: int


@dataclass(frozen=True)
class Window:
    """What one version did in a stretch of time."""

    requests: int = 0
    errors: int = 0
    latencies: tuple[Bucket, ...] = ()
    """Ascending."""

    @property
    def timed(self) -> int:
        """How many latencies there are."""
        return sum(count for _, _, count in self.latencies)


@dataclass(frozen=True)
class Judgement:
    """The judgement, and the figures that it rests on in words."""

    state: Literal["breached", "within", "unclear"]
    figures: str


def judge(candidate: Window, stable: Window, bounds: Bounds) -> Judgement:
    """Hold the candidate's window against the bounds, and against the stable version's window at the same time."""
    found = [_errors(candidate, stable, bounds), _latency(candidate, stable, bounds)]
    if candidate.requests < bounds.min_requests:
        found.append(Judgement("unclear", f"{candidate.requests} of at least {bounds.min_requests} requests"))
    states = [one.state for one in found]
    state: Literal["breached", "within", "unclear"] = (
        "breached" if "breached" in states else "unclear" if "unclear" in states else "within"
    )
    return Judgement(state, "; ".join(one.figures for one in found))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share; all of [0, 1] for no trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = hits / trials, _Z * _Z
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    margin = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # The ends are exact where rounding would leave a trace.
    return (0.0 if hits == 0 else max(0.0, center - margin)), (1.0 if hits == trials else min(1.0, center + margin))


def quantile(buckets: Sequence[Bucket], share: float) -> float:
    """The value below which `share` of the counts are, in milliseconds."""
    return _at_rank(buckets, max(1, math.ceil(share * sum(count for _, _, count in buckets))))


def quantile_bounds(buckets: Sequence[Bucket], share: float) -> tuple[float, float]:
    """Values that the true quantile is above and below, each with 95 % probability; the upper may be infinite."""
    total = sum(count for _, _, count in buckets)
    few, many = _beyond(total, 1 - share)
    lower = _at_rank(buckets, total - many) if many < total else 0.0
    upper = _at_rank(buckets, total - few + 1) if few >= 1 else math.inf
    return lower, upper


def best_percentile(requests: int) -> float:
    """The highest percentile for which so many requests give an upper bound at all."""
    for share in _PERCENTILES:
        if share**requests <= _ONE_SIDED:
            return share
    return _PERCENTILES[-1]


def _errors(candidate: Window, stable: Window, bounds: Bounds) -> Judgement:
    """What fails with both versions is not the candidate's fault: callers' own deadlines, a machine too busy."""
    common = min(_MOST_IN_COMMON, stable.errors / max(1, stable.requests))
    allowed = min(1.0, bounds.max_error_rate + common)
    share = candidate.errors / max(1, candidate.requests)
    chance = 1.0 - _fewer(candidate.requests, candidate.errors, allowed)
    figures = f"{candidate.errors} of {candidate.requests} requests failed ({share:.2%}; allowed {allowed:.2%})"
    if share <= allowed:
        return Judgement("within", figures)
    if chance <= _HARDLY:
        return Judgement("breached", figures)
    return Judgement("unclear", f"{figures}, which may be chance ({chance:.1%})")


def _latency(candidate: Window, stable: Window, bounds: Bounds) -> Judgement:
    if not candidate.timed or not stable.timed:
        return Judgement("unclear", "no latencies to compare")
    share = best_percentile(min(candidate.timed, stable.timed))
    ours, theirs = quantile(candidate.latencies, share), quantile(stable.latencies, share)
    low, _ = quantile_bounds(candidate.latencies, share)
    _, high = quantile_bounds(stable.latencies, share)
    figures = (
        f"p{100 * share:g} {ours:.1f} ms, the stable version's {theirs:.1f} ms (of {candidate.timed} and "
        f"{stable.timed} requests; allowed {bounds.max_latency_ratio:g} times)"
    )
    if low > bounds.max_latency_ratio * high + _RESOLUTION_MS:
        return Judgement("breached", figures)
    return Judgement("within" if ours <= bounds.max_latency_ratio * theirs + _RESOLUTION_MS else "unclear", figures)


def _at_rank(buckets: Sequence[Bucket], rank: int) -> float:
    """The `rank`-th smallest value (from 1), counts spread evenly over their bucket."""
    for low, width, count in buckets:
        if rank <= count:
            return low + width * (rank - 0.5) / count
        rank -= count
    return buckets[-1][0] + buckets[-1][1]


def _beyond(total: int, share: float) -> tuple[int, int]:
    """How many of `total` values lie beyond a quantile with `share` above it: at least, at most, 95 % each.

    (few, many): fewer than `few` have at most 5 % probability, and more than `many` as well.
    """
    mean = total * share
    if mean > _EXACT_UNTIL:
        spread = 1.644854 * math.sqrt(mean * (1 - share))
        return max(0, math.floor(mean - spread)), min(total, math.ceil(mean + spread))
    few, below = 0, 0.0
    for number in range(total + 1):
        probability = _probability(total, number, share)
        if below + probability <= _ONE_SIDED:
            few = number + 1
        below += probability
        if below >= 1 - _ONE_SIDED:
            return few, number
    return few, total


def _fewer(trials: int, hits: int, share: float) -> float:
    """How likely fewer than `hits` of `trials` are, when each is one with probability `share`."""
    if share in (0.0, 1.0):
        return float(hits > share * trials)
    return min(1.0, math.fsum(_probability(trials, number, share) for number in range(hits)))


def _probability(trials: int, hits: int, share: float) -> float:
    """Binomial; `share` is neither 0 nor 1."""
    return math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(trials - hits + 1)
        + hits * math.log(share)
        + (trials - hits) * math.log1p(-share)
    )
