"""Ratios of two sides with their intervals, by resampling pairs of blocks.

Requests of one block are not independent: a stall, a collection of garbage, a neighbour on the machine hits many of
them. So what is drawn again is a whole pair of blocks, A and B from the same minute, which keeps what they have in
common in common (paired block bootstrap; Efron & Tibshirani 1993, ch. 8). Percentiles are over all requests of the
drawn blocks: a mean of the blocks' p99 would be the p99 of short runs.

With few pairs a bootstrap's interval is too narrow; the quantiles are moved out as far as Student's t lies beyond the
normal, and by √(n/(n−1)) (the expanded percentile interval, Hesterberg 2015).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from slipway.comparison import Ratio

FloatArray = npt.NDArray[np.float64]

_DRAWS = 4000
_SEED = 20260101
PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0}


@dataclass(frozen=True)
class Measured:
    """One block: latencies of its requests in ms, and how many were answered correctly in how many seconds."""

    latency_ms: FloatArray
    correct: int
    seconds: float


def ratios(pairs: Sequence[tuple[Measured, Measured]], confidence: float) -> list[Ratio]:
    """B over A of each figure over `pairs` of (A, B), at least two."""
    rng = np.random.default_rng(_SEED)
    draws = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=_DRAWS)
    draws = np.concatenate([np.ones((1, len(pairs)), draws.dtype), draws])
    a, b = _figures([pair[0] for pair in pairs], draws), _figures([pair[1] for pair in pairs], draws)
    tail = _tail(len(pairs), confidence)
    found = []
    for name in a:
        # Throughput may be 0 on a side that failed altogether.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = b[name] / a[name]
        usable = ratio[1:][np.isfinite(ratio[1:])]
        if not math.isfinite(ratio[0]) or not len(usable):
            continue
        low, high = np.quantile(usable, [tail, 1 - tail])
        found.append(Ratio(figure=name, ratio=float(ratio[0]), low=float(low), high=float(high)))
    return found


def _figures(blocks: list[Measured], draws: npt.NDArray[np.int64]) -> dict[str, FloatArray]:
    """Each figure `[draws]` over the blocks as often as they were drawn (`draws` `[draws, blocks]`)."""
    values = np.concatenate([block.latency_ms for block in blocks])
    block_of = np.repeat(np.arange(len(blocks)), [len(block.latency_ms) for block in blocks])
    order = np.argsort(values, kind="stable")
    values, block_of = values[order], block_of[order]
    sums = np.array([block.latency_ms.sum() for block in blocks])
    counts = np.array([len(block.latency_ms) for block in blocks])
    figures = {name: np.empty(len(draws)) for name in PERCENTILES}
    for row, drawn in enumerate(draws):
        cumulative = np.cumsum(drawn[block_of])
        for name, percent in PERCENTILES.items():
            rank = math.ceil(percent / 100 * cumulative[-1])
            figures[name][row] = values[np.searchsorted(cumulative, rank)]
    figures["mean"] = draws @ sums / (draws @ counts)
    correct = np.array([block.correct for block in blocks])
    seconds = np.array([block.seconds for block in blocks])
    figures["throughput"] = draws @ correct / (draws @ seconds)
    return figures


def _tail(n: int, confidence: float) -> float:
    """The share to cut off at each end."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    v = n - 1
    # Student's quantile by its expansion around the normal one (Abramowitz & Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    return NormalDist().cdf(-t * math.sqrt(n / v))
