"""From raw samples to a verdict: percentiles, objectives, and whether the run may be believed.

Percentiles are computed from all samples, not from a histogram, with linear interpolation between the two nearest ranks
(type 7 of Hyndman & Fan 1996, the default of numpy, pandas and R), so that they can be recomputed from
`samples.parquet` with any of them. Failures count with the time they took: a server must not look fast by failing.
Linear interpolation lies below the larger neighbour; with 600 samples the p99 is between the 6th and 7th slowest.

An objective is judged by the figure itself; where its confidence interval reaches over the limit, a caution says that a
repetition might have come out otherwise.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from loadtests.intervals import dependence_of, quantile_interval, share_interval
from loadtests.measured import Codes, Measured, of_file, of_table
from loadtests.validity import why_invalid
from slipway.recipe import LoadTest, Slo
from slipway.timeline import FaultRecord
from slipway.verdict import PERCENTILES, Interval, Latency, Objective, Verdict

_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def judge(
    samples: pa.Table | Path, section: LoadTest, endpoint: dict[str, Any], faults: Sequence[FaultRecord] = ()
) -> Verdict:
    """The verdict over `samples`: a table (columns as `SAMPLE_COLUMNS`), or a file of them, which takes less memory.

    Those that were not warming up count. What the generators said about themselves is taken from the metadata. A
    fault from which the service didn't recover in the time that the recipe allows is a miss.
    """
    measured = of_file(samples) if isinstance(samples, Path) else of_table(samples)
    latency = latency_of(measured.latency_ms)
    intervals, dependence = _intervals(measured.latency_ms)
    lag_p99 = percentile(measured.lag_ms, 99)
    outcomes = measured.outcome.counts()
    failures = {outcome: count for outcome, count in outcomes.items() if outcome != "ok"}
    right = measured.outcome.where("ok")
    in_time = right & (measured.latency_ms <= section.slo.in_time_ms) if section.slo.in_time_ms else None
    objectives = _objectives(section.slo, latency, intervals, right, in_time, failures.get("wrong", 0))
    invalid = why_invalid(section, lag_p99, measured.generators)
    late = [fault for fault in faults if not fault.met]
    met = all(objective.met for objective in objectives) and not late
    verdict = Verdict(
        outcome="invalid" if invalid else "met" if met else "missed",
        reason="",
        invalid_because=invalid,
        cautions=_cautions(section, latency, objectives),
        loop=section.loop,
        users=section.users if section.loop == "closed" else None,
        offered_rate=_offered_rate(section, len(measured)),
        scheduled=len(measured),
        achieved_rate=outcomes.get("ok", 0) / section.duration_s,
        duration_s=section.duration_s,
        warmup_s=section.warmup_s,
        arrivals=section.arrivals.process if section.loop == "open" else "closed loop",
        seed=section.seed,
        protocols=list(section.protocols),
        mix=section.traffic.mix,
        workers=section.workers,
        texts=measured.texts,
        latency=latency,
        by_protocol=_by(measured, measured.protocol),
        by_version=_by_version(measured),
        intervals=intervals,
        dependence=dependence,
        goodput_ms=section.slo.in_time_ms,
        goodput_share=None if in_time is None else float(in_time.mean()),
        goodput_rate=None if in_time is None else float(in_time.sum()) / section.duration_s,
        wrong=failures.get("wrong", 0),
        dispatch_lag_p99_ms=lag_p99,
        max_dispatch_lag_ms=section.max_dispatch_lag_ms,
        failures=failures,
        examples=measured.examples,
        error_rate=sum(failures.values()) / len(measured),
        objectives=objectives,
        endpoint=endpoint,
        machine=machine(),
        generators=measured.generators,
    )
    return verdict.model_copy(update={"reason": _reason(verdict, late)})


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


def _intervals(latencies: npt.NDArray[np.float64]) -> tuple[dict[str, Interval], dict[str, float]]:
    """By percentile: its interval, and how dependent the requests above it are."""
    ordered = np.sort(latencies)
    dependence = {
        name: dependence_of(latencies > np.quantile(ordered, share)) if len(ordered) > 1 else 1.0
        for name, share in _SHARES.items()
    }
    return {name: quantile_interval(ordered, share, dependence[name]) for name, share in _SHARES.items()}, dependence


def _objectives(
    slo: Slo,
    latency: Latency,
    intervals: dict[str, Interval],
    right: npt.NDArray[np.bool_],
    in_time: npt.NDArray[np.bool_] | None,
    wrong: int,
) -> list[Objective]:
    """Every line of `slo` that is set, judged; a figure equal to its limit is within it."""
    measured: dict[str, tuple[float, Interval | None]] = {
        f"{name}_ms": (getattr(latency, name), intervals[name]) for name in _SHARES
    }
    measured["error_rate"] = _share(~right)
    measured["wrong"] = (float(wrong), None)
    found = [
        Objective(name=name, limit=limit, measured=figure, met=figure <= limit, interval=interval)
        for name, (figure, interval) in measured.items()
        if (limit := getattr(slo, name)) is not None
    ]
    if slo.goodput is not None and in_time is not None:
        figure, interval = _share(in_time)
        found.append(
            Objective(name="goodput", limit=slo.goodput, measured=figure, met=figure >= slo.goodput, interval=interval)
        )
    return found


def _share(happened: npt.NDArray[np.bool_]) -> tuple[float, Interval]:
    share = float(happened.mean())
    return share, share_interval(int(happened.sum()), len(happened), dependence_of(happened))


def _offered_rate(section: LoadTest, requests: int) -> float:
    steady = section.loop == "open" and section.arrivals.process in ("poisson", "constant")
    return section.rate if steady else requests / section.duration_s


def _by_version(measured: Measured) -> dict[str, Latency]:
    """Of the requests that were answered, if by more than one version."""
    found = _by(measured, measured.version)
    found.pop("", None)
    return found if len(found) > 1 else {}


def _by(measured: Measured, column: Codes) -> dict[str, Latency]:
    return {name: latency_of(measured.latency_ms[column.where(name)]) for name in sorted(column.names)}


def _cautions(section: LoadTest, latency: Latency, objectives: Sequence[Objective]) -> list[str]:
    found = []
    if section.loop == "closed":
        found.append(
            f"Closed loop: {section.users} users wait for their answers, so while the server stalls nobody asks, and "
            "the percentiles leave out what independent callers would have met (coordinated omission)."
        )
    for objective in objectives:
        if objective.interval is None or objective.name in ("error_rate", "goodput"):
            continue
        low, high = objective.interval
        name = PERCENTILES.get(objective.name, objective.name)
        if high is None:
            found.append(f"{latency.requests} requests are too few to bound {name}: it may be higher than any of them.")
        elif low <= objective.limit < high:
            found.append(
                f"The {name} is known to be between {low:.1f} and {high:.1f} ms (95 %), and the limit lies between: a "
                "repetition may come out otherwise."
            )
    return found


def _reason(verdict: Verdict, late: Sequence[FaultRecord]) -> str:
    if verdict.invalid_because:
        return " ".join(verdict.invalid_because)
    source = verdict.arrivals if verdict.loop == "open" else f"closed loop of {verdict.users} users"
    where = f"at {verdict.offered_rate:.6g} requests/s ({source}, {verdict.scheduled} requests)"
    missed = [_spoken(objective) for objective in verdict.objectives if not objective.met]
    missed += [f"not back to normal in time after {fault.fault} at {fault.began_s:.1f} s" for fault in late]
    if missed:
        return f"Missed {where}: {', '.join(missed)}."
    # No wrong answer is no news where the error rate, which counts them, is named.
    told = [_spoken(objective) for objective in verdict.objectives if objective.name != "wrong" or objective.measured]
    return f"Met {where}: {', '.join(told)}."


def _spoken(objective: Objective) -> str:
    relation = "within" if objective.met else "below" if objective.name == "goodput" else "over"
    if objective.name in PERCENTILES:
        return f"{PERCENTILES[objective.name]} {objective.measured:.1f} ms is {relation} {objective.limit:g} ms"
    if objective.name == "wrong":
        return f"{objective.measured:.0f} wrong answers is {relation} {objective.limit:g}"
    return f"{objective.name.replace('_', ' ')} {objective.measured:.2%} is {relation} {objective.limit:.2%}"
