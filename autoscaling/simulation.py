"""Traffic, queues, pods and a policy over time.

Time goes in steps of a few seconds; within a step every request is simulated (`autoscaling.queueing`), so waiting times
are real distributions. Where that would be more than some millions, a sample of the replicas stands for the others:
requests are spread at random, so replicas of one service are alike. What a million requests/s cost is their replicas.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoscaling.hpa import SYNC_PERIOD_S
from autoscaling.pods import Observation, Replica, Startup
from autoscaling.policies import Policy
from autoscaling.queueing import Replicas, Service, Step
from autoscaling.traffic import Traffic

FloatArray = npt.NDArray[np.float64]

STEP_S = 5.0
_MOST_REQUESTS = 4_000_000
_EDGES_S = np.geomspace(1e-4, 1e3, 701)
"""Of the latency histogram, 100 to a decade: a percentile is right to 1.2 %."""
_KEEP_S = 900.0


@dataclass(frozen=True)
class Moment:
    """One step."""

    at_s: float
    """Its beginning."""
    rate: float
    """Requests/s that came."""
    asked: int
    """Replicas that the policy wants."""
    ready: int
    refused: float
    """Share of the requests."""
    late: float
    """Share of the requests that took longer than the objective, the refused ones with them."""
    p99_ms: float | None
    """Of those that were answered; None if none was."""


@dataclass(frozen=True)
class Outcome:
    """What came of one policy under one traffic."""

    policy: str
    moments: Sequence[Moment]
    requests: float
    refused: float
    """Share of all requests."""
    late: float
    """Share of all requests that missed the objective: answered too late, or refused."""
    p50_ms: float | None
    p99_ms: float | None
    replica_hours: float
    """From being asked for to being taken away."""
    most_replicas: int


def simulate(
    traffic: Traffic,
    service: Service,
    policy: Policy,
    *,
    startup: Startup,
    objective_ms: float,
    replicas: int,
    seed: int = 0,
) -> Outcome:
    """Run `traffic` against a workload of `replicas` ready pods that `policy` resizes every 15 s."""
    return _Simulation(traffic, service, policy, startup, objective_ms, replicas, seed).run()


class _Simulation:
    def __init__(
        self, traffic: Traffic, service: Service, policy: Policy, startup: Startup, objective_ms: float, replicas: int,
        seed: int,
    ) -> None:  # fmt: skip
        self._traffic = traffic
        self._service = service
        self._policy = policy
        self._startup = startup
        self._objective_s = objective_ms / 1e3
        self._pods = [self._pod(number, -startup.total_s - _KEEP_S) for number in range(replicas)]
        self._made = replicas
        self._queues = Replicas(service, np.random.default_rng(seed))
        # How many replicas one that is simulated stands for.
        self._each = max(1.0, traffic.rates.sum() / _MOST_REQUESTS)
        self._histogram = np.zeros(len(_EDGES_S) + 1)
        self._totals: dict[str, float] = defaultdict(float)

    def run(self) -> Outcome:
        moments = []
        next_sync_s, most = SYNC_PERIOD_S, len(self._pods)
        for at_s in np.arange(0.0, len(self._traffic), STEP_S).tolist():
            if at_s >= next_sync_s:
                self._resize(at_s, self._policy.decide(at_s, len(self._pods), self._pods))
                next_sync_s += SYNC_PERIOD_S
                most = max(most, len(self._pods))
            moments.append(self._step(at_s))
        totals = self._totals
        requests = max(totals["requests"], 1e-9)
        return Outcome(
            policy=self._policy.name,
            moments=moments,
            requests=totals["requests"],
            refused=totals["refused"] / requests,
            late=totals["late"] / requests,
            p50_ms=_percentile(self._histogram, 50),
            p99_ms=_percentile(self._histogram, 99),
            replica_hours=totals["replica_s"] / 3600,
            most_replicas=most,
        )

    def _pod(self, number: int, asked_s: float) -> Replica:
        return Replica(f"pod-{number}", asked_s, self._startup)

    def _resize(self, now_s: float, wanted: int) -> None:
        del self._pods[wanted:]
        while len(self._pods) < wanted:
            self._pods.append(self._pod(self._made, now_s))
            self._made += 1

    def _step(self, at_s: float) -> Moment:
        rate = self._traffic.between(at_s, at_s + STEP_S)
        ready = [pod for pod in self._pods if pod.is_ready(at_s)]
        self._totals["replica_s"] += STEP_S * len(self._pods)
        offered = rate * STEP_S
        self._totals["requests"] += offered
        if not ready:
            self._observe(at_s, ready, None, 1.0)
            self._totals["refused"] += offered
            self._totals["late"] += offered
            lost = 1.0 if offered else 0.0
            return Moment(at_s, rate, len(self._pods), 0, lost, lost, None)
        simulated = max(1, round(len(ready) / self._each))
        self._queues.resize(simulated)
        step = self._queues.step(rate * simulated / len(ready), STEP_S)
        self._observe(at_s, ready, step, len(ready) / simulated)
        return self._account(at_s, rate, ready, step)

    def _account(self, at_s: float, rate: float, ready: Sequence[Replica], step: Step) -> Moment:
        came = float(step.offered.sum())
        refused = float(step.refused.sum()) / came if came else 0.0
        slow = float(step.weights[step.latencies_s > self._objective_s].sum()) / came if came else 0.0
        counts: FloatArray = np.bincount(
            np.searchsorted(_EDGES_S, step.latencies_s), weights=step.weights, minlength=len(self._histogram)
        ).astype(np.float64)
        scale = rate * STEP_S / came if came else 0.0
        self._histogram += counts * scale
        self._totals["refused"] += refused * rate * STEP_S
        self._totals["late"] += (refused + slow) * rate * STEP_S
        return Moment(at_s, rate, len(self._pods), len(ready), refused, refused + slow, _percentile(counts, 99))

    def _observe(self, at_s: float, ready: Sequence[Replica], step: Step | None, each: float) -> None:
        """Let every pod remember what it did, or what the one did that stands for it."""
        end_s = at_s + STEP_S
        idle = Observation(STEP_S)
        busy: dict[str, Observation] = {}
        if step is not None:
            taken = step.offered - step.refused
            for place, pod in enumerate(ready):
                row = min(int(place / each), len(taken) - 1)
                busy[pod.name] = Observation(
                    STEP_S,
                    requests=float(taken[row]),
                    wait_s=float(step.wait_s[row]),
                    sojourn_s=float(step.wait_s[row] + step.busy_s[row]),
                    busy_s=float(step.busy_s[row]),
                )
        for pod in self._pods:
            if pod.is_running(end_s):
                pod.observe(end_s, busy.get(pod.name, idle), _KEEP_S)


def _percentile(histogram: FloatArray, percent: float) -> float | None:
    """In ms; None of nothing."""
    total = histogram.sum()
    if not total:
        return None
    place = int(np.searchsorted(np.cumsum(histogram), percent / 100 * total))
    return float(_EDGES_S[min(place, len(_EDGES_S) - 1)] * 1e3)
