"""What a fault did to the requests: how many were lost or wrong, and when service was back to normal.

A request is bad if it failed or took longer than the objective's limit (without one: three times the median before the
fault). The disturbance ends with the last bad request after which three seconds, and at least 20 requests, go by as
usual: no failure and no more than one in a hundred slow, or twice the shares that there were before the first fault.
Shorter calms deceive: Triton takes a second to notice that a dead stub doesn't answer, so failures come a second
apart. The time to recovery is counted to when that last bad one was scheduled: a caller who came later noticed nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from loadtests.chaos import Injected
from slipway.recipe import Slo
from slipway.timeline import FaultRecord

_CALM_S = 3.0
_CALM_REQUESTS = 20
_SLOW_SHARE = 0.01


@dataclass(frozen=True)
class _Rows:
    """Of the measured window, in the order of the schedule."""

    at_s: npt.NDArray[np.float64]
    latency_ms: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]

    def slow(self, limit_ms: float) -> npt.NDArray[np.bool_]:
        """Those that were answered, and not within `limit_ms`."""
        return np.asarray(~self.failed & (self.latency_ms > limit_ms))


def records_of(injected: list[Injected], samples: Path, zero_s: float, slo: Slo) -> list[FaultRecord]:
    """A record of each fault, from the samples in the Parquet file; `zero_s` is the run's start (monotonic)."""
    if not injected:
        return []
    rows = _read(samples)
    begins = [fault.began_s - zero_s for fault in injected]
    limits = [*begins[1:], float("inf")]
    usual = _Usual.of(rows, begins[0], slo)
    return [_record(fault, rows, zero_s, usual, until) for fault, until in zip(injected, limits, strict=True)]


def _record(fault: Injected, rows: _Rows, zero_s: float, usual: "_Usual", until_s: float) -> FaultRecord:
    began = fault.began_s - zero_s
    recovered = _recovered_s(rows, usual, began, until_s)
    end = min(until_s, float(rows.at_s[-1])) if recovered is None else max(recovered, fault.ended_s - zero_s)
    # Under way at some moment between the beginning and the recovery.
    touched = (rows.at_s <= end) & (rows.at_s + rows.latency_ms / 1000 >= began)
    return FaultRecord(
        fault=fault.fault,
        detail=fault.detail,
        began_s=began,
        ended_s=fault.ended_s - zero_s,
        recovered_s=recovered,
        recover_within_s=fault.recover_within_s,
        requests=int(touched.sum()),
        lost=int((touched & rows.failed & ~rows.wrong).sum()),
        wrong=int((touched & rows.wrong).sum()),
    )


@dataclass(frozen=True)
class _Usual:
    """What goes for normal: how slow is slow, and which shares of failed and slow requests are as always."""

    limit_ms: float
    failed_share: float
    slow_share: float

    @classmethod
    def of(cls, rows: _Rows, until_s: float, slo: Slo) -> "_Usual":
        """By the objective and the requests before `until_s`."""
        before = rows.at_s < until_s
        limits = [limit for limit in (slo.p50_ms, slo.p95_ms, slo.p99_ms) if limit is not None]
        if not before.any():
            return cls(max(limits, default=float("inf")), 0.0, _SLOW_SHARE)
        limit_ms = max(limits) if limits else 3 * float(np.median(rows.latency_ms[before]))
        slow = rows.slow(limit_ms)[before]
        return cls(limit_ms, 2 * float(rows.failed[before].mean()), max(_SLOW_SHARE, 2 * float(slow.mean())))


def _recovered_s(rows: _Rows, usual: _Usual, began_s: float, until_s: float) -> float | None:
    """When the last bad request of the disturbance was scheduled; None if there is no calm before `until_s`."""
    at_s, slow = rows.at_s, rows.slow(usual.limit_ms)
    first, last = (int(np.searchsorted(at_s, moment)) for moment in (began_s, until_s))
    bad = (rows.failed | slow)[first:last]
    limits = [(_totals(rows.failed), usual.failed_share), (_totals(slow), usual.slow_share)]
    # A request under way when it began is scheduled before it.
    for moment in [began_s, *at_s[first:last][bad].tolist()]:
        start = int(np.searchsorted(at_s, moment, side="right"))
        stop = max(int(np.searchsorted(at_s, moment + _CALM_S)), start + _CALM_REQUESTS)
        if stop > last:
            return None
        if all(total[stop] - total[start] <= share * (stop - start) for total, share in limits):
            return float(moment)
    return None


def _totals(happened: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How often it happened before each row, `[rows + 1]`."""
    return np.concatenate([[0], np.cumsum(happened)])


def _read(samples: Path) -> _Rows:
    table = pq.read_table(samples, columns=["scheduled_s", "latency_ms", "outcome", "warmup"])
    outcome = table["outcome"].combine_chunks().dictionary_encode()
    names = np.asarray(outcome.dictionary.to_pylist(), dtype=object)[outcome.indices.to_numpy()]
    measured = ~table["warmup"].to_numpy()
    at_s = table["scheduled_s"].to_numpy()[measured]
    order = np.argsort(at_s, kind="stable")
    names = names[measured][order]
    latency = table["latency_ms"].to_numpy()[measured][order]
    return _Rows(at_s[order], latency, names != "ok", names == "wrong")
