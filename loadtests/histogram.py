"""Counts of latencies in bins of equal ratio: percentiles of any number of requests in a few kilobytes.

The idea of HdrHistogram (Tene): a bin is 1 % wide, so a percentile is known within 1 %, whether it is 0.1 ms or a
minute. Many of them, one a window of a run, fit where the samples would not.
"""

import numpy as np
import numpy.typing as npt

_LOWEST_MS, _HIGHEST_MS, _STEP = 0.01, 3.6e6, 1.01
EDGES = np.geomspace(_LOWEST_MS, _HIGHEST_MS, int(np.log(_HIGHEST_MS / _LOWEST_MS) / np.log(_STEP)) + 2)


class Histograms:
    """`count` histograms of latencies in ms, filled in any order."""

    def __init__(self, count: int) -> None:
        self._counts = np.zeros((count, len(EDGES) + 1), np.int64)

    def add(self, which: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        """Count `values` `[n]` in the histograms `which` `[n]`."""
        np.add.at(self._counts, (which, np.searchsorted(EDGES, values, side="right")), 1)

    def percentile(self, which: int, percent: float) -> float | None:
        """Of histogram `which`, within half a bin; None if it is empty."""
        found = self.quantiles(which, np.array([percent / 100]))
        return None if found is None else float(found[0])

    def quantiles(self, which: int, quantiles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """Of histogram `which`: latencies in ms `[quantiles]`; None if it is empty."""
        cumulative = np.cumsum(self._counts[which])
        total = int(cumulative[-1])
        if total == 0:
            return None
        bins = np.searchsorted(cumulative, np.maximum(np.ceil(quantiles * total), 1))
        middles = np.concatenate([[EDGES[0]], np.sqrt(EDGES[:-1] * EDGES[1:]), [EDGES[-1]]])
        return np.asarray(middles[bins])

    def coarse(self, which: int, most: int) -> list[tuple[float, float, int]]:
        """Of histogram `which`: at most `most` bins `(low, high, count)` of equal ratio, from the first to the last."""
        inner = self._counts[which][1:-1].copy()
        inner[0] += self._counts[which][0]
        inner[-1] += self._counts[which][-1]
        filled = np.flatnonzero(inner)
        if not len(filled):
            return []
        first, last = int(filled[0]), int(filled[-1]) + 1
        width = max(-(-(last - first) // most), 3)
        starts = range(first, last, width)
        ends = [min(start + width, len(inner)) for start in starts]
        return [
            (float(EDGES[start]), float(EDGES[end]), int(inner[start:end].sum()))
            for start, end in zip(starts, ends, strict=True)
        ]
