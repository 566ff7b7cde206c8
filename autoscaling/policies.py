"""Who decides how many replicas there are.

    ByMetrics         a HorizontalPodAutoscaler over signals per pod, as the chart sets it up
    FromZero          the same where KEDA takes the last replica away and brings the first
    ByCpu             the HorizontalPodAutoscaler that most people have: 70 % CPU
    Fixed             nobody
    PerfectKnowledge  knows the traffic ahead of the time that a pod takes to start: the least that could have done

A policy is one class with `decide`; the simulation asks it every 15 s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autoscaling.hpa import SYNC_PERIOD_S, Autoscaler
from autoscaling.pods import (
    METRICS_SERVER,
    PROMETHEUS,
    Replica,
    Scraping,
    Signal,
    Startup,
    busy_instances,
    in_flight,
    queue_ms,
    samples,
)
from autoscaling.queueing import Service
from autoscaling.recommendation import PodsMetric, Utilization
from autoscaling.traffic import Traffic

SIGNALS: Mapping[str, Signal] = {"queue_ms": queue_ms, "in_flight": in_flight, "busy_instances": busy_instances}
"""What the chart can scale by, per pod."""


class Policy(Protocol):
    """Decides the size of the workload."""

    name: str

    def decide(self, now_s: float, current: int, replicas: Sequence[Replica]) -> int:
        """Replicas from `now_s` on; `current` is what was asked for last, `replicas` what is there."""
        ...


@dataclass
class Fixed:
    """Always the same size."""

    replicas: int
    name: str = "fixed"

    def decide(self, now_s: float, current: int, replicas: Sequence[Replica]) -> int:  # noqa: ARG002
        """The size."""
        return self.replicas


@dataclass
class ByMetrics:
    """An HPA with `Pods` metrics: the largest of what the signals ask for."""

    autoscaler: Autoscaler
    targets: Mapping[str, float]
    """Average per pod, by the name of the signal."""
    scraping: Scraping = PROMETHEUS
    name: str = "by metrics"

    def __post_init__(self) -> None:
        unknown = set(self.targets) - set(SIGNALS)
        if unknown or not self.targets:
            raise ValueError(f"signals are {', '.join(SIGNALS)}; not {', '.join(sorted(unknown)) or 'none at all'}")
        if min(self.targets.values()) <= 0:
            raise ValueError(f"targets must be above 0: {dict(self.targets)}")

    def decide(self, now_s: float, current: int, replicas: Sequence[Replica]) -> int:
        """What the controller would set."""
        metrics = [
            PodsMetric(samples(replicas, SIGNALS[name], now_s, self.scraping), max(1, round(1e3 * target)))
            for name, target in self.targets.items()
        ]
        pods = [replica.as_pod(now_s) for replica in replicas]
        return self.autoscaler.reconcile(now_s, current, pods, metrics)


@dataclass
class FromZero:
    """KEDA around an HPA: the HPA sizes what is there, KEDA takes the last replica away and starts the first.

    KEDA looks at traffic where it arrives, as no replica may be there to have a signal: `keda.activationQuery`.
    """

    awake: ByMetrics
    """With at least one replica."""
    traffic: Traffic
    cooldown_s: float = 300.0
    """Without traffic until the last replica goes."""
    name: str = "autoscaler"
    _active_s: float = 0.0

    def decide(self, now_s: float, current: int, replicas: Sequence[Replica]) -> int:
        """One replica when traffic comes, none when it was away for long; else what the HPA would set."""
        if self.traffic.peak(max(0.0, now_s - self.awake.scraping.window_s), now_s) > 0:
            self._active_s = now_s
        if current == 0:
            return int(self._active_s == now_s)
        if now_s - self._active_s >= self.cooldown_s:
            return 0
        return self.awake.decide(now_s, current, replicas)


@dataclass
class ByCpu:
    """An HPA on CPU: busy instances over what a pod requests, which is its instances."""

    autoscaler: Autoscaler
    instances: int
    percent: int = 70
    scraping: Scraping = METRICS_SERVER
    name: str = "by CPU"

    def decide(self, now_s: float, current: int, replicas: Sequence[Replica]) -> int:
        """What the controller would set."""
        requests = {replica.name: 1000 * self.instances for replica in replicas}
        metric = Utilization(samples(replicas, busy_instances, now_s, self.scraping), requests, self.percent)
        return self.autoscaler.reconcile(now_s, current, [replica.as_pod(now_s) for replica in replicas], [metric])


@dataclass
class PerfectKnowledge:
    """The fewest replicas that hold the objective, started just in time."""

    traffic: Traffic
    capacity: float
    """Requests/s of a replica within the objective."""
    startup: Startup
    min_replicas: int = 1
    name: str = field(default="perfect knowledge")

    def decide(self, now_s: float, current: int, replicas: Sequence[Replica]) -> int:  # noqa: ARG002
        """For the highest rate until a pod that is asked for next time would be ready."""
        ahead = self.startup.total_s + SYNC_PERIOD_S
        return max(self.min_replicas, math.ceil(self.traffic.peak(now_s, now_s + ahead + 1) / self.capacity))


def capacity_within(service: Service, objective_ms: float, percent: float = 99.0, *, seed: int = 0) -> float:
    """Requests/s at which a replica's latency percentile just meets the objective, by bisection over simulations.

    Raises `ValueError` if even an idle replica doesn't meet it.
    """
    import numpy as np

    from autoscaling.queueing import Replicas

    def meets(rate: float) -> bool:
        replicas = Replicas(service, np.random.default_rng(seed))
        replicas.resize(4)
        seconds = max(60.0, 20_000 / (4 * rate))
        replicas.step(rate * len(replicas), seconds / 10)
        step = replicas.step(rate * len(replicas), seconds)
        late = step.weights[step.latencies_s > objective_ms / 1e3].sum() + step.refused.sum()
        return bool(late <= (1 - percent / 100) * step.offered.sum())

    low, high = 0.001 * service.saturation_rate, 1.2 * service.saturation_rate
    if not meets(low):
        raise ValueError(f"even an idle replica does not answer {percent:g} % within {objective_ms:g} ms")
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low
