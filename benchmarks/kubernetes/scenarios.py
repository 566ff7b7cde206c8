"""What autoscalers are recorded at: manifests, loads, and pods that are slow, silent, or taken away slowly.

Windows and periods are no multiples of the controller's sync period (the API's default of 15 s is none of 4), so that
none ends in the moment of a sync, where a millisecond would decide.

The controllers of the first releases with `behavior` decide otherwise than those since in three places, which the
scenarios leave out: a window for scaling down could scale up again; a limit for scaling down took no account of pods
that had just been added; and with one metric of two that can't be had, the other could scale down.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Load = Callable[[float], float]
"""Seconds since the beginning → what all pods have to do, in thousandths of the metric."""


@dataclass(frozen=True)
class Seen:
    """A pod when its metric is asked for."""

    number: int
    """In the order of creation."""
    ready: bool
    running_s: float
    """Since it runs; negative before."""


@dataclass(frozen=True)
class Signal:
    """One metric: what each pod has of it, or the whole (External)."""

    load: Load
    scrape_s: float = 0.0
    """A pod has no sample before it has run so long."""
    silent: Callable[[float, Seen], bool] = lambda now, pod: False  # noqa: ARG005
    """Pods without a sample."""
    broken: Callable[[float], bool] = lambda now: False  # noqa: ARG005
    """Whether the metric can't be had at all."""

    def of_pods(self, now: float, pods: Mapping[str, Seen]) -> dict[str, int]:
        """Thousandths by pod; work is shared among pods that are ready, unevenly."""
        working = max(1, sum(pod.ready for pod in pods.values()))
        return {
            name: round(self.load(now) / working * (0.8 + 0.1 * (pod.number % 5)) if pod.ready else 7)
            for name, pod in pods.items()
            if pod.running_s >= self.scrape_s and not self.silent(now, pod)
        }


@dataclass(frozen=True)
class Scenario:
    """A workload with its autoscaler."""

    name: str
    spec: Mapping[str, Any]
    signals: Mapping[str, Signal]
    replicas: int = 2
    pending_s: float = 2.0
    starting_s: float = 3.0
    leaving_s: float = 0.0
    """How long a pod that is being deleted stays."""
    request: str | None = None
    """CPU that a pod asks for."""
    starts_badly: Sequence[int] = field(default=())
    """Numbers of pods that never become ready."""


def _every_seventh(now: float, pod: Seen) -> bool:  # noqa: ARG001
    return pod.number % 7 == 3


def pods_metric(name: str, average: str) -> dict[str, Any]:
    return {
        "type": "Pods",
        "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": average}},
    }


def external(name: str, **target: str) -> dict[str, Any]:
    kind = "Value" if "value" in target else "AverageValue"
    return {"type": "External", "external": {"metric": {"name": name}, "target": {"type": kind, **target}}}


