"""The HorizontalPodAutoscaler of Kubernetes, as kube-controller-manager computes it.

A transcription of the decisions in `pkg/controller/podautoscaler` (`replica_calculator.go`, `horizontal.go`; Kubernetes
1.33 and later, where tolerances may differ by direction), not of the documentation, which leaves out what decides at
the edges:

- metrics are integers in thousandths, their average is an integer division, and a utilization is cut to a whole per
  cent before the ratio is taken;
- a pod without a metric counts as exactly at the target when scaling down and as idle when scaling up; a pending pod
  counts as idle when scaling up; either only if it doesn't turn the direction round;
- a ready pod is one that has a metric, for anything but CPU: whether it passes its readiness probe is not asked;
- stabilization keeps the lowest recommendation of the scale-up window and the highest of the scale-down window;
- a policy's limit counts from where the replicas were when its period began, with what was added and removed since.

Alternative: a formula, ceil(replicas x ratio), as most simulators have it. It answers the wrong question: how an
autoscaler would behave that starts pods at once and never misses a metric.

Source: https://github.com/kubernetes/kubernetes/tree/master/pkg/controller/podautoscaler (Apache-2.0).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

SYNC_PERIOD_S = 15.0
"""Of kube-controller-manager, `--horizontal-pod-autoscaler-sync-period`."""
_MAX_INT32 = 2**31 - 1


class MetricError(ValueError):
    """A metric can't be had now; the autoscaler then doesn't scale by it."""


@dataclass(frozen=True)
class Tolerances:
    """How far from 1 the ratio of metric and target may be without any scaling."""

    up: float = 0.1
    down: float = 0.1

    def allow(self, ratio: float) -> bool:
        """Whether `ratio` is near enough."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


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
class Pod:
    """What the controller knows of a pod; one that has failed or ended is not to be given."""

    name: str
    running: bool
    """False while it is pending: not scheduled, or its images not pulled."""
    ready: bool
    started_s: float = 0.0
    became_ready_s: float = 0.0
    """Last change of its readiness."""
    deleting: bool = False
    """It then counts for nothing but, as long as it is ready, in `ExternalValue`."""


@dataclass(frozen=True)
class Sample:
    """A pod's metric in thousandths, taken at `at_s` over `window_s`."""

    milli: int
    at_s: float = 0.0
    window_s: float = 60.0


@dataclass(frozen=True)
class CpuReadiness:
    """From when on the CPU of a pod counts: what starting it took says nothing of the load. Asked for CPU alone."""

    initialization_s: float = 300.0
    """`--horizontal-pod-autoscaler-cpu-initialization-period`."""
    initial_readiness_s: float = 30.0
    """`--horizontal-pod-autoscaler-initial-readiness-delay`."""

    def counts(self, pod: Pod, sample: Sample, now_s: float) -> bool:
        """Whether `sample` is taken for what `pod` uses."""
        if pod.started_s + self.initialization_s > now_s:
            return pod.ready and sample.at_s >= pod.became_ready_s + sample.window_s
        return pod.ready or pod.started_s + self.initial_readiness_s <= pod.became_ready_s


@dataclass(frozen=True)
class Controller:
    """The settings of kube-controller-manager that decide where a manifest says nothing."""

    tolerance: float = 0.1
    """`--horizontal-pod-autoscaler-tolerance`."""
    downscale_stabilization_s: int = 300
    """`--horizontal-pod-autoscaler-downscale-stabilization`."""
    readiness: CpuReadiness = CpuReadiness()


USUAL_CONTROLLER = Controller()


@dataclass(frozen=True)
class PodsMetric:
    """`type: Pods`, or a resource: an average over the pods that have it, against `averageValue`."""

    samples: Mapping[str, Sample]
    target_milli: int
    readiness: CpuReadiness | None = None
    """Of CPU; None of anything else."""


@dataclass(frozen=True)
class Utilization:
    """`type: Resource` or `ContainerResource`: use of what was requested, against `averageUtilization` in per cent."""

    samples: Mapping[str, Sample]
    requests_milli: Mapping[str, int]
    """What each pod, or its container, requests of the resource, thousandths."""
    target_percent: int
    readiness: CpuReadiness | None = CpuReadiness()
    """Of CPU; None of anything else."""


@dataclass(frozen=True)
class ExternalAverage:
    """`type: External` with `averageValue` (what KEDA makes, too): a total over all pods, None if it is missing."""

    total_milli: int | None
    target_milli: int


@dataclass(frozen=True)
class ExternalValue:
    """`type: External` or `Object` with `value`: one number against a target, None if it is missing."""

    value_milli: int | None
    target_milli: int


Metric = PodsMetric | Utilization | ExternalAverage | ExternalValue


