"""How many replicas one metric asks for, as kube-controller-manager computes it.

A transcription of `replica_calculator.go`; which of the answers is followed, and how fast, is `autoscaling.hpa`. What
the documentation leaves out decides at the edges:

- metrics are integers in thousandths, their average is an integer division, and a utilization is cut to a whole per
  cent before the ratio is taken;
- a pod without a metric counts as exactly at the target when scaling down and as idle when scaling up; a pending pod
  counts as idle when scaling up; either only if it doesn't turn the direction round;
- a ready pod is one that has a metric, for anything but CPU: whether it passes its readiness probe is not asked;
- what the metrics have of a pod that isn't listed (any more) counts in an average as if it were.

Source: https://github.com/kubernetes/kubernetes/tree/master/pkg/controller/podautoscaler (Apache-2.0).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
class Pod:
    """What the controller knows of a pod; one that has failed counts like one that is being deleted and doesn't run."""

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
    match metric:
        case PodsMetric():
            return _for_pods(metric, pods, current, tolerances, now_s)
        case Utilization():
            return _for_utilization(metric, pods, current, tolerances, now_s)
        case ExternalAverage():
            return _for_external_average(metric, sum(not pod.deleting for pod in pods), tolerances)
        case ExternalValue():
            return _for_external_value(metric, pods, current, tolerances)


@dataclass(frozen=True)
class _Groups:
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]
    """Being deleted."""


def _for_pods(metric: PodsMetric, pods: Sequence[Pod], current: int, tolerances: Tolerances, now_s: float) -> int:
    groups = _group(pods, metric.samples, metric.readiness, now_s)

    def ratio(of: Mapping[str, int]) -> float:
        return sum(of.values()) // len(of) / metric.target_milli

    at_target = dict.fromkeys(groups.missing, metric.target_milli)
    return _settle(ratio, _values(metric.samples, groups), groups, at_target, current, tolerances)


def _for_utilization(
    metric: Utilization, pods: Sequence[Pod], current: int, tolerances: Tolerances, now_s: float
) -> int:
    groups = _group(pods, metric.samples, metric.readiness, now_s)
    names = {pod.name for pod in pods} - groups.ignored
    unasked = sorted(names - metric.requests_milli.keys())
    if unasked:
        raise MetricError(f"{unasked[0]} requests nothing of the resource")
    requests = {name: metric.requests_milli[name] for name in names}

    def ratio(of: Mapping[str, int]) -> float:
        known = [name for name in of if name in requests]
        requested = sum(requests[name] for name in known)
        if not requested:
            raise MetricError("no metrics for pods that request something")
        return sum(of[name] for name in known) * 100 // requested / metric.target_percent

    percent = max(100, metric.target_percent)
    fallback = {name: requests[name] * percent // 100 for name in groups.missing}
    return _settle(ratio, _values(metric.samples, groups), groups, fallback, current, tolerances)


def _group(pods: Sequence[Pod], samples: Mapping[str, Sample], readiness: CpuReadiness | None, now_s: float) -> _Groups:
    _require_pods(pods)
    unready, missing, ignored = set(), set(), set()
    for pod in pods:
        sample = samples.get(pod.name)
        if pod.deleting:
            ignored.add(pod.name)
        elif not pod.running:
            unready.add(pod.name)
        elif sample is None:
            missing.add(pod.name)
        elif readiness is not None and not readiness.counts(pod, sample, now_s):
            unready.add(pod.name)
    ready = len(pods) - len(unready) - len(missing) - len(ignored)
    return _Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


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


def _values(samples: Mapping[str, Sample], groups: _Groups) -> dict[str, int]:
    apart = groups.unready | groups.ignored
    return {name: sample.milli for name, sample in samples.items() if name not in apart}


def _int32(count: int) -> int:
    return min(count, _MAX_INT32)
