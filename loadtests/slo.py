"""From raw samples to a verdict: percentiles, objectives, and whether the run may be believed.

Percentiles are computed from all samples, not from a histogram, with linear interpolation between the two nearest ranks
(type 7 of Hyndman & Fan 1996, the default of numpy, pandas and R), so that they can be recomputed from
`samples.parquet` with any of them. Failures count with the time they took: a server must not look fast by failing.
Linear interpolation lies below the larger neighbour; with 600 samples the p99 is between the 6th and 7th slowest.
"""

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from slipway.recipe import LoadTest, Slo
from slipway.verdict import Latency, Objective, Verdict

_EXAMPLES = 10


def judge(samples: pa.Table, section: LoadTest, endpoint: dict[str, Any]) -> Verdict:
    """The verdict over `samples` (columns as `SAMPLE_COLUMNS`), of which those not warming up count."""
    measured = samples.filter(pc.invert(samples["warmup"]))
    latency = latency_of(measured["latency_ms"].to_numpy())
    lag_p99 = percentile(measured["lag_ms"].to_numpy(), 99)
    outcomes = {entry["values"]: entry["counts"] for entry in pc.value_counts(measured["outcome"]).to_pylist()}
    failures = {outcome: count for outcome, count in sorted(outcomes.items()) if outcome != "ok"}
    error_rate = sum(failures.values()) / measured.num_rows
    objectives = objectives_of(section.slo, latency, error_rate)
    believable = lag_p99 <= section.max_dispatch_lag_ms
    met = all(objective.met for objective in objectives)
    return Verdict(
        outcome="invalid" if not believable else "met" if met else "missed",
        reason=_reason(section, objectives, measured.num_rows, lag_p99),
        offered_rate=section.rate,
        scheduled=measured.num_rows,
        achieved_rate=outcomes.get("ok", 0) / section.duration_s,
        duration_s=section.duration_s,
        warmup_s=section.warmup_s,
        arrivals=section.arrivals,
        seed=section.seed,
        protocols=list(section.protocols),
        latency=latency,
        by_protocol=_by_protocol(measured),
        dispatch_lag_p99_ms=lag_p99,
        max_dispatch_lag_ms=section.max_dispatch_lag_ms,
        failures=failures,
        examples=_examples(measured),
        error_rate=error_rate,
        objectives=objectives,
        endpoint=endpoint,
        machine=machine(),
    )


def percentile(values: npt.NDArray[np.float64], percent: float) -> float:
    """Linear interpolation between the nearest ranks; `values` must not be empty."""
    return float(np.percentile(values, percent, method="linear"))


def latency_of(values: npt.NDArray[np.float64]) -> Latency:
    """Percentiles of latencies in ms; `values` must not be empty."""
    return Latency(
        requests=len(values),
        p50=percentile(values, 50),
        p90=percentile(values, 90),
        p95=percentile(values, 95),
        p99=percentile(values, 99),
        p999=percentile(values, 99.9),
        max=float(values.max()),
        mean=float(values.mean()),
    )


def objectives_of(slo: Slo, latency: Latency, error_rate: float) -> list[Objective]:
    """Every line of `slo` that is set, judged; a figure equal to its limit is within it."""
    measured = {"p50_ms": latency.p50, "p95_ms": latency.p95, "p99_ms": latency.p99, "error_rate": error_rate}
    limits = {name: getattr(slo, name) for name in measured}
    return [
        Objective(name=name, limit=limit, measured=measured[name], met=measured[name] <= limit)
        for name, limit in limits.items()
        if limit is not None
    ]


def machine() -> dict[str, Any]:
    """Where the generator ran (on loopback also where the server ran)."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(terse=True),
    }


def _by_protocol(measured: pa.Table) -> dict[str, Latency]:
    protocols = sorted(pc.unique(measured["protocol"]).to_pylist())
    return {
        protocol: latency_of(measured.filter(pc.equal(measured["protocol"], protocol))["latency_ms"].to_numpy())
        for protocol in protocols
    }


def _examples(measured: pa.Table) -> list[str]:
    failed = measured.filter(pc.not_equal(measured["outcome"], "ok")).slice(0, _EXAMPLES)
    return [f"{row['protocol']} {row['outcome']}: {row['detail']}" for row in failed.to_pylist()]


def _reason(section: LoadTest, objectives: list[Objective], requests: int, lag_p99: float) -> str:
    if lag_p99 > section.max_dispatch_lag_ms:
        return (
            f"The load generator was late itself (p99 of its lag is {lag_p99:.1f} ms, at most "
            f"{section.max_dispatch_lag_ms:g} ms allowed), so the figures say nothing about the server: give it more "
            "CPU or lower the rate."
        )
    where = f"at {section.rate:g} requests/s ({section.arrivals}, {requests} requests)"
    missed = [_spoken(objective, "over") for objective in objectives if not objective.met]
    if missed:
        return f"Missed {where}: {', '.join(missed)}."
    return f"Met {where}: {', '.join(_spoken(objective, 'within') for objective in objectives)}."


def _spoken(objective: Objective, relation: str) -> str:
    name = objective.name.removesuffix("_ms").replace("_", " ")
    if objective.name == "error_rate":
        return f"{name} {objective.measured:.2%} is {relation} {objective.limit:.2%}"
    return f"{name} {objective.measured:.1f} ms is {relation} {objective.limit:g} ms"
