"""The capacity of an endpoint: probes at rates that `search` asks for, until it knows or the time is over.

A probe is an ordinary run (`run.run`): same generator, same checks of every answer, same rules for what is invalid, so
that a capacity is made of verdicts that anybody can look at. Its price is a second or two for each to start Locust;
connections are warmed in the probe's own warm-up. Between probes the queue is drained (`idle`).

A finite probe can't see a slow overload: at 1 % above what the server can do, 10 s of load build 0.1 s of queue, which
a generous objective doesn't notice. So a probe whose waiting grew throughout counts as missed, too.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtests.access import open_access
from loadtests.address import resolve, tls_host
from loadtests.bottleneck import bottleneck_of
from loadtests.generator import Elsewhere
from loadtests.idle import Idle, Unloaded
from loadtests.page import capacity_page, write_page
from loadtests.preflight import wait_for_answers
from loadtests.run import run
from loadtests.search import Search
from loadtests.texts import load_texts
from slipway.artifacts import Artifact, inputs_digest, read_artifact, sha256_file, write_artifact
from slipway.bundle import Bundle
from slipway.capacity import CAPACITY, PROBES, Answer, Capacity, Interval, Probe
from slipway.errors import LoadTestError
from slipway.progress import say
from slipway.recipe import LoadTest
from slipway.timeline import TIMELINE, Timeline
from slipway.verdict import VERDICT, Verdict

_GROWS_S_PER_S = 0.01
_OVERHEAD_S = 6.0
_SEEDS_APART = 7919


def find_capacity(
    bundle: Bundle,
    address: str,
    section: LoadTest,
    out: Path,
    *,
    texts: Path | None = None,
    endpoint: dict[str, Any] | None = None,
    allow_remote: bool = False,
    versions: Mapping[str, Bundle] | None = None,
    metrics_url: str | None = None,
    elsewhere: Elsewhere | None = None,
    wait_s: float = 0.0,
) -> Artifact:
    """Find the highest rate at which the endpoint at `address` meets `section.slo`; write a capacity artifact to `out`.

    Raises `LoadTestError` as `run` does, and if the endpoint stops answering for good. Then nothing is written.
    """
    numeric = resolve(address, allow_remote=allow_remote)
    assets = {"address": address} | ({"texts": sha256_file(texts)} if texts else {})
    inputs = inputs_digest("loadtests", section.model_dump(mode="json"), [bundle.artifact], assets=assets)
    recipe = {"loadtest": section.model_dump(mode="json")}
    begun_s = time.monotonic()
    with write_artifact(
        out, "capacity", name=bundle.spec.name, inputs=inputs, parents=[bundle.artifact], recipe=recipe
    ) as draft:
        access = open_access(section, tls_host(address))
        sent = load_texts(bundle, texts)
        if wait_s:
            wait_for_answers(section, numeric, bundle.spec.name, access, sent.sent[0], wait_s)
            begun_s = time.monotonic()
        idle = Idle(section, numeric, bundle.spec.name, sent, access)
        unloaded = idle.measure()
        # What is left open is the section and where the verdict goes.
        drive = partial(
            run,
            bundle,
            address,
            texts=texts,
            endpoint=endpoint,
            allow_remote=allow_remote,
            versions=versions,
            metrics_url=metrics_url,
            page=False,
            elsewhere=elsewhere,
        )
        prober = _Prober(drive, section, draft.path / PROBES, idle, unloaded)
        wanted = section.capacity
        search = Search(section.rate, wanted.max_rate, wanted.confidence, wanted.precision)
        deadline_s = begun_s + wanted.time_budget_s
        probes: list[Probe] = []
        while (rate := search.next_rate()) is not None and time.monotonic() + prober.takes_s(rate) <= deadline_s:
            probes.append(prober.probe(rate, len(probes)))
            search.tell(rate, probes[-1].answer)
            say(f"  {rate:8.1f} requests/s  {probes[-1].answer:8}{_found(search.interval())}")
        prober.require_answers()
        capacity = _conclude(search, probes, unloaded, section, prober, time.monotonic() - begun_s)
        draft.write_json(CAPACITY, capacity.model_dump(mode="json"))
        write_page(draft.path, lambda: capacity_page(bundle.spec.name, capacity))
        interval = capacity.interval
        draft.metrics.update(
            outcome=capacity.outcome,
            low=interval.low if interval else None,
            estimate=interval.estimate if interval else None,
            high=interval.high if interval else None,
            bottleneck=capacity.bottleneck.what,
            probes=len(probes),
        )
    return read_artifact(out, "capacity", verify=False)


@dataclass
class _Prober:
    """Runs probes at one endpoint and keeps what they left under `folder`."""

    drive: Callable[[LoadTest, Path], Artifact]
    section: LoadTest
    folder: Path
    idle: Idle
    unloaded: Unloaded
    last: Verdict | None = None
    _overhead_s: float = _OVERHEAD_S

    def takes_s(self, rate: float) -> float:
        """How long a probe at `rate` will take."""
        load = self._load(rate, 0)
        return load.warmup_s + load.duration_s + self._overhead_s

    def probe(self, rate: float, number: int) -> Probe:
        """Drain, then offer `rate`."""
        begun_s = time.monotonic()
        load = self._load(rate, number)
        if not self._drain():
            say("  the endpoint was not idle within a minute after the last probe; the next may start with a queue")
        artifact = self.drive(load, self.folder / f"{number:03}")
        self._overhead_s = time.monotonic() - begun_s - load.warmup_s - load.duration_s
        verdict = Verdict.model_validate(artifact.json(VERDICT))
        timeline = Timeline.model_validate(artifact.json(TIMELINE))
        self.last = verdict
        answer, reason = judge_probe(verdict, timeline)
        return Probe(
            number=number,
            rate=rate,
            answer=answer,
            reason=reason,
            seed=load.seed,
            duration_s=load.duration_s,
            requests=verdict.scheduled,
            achieved_rate=verdict.achieved_rate,
            latency=verdict.latency,
            error_rate=verdict.error_rate,
            dispatch_lag_p99_ms=verdict.dispatch_lag_p99_ms,
            backlog_s_per_s=timeline.backlog_s_per_s,
            in_flight=rate * verdict.latency.mean / 1000,
            usage=timeline.usage,
            work=timeline.work,
        )

    def require_answers(self) -> None:
        """Raise `LoadTestError` if the endpoint was gone after the last probe, which then says nothing of its rate."""
        if self.last is not None and self.last.failed:
            self._drain()

    def _drain(self) -> bool:
        try:
            return self.idle.drain(self.unloaded)
        except LoadTestError as error:
            if self.last is None:
                raise
            raise LoadTestError(
                f"{error} The last load was {self.last.offered_rate:.4g} requests/s; whether it broke down under it or "
                "for another reason, its own log may say. No capacity can be told."
            ) from error

    def _load(self, rate: float, number: int) -> LoadTest:
        wanted = self.section.capacity
        return self.section.model_copy(
            update={
                "rate": rate,
                "duration_s": max(wanted.probe_s, wanted.min_requests / rate),
                "warmup_s": wanted.warmup_s,
                # A rate that is asked again must not meet the very same arrivals.
                "seed": self.section.seed + _SEEDS_APART * number,
                "chaos": [],
            }
        )


def judge_probe(verdict: Verdict, timeline: Timeline) -> tuple[Answer, str]:
    """What a probe says about its rate, and why."""
    if verdict.outcome == "met" and timeline.backlog_s_per_s >= _GROWS_S_PER_S:
        return "missed", (
            f"The waiting grew throughout, by {1000 * timeline.backlog_s_per_s:.0f} ms in each second: more load "
            "than is served, though the objective held so far."
        )
    return verdict.outcome, verdict.reason


def _conclude(
    search: Search, probes: list[Probe], unloaded: Unloaded, section: LoadTest, prober: _Prober, seconds: float
) -> Capacity:
    interval = search.interval()
    met = [probe for probe in probes if probe.answer == "met"]
    # The best witness of the capacity: the highest rate that was met and that the interval still allows.
    allowed = [probe for probe in met if interval is None or interval.high is None or probe.rate <= interval.high]
    best = max(allowed or met or probes, key=lambda probe: probe.rate) if probes else None
    bottleneck = bottleneck_of(probes, unloaded.median_ms, limited_by_client=search.limited_by_client and bool(probes))
    outcome = (
        "none" if interval is None else "at-least" if interval.high is None or search.limited_by_client else "found"
    )
    if outcome == "at-least" and interval is not None:
        interval = interval.model_copy(update={"high": None, "estimate": interval.low})
    by_triton = best is not None and best.work is not None
    last = prober.last
    return Capacity.model_validate(
        {
            "outcome": outcome,
            "reason": _reason(outcome, interval, section, len(probes)),
            "interval": interval.model_dump() if interval else None,
            "converged": interval is not None
            and interval.high is not None
            and interval.high <= interval.low * (1 + section.capacity.precision),
            "bottleneck": bottleneck.model_dump(),
            "at_least": section.capacity.at_least,
            "slo": {name: limit for name, limit in section.slo.model_dump(mode="json").items() if limit is not None},
            "service_ms": best.work.compute_ms if best and best.work else unloaded.mean_ms,
            "service_from": "triton" if by_triton else "unloaded",
            "unloaded_ms": unloaded.median_ms,
            "mean_latency_ms": best.latency.mean if best else unloaded.mean_ms,
            "in_flight": best.in_flight if best else 0.0,
            "cpu_ms_per_request": 1000 * best.usage.cpu_cores / best.rate if best and best.usage else None,
            "memory_mb": max((probe.usage.rss_mb for probe in probes if probe.usage), default=None),
            "probes": [probe.model_dump() for probe in probes],
            "seconds": seconds,
            "arrivals": str(last.arrivals) if last else "",
            "protocols": list(section.protocols),
            "endpoint": last.endpoint if last else {},
            "machine": last.machine if last else {},
        }
    )


def _reason(outcome: str, interval: Interval | None, section: LoadTest, probes: int) -> str:
    if not probes:
        return (
            f"Not one probe fits into the time budget of {section.capacity.time_budget_s:g} s; raise "
            "capacity.time_budget_s or shorten capacity.probe_s."
        )
    if interval is None:
        return f"No rate met the objective, down to what was tried in {probes} probes."
    if outcome == "at-least":
        return f"Held at every rate that could be offered, up to {interval.low:.4g} requests/s ({probes} probes)."
    wanted = interval.low * (1 + section.capacity.precision)
    rough = "" if interval.high is not None and interval.high <= wanted else "; the time budget ended the search"
    return (
        f"{interval.estimate:.4g} requests/s meet the objective; with {interval.confidence:.0%} confidence the limit "
        f"is between {interval.low:.4g} and {interval.high:.4g} ({probes} probes{rough})."
    )


def _found(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"  capacity {interval.low:.4g} – {'?' if interval.high is None else f'{interval.high:.4g}'}"
