"""What a fault did to the requests: how many were lost or wrong, and when service was back to normal.

A request is bad if it failed or took longer than the objective's limit (without one: three times the median before the
fault). The disturbance ends with the last bad request after which a second, and at least 20 requests, go by with no
more than one in a hundred bad. The time to recovery is counted to when that last bad one was scheduled: a caller who
came later noticed nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from loadtests.chaos import Injected
from slipway.recipe import Slo
from slipway.timeline import FaultRecord

_CALM_S = 1.0
_CALM_REQUESTS = 20
_CALM_SHARE = 0.01


@dataclass(frozen=True)
class _Rows:
    """Of the measured window, in the order of the schedule."""

    at_s: npt.NDArray[np.float64]
    latency_ms: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]


def records_of(injected: list[Injected], samples: Path, zero_s: float, slo: Slo) -> list[FaultRecord]:
    """A record of each fault, from the samples in the Parquet file; `zero_s` is the run's start (monotonic)."""
    if not injected:
        return []
    rows = _read(samples)
    begins = [fault.began_s - zero_s for fault in injected]
    limits = [*begins[1:], float("inf")]
    return [_record(fault, rows, zero_s, slo, until) for fault, until in zip(injected, limits, strict=True)]


def _record(fault: Injected, rows: _Rows, zero_s: float, slo: Slo, until_s: float) -> FaultRecord:
    began = fault.began_s - zero_s
    bad = rows.failed | (rows.latency_ms > _limit_ms(rows, began, slo))
    recovered = _recovered_s(rows.at_s, bad, began, until_s)
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


def _recovered_s(
    at_s: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_], began_s: float, until_s: float
) -> float | None:
    """When the last bad request of the disturbance was scheduled; None if there is no calm before `until_s`."""
    first = int(np.searchsorted(at_s, began_s))
    last = int(np.searchsorted(at_s, until_s))
    # A request under way when it began is scheduled before it.
    candidates = [began_s, *at_s[first:last][bad[first:last]].tolist()]
    total = np.concatenate([[0], np.cumsum(bad)])
    for moment in candidates:
        start = int(np.searchsorted(at_s, moment, side="right"))
        stop = max(int(np.searchsorted(at_s, moment + _CALM_S)), start + _CALM_REQUESTS)
        if stop > last:
            return None
        if total[stop] - total[start] <= _CALM_SHARE * (stop - start):
            return float(moment)
    return None


def _limit_ms(rows: _Rows, began_s: float, slo: Slo) -> float:
    limits = [limit for limit in (slo.p50_ms, slo.p95_ms, slo.p99_ms) if limit is not None]
    before = rows.latency_ms[rows.at_s < began_s]
    if limits:
        return max(limits)
    return 3 * float(np.median(before)) if len(before) else float("inf")


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
