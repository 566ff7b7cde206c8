"""The HorizontalPodAutoscaler of Kubernetes, as kube-controller-manager computes it.

A transcription of the decisions in `pkg/controller/podautoscaler` (`horizontal.go`; Kubernetes 1.33 and later, where
tolerances may differ by direction), not of the documentation, which leaves out what decides at the edges:

- stabilization keeps the lowest recommendation of the scale-up window and the highest of the scale-down window;
- a policy's limit counts from where the replicas were when its period began, with what was added and removed since.

Alternative: a formula, ceil(replicas x ratio), as most simulators have it. It answers the wrong question: how an
autoscaler would behave that starts pods at once and never misses a metric.

Source: https://github.com/kubernetes/kubernetes/tree/master/pkg/controller/podautoscaler (Apache-2.0).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from autoscaling.recommendation import CpuReadiness, Metric, MetricError, Pod, Tolerances, replicas_for

SYNC_PERIOD_S = 15.0
"""Of kube-controller-manager, `--horizontal-pod-autoscaler-sync-period`."""


@dataclass(frozen=True)
class ScalingPolicy:
    """At most `value` pods, or per cent of the pods, in `period_s`."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: int

    def __post_init__(self) -> None:
        if self.value <= 0 or not 0 < self.period_s <= 1800:
            raise ValueError(f"a scaling policy needs a value > 0 and a period of 1 to 1800 s, not {self}")


