"""A plan: one traffic under several policies, side by side.

The chart's autoscaler stands between two that are easy to judge it by: scaling by CPU, which is what most have, and
perfect knowledge, which nobody has. All see the same arrivals (one seed), so their differences are the policies'.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaling.hpa import Autoscaler
from autoscaling.pods import Startup
from autoscaling.policies import ByCpu, Fixed, PerfectKnowledge, Policy, capacity_within
from autoscaling.queueing import Service
from autoscaling.settings import AutoscalingValues
from autoscaling.simulation import Outcome, simulate
from autoscaling.traffic import Traffic


@dataclass(frozen=True)
class Objective:
    """`percent` of all requests, the refused ones included, are answered within `latency_ms`."""

    latency_ms: float
    percent: float = 99.0

    def met_by(self, outcome: Outcome) -> bool:
        """Whether it held over the whole traffic."""
        return outcome.late <= 1 - self.percent / 100


@dataclass(frozen=True)
class Plan:
    """What each policy came to."""

    traffic: Traffic
    objective: Objective
    capacity: float
    """Requests/s of one replica within the objective."""
    outcomes: Sequence[Outcome]
    """The autoscaler's first."""

    @property
    def chosen(self) -> Outcome:
        """The autoscaler's."""
        return self.outcomes[0]

    @property
    def holds(self) -> bool:
        """Whether the autoscaler holds the objective."""
        return self.objective.met_by(self.chosen)


def make_plan(
    traffic: Traffic,
    service: Service,
    values: AutoscalingValues,
    objective: Objective,
    startup: Startup,
    *,
    seed: int = 0,
) -> Plan:
    """Simulate `traffic` under `values` and under what they are to be judged by.

    The workload begins with as many replicas as the first minute needs. Raises `ValueError` if a replica can't hold the
    objective at any rate.
    """
    capacity = capacity_within(service, objective.latency_ms, objective.percent, seed=seed)
    first = max(1, values.minReplicas, math.ceil(traffic.peak(0, 60) / capacity))
    most = max(first, math.ceil(traffic.peak(0, len(traffic)) / capacity))
    policies: list[Policy] = [
        values.policy(traffic),
        ByCpu(Autoscaler(max(1, values.minReplicas), values.maxReplicas), service.instances),
        PerfectKnowledge(traffic, capacity, startup, max(1, values.minReplicas)),
        Fixed(most, name="always the most"),
    ]
    outcomes = [
        simulate(
            traffic,
            service,
            policy,
            startup=startup,
            objective_ms=objective.latency_ms,
            replicas=most if isinstance(policy, Fixed) else min(first, values.maxReplicas),
            seed=seed,
        )
        for policy in policies
    ]
    return Plan(traffic, objective, capacity, outcomes)