def replicas_for(metric: Metric, pods: Sequence[Pod], current: int, tolerances: Tolerances, now_s: float) -> int:
    """Replicas that `metric` asks for; raises `MetricError` if it can't say."""
    staying = [pod for pod in pods if not pod.deleting]
    match metric:
        case PodsMetric():
            return _for_pods(metric, staying, current, tolerances, now_s)
        case Utilization():
            return _for_utilization(metric, staying, current, tolerances, now_s)
        case ExternalAverage():
            return _for_external_average(metric, len(staying), tolerances)
        case ExternalValue():
            return _for_external_value(metric, pods, current, tolerances)


@dataclass(frozen=True)
class _Groups:
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]


def _for_pods(metric: PodsMetric, pods: Sequence[Pod], current: int, tolerances: Tolerances, now_s: float) -> int:
    groups = _group(pods, metric.samples, metric.readiness, now_s)

    def ratio(of: Mapping[str, int]) -> float:
        return sum(of.values()) // len(of) / metric.target_milli

    values = _values(metric.samples, pods, groups.unready)
    return _settle(ratio, values, groups, dict.fromkeys(groups.missing, metric.target_milli), current, tolerances)


def _for_utilization(
    metric: Utilization, pods: Sequence[Pod], current: int, tolerances: Tolerances, now_s: float
) -> int:
    groups = _group(pods, metric.samples, metric.readiness, now_s)
    requests = metric.requests_milli
    unasked = sorted(pod.name for pod in pods if pod.name not in requests)
    if unasked:
        raise MetricError(f"{unasked[0]} requests nothing of the resource")

    def ratio(of: Mapping[str, int]) -> float:
        requested = sum(requests[name] for name in of)
        if not requested:
            raise MetricError("no metrics for pods that request something")
        return sum(of.values()) * 100 // requested / metric.target_percent

    percent = max(100, metric.target_percent)
    fallback = {name: requests[name] * percent // 100 for name in groups.missing}
    return _settle(ratio, _values(metric.samples, pods, groups.unready), groups, fallback, current, tolerances)


def _group(pods: Sequence[Pod], samples: Mapping[str, Sample], readiness: CpuReadiness | None, now_s: float) -> _Groups:
    _require_pods(pods)
    unready, missing = set(), set()
    for pod in pods:
        sample = samples.get(pod.name)
        if not pod.running:
            unready.add(pod.name)
        elif sample is None:
            missing.add(pod.name)
        elif readiness is not None and not readiness.counts(pod, sample, now_s):
            unready.add(pod.name)
    return _Groups(len(pods) - len(unready) - len(missing), frozenset(unready), frozenset(missing))


def _settle(
    ratio_of: Callable[[Mapping[str, int]], float],
    values: dict[str, int],
    groups: _Groups,
    at_target: dict[str, int],
    current: int,
    tolerances: Tolerances,
) -> int:
    """What both kinds of per-pod metric have in common; `at_target` stands for missing pods when scaling down."""
    if not values:
        raise MetricError("no metrics for the targeted pods; they may be unready")
    ratio = ratio_of(values)
    idle_unready = bool(groups.unready) and ratio > 1.0
    if not idle_unready and not groups.missing:
        return current if tolerances.allow(ratio) else math.ceil(ratio * groups.ready)
    if ratio < 1.0:
        values |= at_target
    elif ratio > 1.0:
        values |= dict.fromkeys(groups.missing, 0)
    if idle_unready:
        values |= dict.fromkeys(groups.unready, 0)
    again = ratio_of(values)
    if tolerances.allow(again) or (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return current
    wanted = math.ceil(again * len(values))
    if (again < 1.0 and wanted > current) or (again > 1.0 and wanted < current):
        return current
    return wanted


def _for_external_average(metric: ExternalAverage, there: int, tolerances: Tolerances) -> int:
    """Against the pods that are there, not those that were asked for: the controller reads the scale's status."""
    if metric.total_milli is None:
        raise MetricError("no external metric")
    if there and tolerances.allow(metric.total_milli / (metric.target_milli * there)):
        return there
    return _int32(math.ceil(metric.total_milli / metric.target_milli))


def _for_external_value(metric: ExternalValue, pods: Sequence[Pod], current: int, tolerances: Tolerances) -> int:
    if metric.value_milli is None:
        raise MetricError("no external metric")
    ratio = metric.value_milli / metric.target_milli
    if current == 0:
        return math.ceil(ratio)
    if tolerances.allow(ratio):
        return current
    _require_pods(pods)
    return _int32(math.ceil(ratio * sum(pod.running and pod.ready for pod in pods)))


def _require_pods(pods: Sequence[Pod]) -> None:
    if not pods:
        raise MetricError("there are no pods")


def _values(samples: Mapping[str, Sample], pods: Sequence[Pod], unready: frozenset[str]) -> dict[str, int]:
    names = {pod.name for pod in pods} - unready
    return {name: sample.milli for name, sample in samples.items() if name in names}


def _int32(count: int) -> int:
    return min(count, _MAX_INT32)


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
