"""From samples to the story of a run, in one pass and bounded memory: `slipway.timeline.Timeline`.

The samples are read from Parquet a batch at a time, in whatever order they lie there; a window knows only its counts
and its histogram. A night at 200 requests/s is 6 million samples and a few megabytes here.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadtests.histogram import Histograms
from loadtests.trend import trend_of
from slipway.timeline import Bin, Burst, Dot, Drift, FaultRecord, Percentile, Reading, Timeline, Usage, Window, Work

FloatArray = npt.NDArray[np.float64]

_MOST_WINDOWS = 120
_REQUESTS_A_WINDOW = 40
_DOTS, _SLOWEST, _FAILED = 1500, 200, 600
_BINS = 60
_COLUMNS = ["scheduled_s", "lag_ms", "service_ms", "latency_ms", "outcome", "warmup"]
_MATTERS = 0.1
_BEYOND_CHANCE = 0.01


def tell(
    samples: Path,
    duration_s: float,
    warmup_s: float,
    *,
    readings: list[Reading] | None = None,
    usage: Usage | None = None,
    work: Work | None = None,
    faults: list[FaultRecord] | None = None,
) -> Timeline:
    """The timeline of the run whose samples are in the Parquet file `samples`."""
    file = pq.ParquetFile(samples)
    collected = _Collected(_window_s(duration_s, file.metadata.num_rows), duration_s, file.metadata.num_rows)
    for batch in file.iter_batches(columns=_COLUMNS, batch_size=65_536):
        collected.add(pa.Table.from_batches([batch]))
    windows = collected.windows()
    readings, faults = readings or [], faults or []
    lost = sum(count for window in windows for kind, count in window.failures.items() if kind != "wrong")
    return Timeline(
        duration_s=duration_s,
        warmup_s=warmup_s,
        windows=windows,
        percentiles=collected.percentiles(),
        histogram=collected.histogram(),
        dots=collected.dots(),
        readings=readings,
        usage=usage,
        work=work,
        faults=faults,
        lost_outside_faults=max(lost - sum(fault.lost for fault in faults), 0),
        wrong=sum(window.failures.get("wrong", 0) for window in windows),
        drifts=_drifts(windows, readings, duration_s),
        bursts=_bursts(windows),
        backlog_s_per_s=_backlog(windows),
    )


class _Collected:
    """Sums over the batches that came so far."""

    def __init__(self, window_s: float, duration_s: float, rows: int) -> None:
        self._window_s = window_s
        self._duration_s = duration_s
        count = max(math.ceil(duration_s / window_s - 1e-9), 1)
        self._latency = Histograms(count)
        self._lag = Histograms(count)
        self._all = Histograms(2)
        self._served = np.zeros(count, np.int64)
        self._failures: list[dict[str, int]] = [{} for _ in range(count)]
        self._scheduled = np.zeros(count, np.int64)
        self._max = np.zeros(count)
        self._every = max(rows // _DOTS, 1)
        self._seen = 0
        self._even: list[Dot] = []
        self._slowest: list[Dot] = []
        self._failed: list[Dot] = []
        self._failed_every = 1
        self._failed_seen = 0

    def add(self, table: pa.Table) -> None:
        self._picture(table)
        measured = table.filter(pc.invert(table["warmup"]))
        at, latency = _floats(measured, "scheduled_s"), _floats(measured, "latency_ms")
        outcome = np.asarray(measured["outcome"].to_pylist(), dtype=object)
        window = self._window_of(at)
        self._latency.add(window, latency)
        self._lag.add(window, _floats(measured, "lag_ms"))
        self._all.add(np.zeros(len(at), np.int64), latency)
        self._all.add(np.ones(len(at), np.int64), _floats(measured, "service_ms"))
        np.add.at(self._scheduled, window, 1)
        np.maximum.at(self._max, window, latency)
        answered = at + latency / 1000
        good = (outcome == "ok") & (answered < self._duration_s)
        np.add.at(self._served, self._window_of(answered[good]), 1)
        for index, kind in zip(window[outcome != "ok"], outcome[outcome != "ok"], strict=True):
            self._failures[index][kind] = self._failures[index].get(kind, 0) + 1

    def windows(self) -> list[Window]:
        return [
            Window(
                start_s=index * self._window_s,
                end_s=min((index + 1) * self._window_s, self._duration_s),
                scheduled=int(self._scheduled[index]),
                served=int(self._served[index]),
                failures=dict(sorted(self._failures[index].items())),
                p50_ms=self._percentile(index, 50),
                p95_ms=self._percentile(index, 95),
                p99_ms=self._percentile(index, 99),
                max_ms=float(self._max[index]) if self._scheduled[index] else None,
                lag_p99_ms=self._lag.percentile(index, 99),
            )
            for index in range(len(self._scheduled))
        ]

    def _percentile(self, window: int, percent: float) -> float | None:
        """The middle of a bin can lie above the largest of its requests."""
        found = self._latency.percentile(window, percent)
        return None if found is None else min(found, float(self._max[window]))

    def percentiles(self) -> list[Percentile]:
        """Ever finer towards 1, as far as there are requests: evenly spaced in log(1 / (1 − quantile))."""
        count = int(self._scheduled.sum())
        if count == 0:
            return []
        nines = np.arange(0, math.log10(count) + 1e-9, 1 / 24)
        quantiles = 1 - 10.0**-nines
        latency, service = self._all.quantiles(0, quantiles), self._all.quantiles(1, quantiles)
        assert latency is not None and service is not None  # noqa: PT018, S101  (there is a request)
        return [
            Percentile(quantile=float(q), latency_ms=float(x), service_ms=float(y))
            for q, x, y in zip(quantiles, latency, service, strict=True)
        ]

    def histogram(self) -> list[Bin]:
        return [Bin(low_ms=low, high_ms=high, count=count) for low, high, count in self._all.coarse(0, _BINS)]

    def dots(self) -> list[Dot]:
        found = {(dot.at_s, dot.latency_ms): dot for dot in (*self._even, *self._slowest, *self._failed)}
        return sorted(found.values(), key=lambda dot: dot.at_s)

    def _picture(self, table: pa.Table) -> None:
        """Keep what will be drawn of these requests."""
        latency = _floats(table, "latency_ms")
        rows = np.arange(len(latency))
        even = rows[(rows + self._seen) % self._every == 0]
        self._seen += len(rows)
        self._even += _dots(table, even)
        self._slowest += _dots(table, rows[np.argsort(-latency, kind="stable")[:_SLOWEST]])
        self._slowest = sorted(self._slowest, key=lambda dot: -dot.latency_ms)[:_SLOWEST]
        failed = rows[np.asarray(pc.not_equal(table["outcome"], "ok"))]
        numbers = np.arange(len(failed)) + self._failed_seen
        self._failed_seen += len(failed)
        self._failed += _dots(table, failed[numbers % self._failed_every == 0])
        while len(self._failed) > _FAILED:
            self._failed = self._failed[::2]
            self._failed_every *= 2

    def _window_of(self, at_s: FloatArray) -> npt.NDArray[np.int64]:
        index = np.floor(at_s / self._window_s).astype(np.int64)
        return np.asarray(np.clip(index, 0, len(self._scheduled) - 1))


def _window_s(duration_s: float, rows: int) -> float:
    """A round width (1, 2 or 5 × 10ⁿ s) that gives at most 120 windows of at least some 40 requests."""
    least = max(duration_s / _MOST_WINDOWS, duration_s * _REQUESTS_A_WINDOW / max(rows, 1), 0.1)
    decade = 10.0 ** math.floor(math.log10(least))
    return min(next(step * decade for step in (1, 2, 5, 10) if step * decade >= least * (1 - 1e-9)), duration_s)


def _drifts(windows: list[Window], readings: list[Reading], duration_s: float) -> list[Drift]:
    found = []
    full = [window for window in windows if window.scheduled]
    middles = np.array([(window.start_s + window.end_s) / 2 for window in full])
    for figure in ("p50", "p99"):
        values = np.array([getattr(window, f"{figure}_ms") for window in full], dtype=float)
        found += _drift(f"{figure} latency", "ms", middles, values, duration_s)
    # What a server allocates while it warms up isn't a leak.
    settled = [reading for reading in readings if reading.usage and duration_s / 3 <= reading.at_s <= duration_s]
    memory = np.array([reading.usage.rss_mb for reading in settled if reading.usage])
    found += _drift("server memory", "MB", np.array([reading.at_s for reading in settled]), memory, duration_s)
    return found


def _drift(figure: str, unit: str, x: FloatArray, y: FloatArray, duration_s: float) -> list[Drift]:
    trend = trend_of(x, y)
    if trend is None:
        return []
    share = trend.slope * duration_s / max(float(np.median(y)), 1e-9)
    return [
        Drift.model_validate(
            {
                "figure": figure,
                "unit": unit,
                "per_hour": trend.slope * 3600,
                "share": share,
                "p_value": trend.p_value,
                "drifts": trend.p_value < _BEYOND_CHANCE and abs(share) >= _MATTERS,
            }
        )
    ]


def _bursts(windows: list[Window]) -> list[Burst]:
    """Runs of windows with at least 3 failures, and five times the share of failures that the median window has."""
    shares = [sum(window.failures.values()) / max(window.scheduled, 1) for window in windows]
    usual = float(np.median(shares)) if shares else 0.0
    bursts: list[Burst] = []
    for window, share in zip(windows, shares, strict=True):
        failures = sum(window.failures.values())
        if failures < 3 or share < 5 * usual:
            continue
        if bursts and bursts[-1].end_s == window.start_s:
            before = bursts.pop()
            bursts.append(Burst(start_s=before.start_s, end_s=window.end_s, failures=before.failures + failures))
        else:
            bursts.append(Burst(start_s=window.start_s, end_s=window.end_s, failures=failures))
    return bursts


def _backlog(windows: list[Window]) -> float:
    """By how many seconds the median latency grew in a second, if it grew throughout; else 0."""
    full = [window for window in windows if window.p50_ms is not None]
    x = np.array([window.start_s for window in full])
    y = np.array([window.p50_ms for window in full], dtype=float)
    trend = trend_of(x, y)
    return trend.slope / 1000 if trend and trend.p_value < _BEYOND_CHANCE and trend.slope > 0 else 0.0


def _floats(table: pa.Table, column: str) -> FloatArray:
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def _dots(table: pa.Table, rows: npt.NDArray[np.int64]) -> list[Dot]:
    chosen = table.select(["scheduled_s", "latency_ms", "outcome"]).take(pa.array(rows))
    return [
        Dot(at_s=at, latency_ms=latency, outcome=kind)
        for at, latency, kind in zip(*chosen.to_pydict().values(), strict=True)
    ]