def cpu(percent: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def policy(kind: str, value: int, period_s: int) -> dict[str, Any]:
    return {"type": kind, "value": value, "periodSeconds": period_s}


def steady(seconds: int) -> dict[str, Any]:
    """Rules that only have a stabilization window."""
    return {"stabilizationWindowSeconds": seconds}


def scales(least: int, most: int, *metrics: dict[str, Any], **behavior: dict[str, Any]) -> dict[str, Any]:
    """The spec of an autoscaler with a behavior, of which what is left out has the API's defaults."""
    return {"minReplicas": least, "maxReplicas": most, "metrics": list(metrics), "behavior": behavior}


def spike(base: float, peak: float, begins: float, ends: float) -> Load:
    return lambda now: peak if begins <= now < ends else base


def wave(middle: float, swing: float, period_s: float) -> Load:
    return lambda now: middle + swing * math.sin(2 * math.pi * now / period_s)


def ramp(low: float, high: float, length_s: float) -> Load:
    return lambda now: low + (high - low) * min(1.0, now / length_s)


def scenarios(chart: Mapping[str, Any]) -> list[Scenario]:
    """All of them; `chart` is the spec of the autoscaler that the chart renders."""
    return [
        Scenario(
            "chart",
            {**chart, "scaleTargetRef": None},
            {
                "slipway_busy_instances": Signal(spike(1_500, 14_000, 60, 150), scrape_s=6),
                "slipway_in_flight": Signal(spike(3_000, 90_000, 60, 150), scrape_s=6),
            },
            starting_s=9.0,
        ),
        Scenario(
            "no-behavior",
            {"minReplicas": 1, "maxReplicas": 40, "metrics": [pods_metric("work", "4")]},
            {"work": Signal(spike(8_000, 130_000, 40, 130))},
        ),
        Scenario(
            "around-the-tolerance",
            scales(2, 20, pods_metric("work", "4")),
            {"work": Signal(wave(33_000, 8_000, 71.0))},
            replicas=8,
        ),
        Scenario(
            "slow-pods-without-samples",
            scales(1, 30, pods_metric("work", "5"), scaleDown=steady(23)),
            {"work": Signal(spike(9_000, 60_000, 30, 170), scrape_s=11, silent=_every_seventh)},
            pending_s=8.0,
            starting_s=14.0,
        ),
        Scenario(
            "few-at-a-time",
            scales(
                2,
                60,
                pods_metric("work", "3"),
                scaleUp={
                    "stabilizationWindowSeconds": 13,
                    "policies": [policy("Pods", 3, 22), policy("Percent", 50, 22)],
                    "selectPolicy": "Min",
                },
                scaleDown={
                    "stabilizationWindowSeconds": 0,
                    "policies": [policy("Percent", 25, 18), policy("Pods", 2, 33)],
                },
            ),
            {"work": Signal(spike(7_000, 45_000, 25, 190))},
        ),
        Scenario(
            "never-down",
            scales(
                1, 12, pods_metric("work", "2"), scaleDown={"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}
            ),
            {"work": Signal(wave(9_000, 8_500, 53.0))},
        ),
        Scenario(
            "bursts-held-back",
            scales(
                2,
                50,
                pods_metric("work", "3"),
                scaleUp={"stabilizationWindowSeconds": 17, "policies": [policy("Percent", 40, 11)]},
                scaleDown={"stabilizationWindowSeconds": 27, "policies": [policy("Pods", 1, 7)]},
            ),
            {"work": Signal(lambda now: 80_000 if now % 37 < 9 else 12_000)},
        ),
        Scenario(
            "one-of-two-is-broken",
            scales(
                1,
                25,
                pods_metric("work", "4"),
                pods_metric("queue", "10"),
                scaleUp={"policies": [policy("Pods", 2, 7)]},
                scaleDown=steady(0),
            ),
            {
                "work": Signal(
                    lambda now: 24_000 if now < 114 else 60_000 if now < 160 else 12_000,
                    broken=lambda now: 56 < now < 74 or 180 < now < 196,
                ),
                "queue": Signal(
                    lambda now: 20_000 if now < 56 else 90_000 if now < 160 else 15_000,
                    broken=lambda now: 116 < now < 138 or 176 < now < 196,
                ),
            },
        ),
        Scenario(
            "external-average",
            scales(1, 30, external("queue", averageValue="7500m"), scaleDown=steady(0)),
            {"queue": Signal(wave(70_000, 66_000, 83.0))},
        ),
        Scenario(
            "external-value",
            scales(1, 30, external("delay", value="50"), scaleDown=steady(0)),
            {"delay": Signal(wave(52_000, 20_000, 67.0))},
        ),
        Scenario(
            "cpu",
            scales(1, 30, cpu(60), scaleDown=steady(23)),
            {"cpu": Signal(spike(300, 2_400, 45, 150), scrape_s=6)},
            pending_s=4.0,
            starting_s=13.0,
            request="250m",
            starts_badly=(5,),
        ),
        Scenario(
            "leaving-slowly",
            scales(1, 30, pods_metric("work", "4"), scaleDown=steady(0)),
            {"work": Signal(lambda now: 70_000 if now % 73 < 31 else 11_000)},
            leaving_s=17.0,
        ),
        Scenario(
            "more-than-allowed",
            scales(3, 6, pods_metric("work", "4"), scaleDown=steady(0)),
            {"work": Signal(ramp(4_000, 90_000, 120))},
            replicas=9,
        ),
    ]