@dataclass(frozen=True)
class ScalingRules:
    """`behavior.scaleUp` or `behavior.scaleDown`."""

    stabilization_s: int
    policies: tuple[ScalingPolicy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.stabilization_s <= 3600:
            raise ValueError(f"stabilization_s is {self.stabilization_s}; 0 to 3600 s are allowed")
        if not self.policies:
            raise ValueError("scaling rules need at least one policy; to forbid scaling, say select: Disabled")


DEFAULT_UP = ScalingRules(0, (ScalingPolicy("Pods", 4, 15), ScalingPolicy("Percent", 100, 15)))
DEFAULT_DOWN = ScalingRules(300, (ScalingPolicy("Percent", 100, 15),))


@dataclass(frozen=True)
class Controller:
    """The settings of kube-controller-manager that decide where a manifest says nothing."""

    tolerance: float = 0.1
    """`--horizontal-pod-autoscaler-tolerance`."""
    downscale_stabilization_s: int = 300
    """`--horizontal-pod-autoscaler-downscale-stabilization`."""
    readiness: CpuReadiness = field(default_factory=CpuReadiness)


USUAL_CONTROLLER = Controller()


@dataclass(frozen=True)
class Behavior:
    """`spec.behavior`; what it leaves out has the API's defaults."""

    up: ScalingRules = DEFAULT_UP
    down: ScalingRules = DEFAULT_DOWN


@dataclass
class _Event:
    """A change of the replicas. The controller keeps as many as it needs and writes over old ones."""

    at_s: float
    count: int
    outdated: bool = False


@dataclass
class Autoscaler:
    """One HorizontalPodAutoscaler and what its controller remembers of it.

    `reconcile` is to be called every `SYNC_PERIOD_S` with a clock that only goes forward. Without a behavior the
    controller has other rules than the API's defaults for one: at most double (or 4), and down after its own window.
    """

    min_replicas: int
    max_replicas: int
    behavior: Behavior | None = Behavior()
    controller: Controller = USUAL_CONTROLLER
    _recommendations: list[tuple[float, int]] = field(default_factory=list)
    _added: list[_Event] = field(default_factory=list)
    _removed: list[_Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError(f"replicas from {self.min_replicas} to {self.max_replicas} make no range")

    def reconcile(self, now_s: float, current: int, pods: Sequence[Pod], metrics: Sequence[Metric]) -> int:
        """Replicas that the workload is set to at `now_s`; `current` is what it is set to.

        Metrics that can't be had are left out; if the others ask for less than `current`, nothing changes.
        """
        if not self._recommendations:
            self._recommendations.append((now_s, current))
        if current == 0 and self.min_replicas != 0:
            return 0  # the controller takes it as switched off
        if current > self.max_replicas:
            return self._set(now_s, current, self.max_replicas)
        if current < self.min_replicas:
            return self._set(now_s, current, self.min_replicas)
        proposals = []
        for metric in metrics:
            try:
                proposals.append(replicas_for(metric, pods, current, self._tolerances(), now_s))
            except MetricError:
                continue
        if not proposals or (len(proposals) < len(metrics) and max(proposals) < current):
            return current
        return self._set(now_s, current, self._normalize(now_s, current, max(proposals)))

    def _tolerances(self) -> Tolerances:
        if self.behavior is None:
            return Tolerances(self.controller.tolerance, self.controller.tolerance)
        return Tolerances(up=self.behavior.up.tolerance, down=self.behavior.down.tolerance)

    def _normalize(self, now_s: float, current: int, wanted: int) -> int:
        if self.behavior is None:
            stabilized = self._highest_recent(now_s, wanted)
            return min(max(stabilized, self.min_replicas), self.max_replicas, max(2 * current, 4))
        up, down = self.behavior.up, self.behavior.down
        stabilized = self._stabilize(now_s, current, up.stabilization_s, down.stabilization_s, wanted)
        if stabilized > current:
            return min(stabilized, self.max_replicas, max(current, self._scale_up_limit(now_s, current, up)))
        if stabilized < current:
            return max(stabilized, self.min_replicas, min(current, self._scale_down_limit(now_s, current, down)))
        return stabilized

    def _stabilize(self, now_s: float, current: int, up_s: int, down_s: int, wanted: int) -> int:
        """`current`, brought between the lowest recent recommendation for going up and the highest for going down."""
        up_cutoff, down_cutoff = now_s - up_s, now_s - down_s
        lowest = min([wanted, *(count for at, count in self._recommendations if at > up_cutoff)])
        highest = max([wanted, *(count for at, count in self._recommendations if at > down_cutoff)])
        oldest = min(up_cutoff, down_cutoff)
        self._recommendations = [(at, count) for at, count in self._recommendations if at >= oldest]
        self._recommendations.append((now_s, wanted))
        return min(max(current, lowest), highest)

    def _highest_recent(self, now_s: float, wanted: int) -> int:
        cutoff = now_s - self.controller.downscale_stabilization_s
        self._recommendations = [(at, count) for at, count in self._recommendations if at >= cutoff]
        self._recommendations.append((now_s, wanted))
        return max(count for _, count in self._recommendations)

    def _scale_up_limit(self, now_s: float, current: int, rules: ScalingRules) -> int:
        if rules.select == "Disabled":
            return current
        proposals = []
        for policy in rules.policies:
            start = self._at_start_of_period(now_s, current, policy)
            if policy.type == "Pods":
                proposals.append(start + policy.value)
            else:
                proposals.append(math.ceil(start * (1 + policy.value / 100)))
        return max(proposals) if rules.select == "Max" else min(proposals)

    def _scale_down_limit(self, now_s: float, current: int, rules: ScalingRules) -> int:
        if rules.select == "Disabled":
            return current
        proposals = []
        for policy in rules.policies:
            start = self._at_start_of_period(now_s, current, policy)
            if policy.type == "Pods":
                proposals.append(start - policy.value)
            else:
                proposals.append(int(start * (1 - policy.value / 100)))
        return min(proposals) if rules.select == "Max" else max(proposals)

    def _at_start_of_period(self, now_s: float, current: int, policy: ScalingPolicy) -> int:
        since = now_s - policy.period_s
        added = sum(event.count for event in self._added if event.at_s > since)
        removed = sum(event.count for event in self._removed if event.at_s > since)
        return current - added + removed

    def _set(self, now_s: float, current: int, wanted: int) -> int:
        if self.behavior is not None and wanted > current:
            _store(self._added, _Event(now_s, wanted - current), self.behavior.up)
        elif self.behavior is not None and wanted < current:
            _store(self._removed, _Event(now_s, current - wanted), self.behavior.down)
        return wanted


def _store(events: list[_Event], new: _Event, rules: ScalingRules) -> None:
    """Keep `new`, in the place of an event that no policy of its direction counts any more if there is one.

    One only: the others stay, and policies of the other direction with longer periods still count them.
    """
    cutoff = new.at_s - max(policy.period_s for policy in rules.policies)
    for event in events:
        event.outdated = event.outdated or event.at_s < cutoff
    place = max((place for place, event in enumerate(events) if event.outdated), default=None)
    if place is None:
        events.append(new)
    else:
        events[place] = new
