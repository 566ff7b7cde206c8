"""A recorded autoscaler, decided again: an HPA's manifest and what its controller saw → the replicas it sets.

The manifest is what the chart renders or `kubectl get hpa NAME -o yaml` prints (autoscaling/v2). The trace has a JSON
object a line for each sync of the controller, in order:

    {"at": 0, "replicas": 2, "metrics": {"slipway_in_flight": {"a": "3500m", "b": 5}}, "desired": 3}

    at        seconds, of any clock
    replicas  what the workload is set to; without it, what was decided at the line before
    pods      names, or objects with name, running, ready, started and became_ready (seconds of `at`; long ago unless
              told, where a pod that isn't ready never was); without it, those that the metrics name, and more up to
              the replicas, all ready
    metrics   by the metric's name (a resource's, `cpu`; of one container, `CONTAINER/cpu`): a mapping of pods to
              quantities, or one quantity (each pod's; External: the total; Object: the value). A pod or metric that is
              left out or null could not be had
    requests  for a utilization: the CPU that each pod asks for, or by the metric's name a quantity or a mapping of pods
              to quantities
    desired   what the real controller decided, to be compared with
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from autoscaling.hpa import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    Autoscaler,
    Behavior,
    CpuReadiness,
    ExternalAverage,
    ExternalValue,
    Metric,
    Pod,
    PodsMetric,
    Sample,
    Utilization,
)
from autoscaling.settings import BehaviorValues
from slipway.errors import SlipwayError

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
}  # fmt: skip

_LONG_AGO = -1e9
_RESOURCES = ("Resource", "ContainerResource")


@dataclass(frozen=True)
class Target:
    """One entry of `spec.metrics`."""

    kind: str
    """Pods, Resource, ContainerResource, External, Object, as in the manifest."""
    name: str
    """As the trace has it."""
    averages: bool
    """Whether the target is an average over pods, not one value."""
    milli: int
    percent: int | None = None
    """Of a resource's request, instead."""
    readiness: CpuReadiness | None = None
    """Of CPU."""


@dataclass(frozen=True)
class Scaler:
    """An HPA's manifest, read."""

    minimum: int
    maximum: int
    behavior: Behavior | None
    targets: tuple[Target, ...]

    @classmethod
    def read(cls, file: Path) -> "Scaler":
        """Of the first HorizontalPodAutoscaler in `file`; raises `SlipwayError` if there is none that can be read."""
        try:
            documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
            [manifest, *_] = [
                each for each in documents if isinstance(each, dict) and each.get("kind") == "HorizontalPodAutoscaler"
            ]
            spec = manifest["spec"]
            behavior = spec.get("behavior")
            return cls(
                int(spec.get("minReplicas", 1)),
                int(spec["maxReplicas"]),
                None if behavior is None else _behavior(behavior),
                tuple(_target(entry) for entry in spec.get("metrics", [])),
            )
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SlipwayError(f"{file} can't be read: {error}") from error
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise SlipwayError(f"{file} has no HorizontalPodAutoscaler that can be replayed: {error}") from error


@dataclass(frozen=True)
class Step:
    """One sync."""

    at_s: float
    current: int
    wanted: int
    recorded: int | None
    """What the real controller decided, if the trace says it."""

    @property
    def agrees(self) -> bool:
        """Whether the two decided alike; true where nothing was recorded."""
        return self.recorded is None or self.recorded == self.wanted


def replay(scaler: Scaler, trace: Path) -> Iterator[Step]:
    """What is decided at each line of `trace`; raises `SlipwayError` that names a line that can't be read."""
    autoscaler = Autoscaler(scaler.minimum, scaler.maximum, scaler.behavior)
    current, before = scaler.minimum, float("-inf")
    for number, row in _rows(trace):
        try:
            now = float(row["at"])
            _require_forward(before, now)
            current = int(row.get("replicas", current))
            pods = _pods(row, current)
            metrics = [_metric(target, row, pods, now) for target in scaler.targets]
            recorded = row.get("desired")
            wanted = autoscaler.reconcile(now, current, pods, metrics)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SlipwayError(f"{trace}, line {number}: {error!r}") from error
        yield Step(now, current, wanted, None if recorded is None else int(recorded))
        current, before = wanted, now


def milli(quantity: Any) -> int:
    """A quantity of Kubernetes in thousandths, rounded up as the API does; raises `ValueError` if it is none."""
    text = str(quantity)
    suffix = text.lstrip("+-.0123456789eE") if text[-1:].isalpha() else ""
    number = text.removesuffix(suffix) if suffix else text
    try:
        value = Decimal(number) * _SUFFIXES[suffix] * 1000
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"{quantity!r} is no quantity") from error
    return int(value.to_integral_value(rounding="ROUND_CEILING"))


def _require_forward(before: float, now: float) -> None:
    if now < before:
        raise ValueError(f"at goes back from {before:g} to {now:g}")


def _rows(trace: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with trace.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise SlipwayError(f"{trace}, line {number}: an object is needed.")
                    yield number, row
    except (OSError, UnicodeDecodeError) as error:
        raise SlipwayError(f"{trace} can't be read: {error}") from error
    except json.JSONDecodeError as error:
        raise SlipwayError(f"{trace} is not JSON lines: {error}") from error


def _behavior(given: Mapping[str, Any]) -> Behavior:
    read = BehaviorValues.model_validate(given)
    return Behavior(read.scaleUp.rules(DEFAULT_UP), read.scaleDown.rules(DEFAULT_DOWN))


def _target(entry: Mapping[str, Any]) -> Target:
    kind = str(entry["type"])
    section = entry[kind[:1].lower() + kind[1:]]
    name = section["name"] if kind in _RESOURCES else section["metric"]["name"]
    readiness = CpuReadiness() if kind in _RESOURCES and name == "cpu" else None
    if kind == "ContainerResource":
        name = f"{section['container']}/{name}"
    target = section["target"]
    if "averageUtilization" in target:
        return Target(kind, name, True, 0, int(target["averageUtilization"]), readiness)
    averages = "averageValue" in target
    return Target(kind, name, averages, milli(target["averageValue" if averages else "value"]), None, readiness)


def _pods(row: Mapping[str, Any], current: int) -> list[Pod]:
    given = row.get("pods")
    return [_pod(each) for each in (_names(row, current) if given is None else given)]


def _names(row: Mapping[str, Any], current: int) -> list[str]:
    """Of a row without pods: what the metrics have, and more where those are fewer than the replicas."""
    found = [name for by_pod in row.get("metrics", {}).values() if isinstance(by_pod, Mapping) for name in by_pod]
    names = list(dict.fromkeys(found))
    return names + [f"(no metric) {number}" for number in range(len(names), current)]


def _pod(given: Any) -> Pod:
    if isinstance(given, str):
        given = {"name": given}
    started = float(given.get("started", _LONG_AGO))
    return Pod(
        given["name"],
        running=bool(given.get("running", True)),
        ready=bool(given.get("ready", True)),
        started_s=started,
        became_ready_s=float(given.get("became_ready", started)),
    )


def _metric(target: Target, row: Mapping[str, Any], pods: Sequence[Pod], now: float) -> Metric:
    value = row.get("metrics", {}).get(target.name)
    if target.kind in ("External", "Object"):
        number = None if value is None else milli(value)
        return ExternalAverage(number, target.milli) if target.averages else ExternalValue(number, target.milli)
    if value is None:
        value = {}
    elif not isinstance(value, Mapping):
        value = {pod.name: value for pod in pods}
    samples = {name: Sample(milli(each), at_s=now) for name, each in value.items() if each is not None}
    if target.percent is None:
        return PodsMetric(samples, target.milli, target.readiness)
    return Utilization(samples, _requests(target, row, pods), target.percent, target.readiness)


def _requests(target: Target, row: Mapping[str, Any], pods: Sequence[Pod]) -> Mapping[str, int]:
    given = row.get("requests")
    if isinstance(given, Mapping):
        given = given.get(target.name)
    elif target.readiness is None:
        given = None  # a bare quantity is of CPU
    if given is None:
        raise ValueError(f"requests of {target.name} are needed for its utilization")
    if isinstance(given, Mapping):
        return {name: milli(each) for name, each in given.items() if each is not None}
    return dict.fromkeys([pod.name for pod in pods], milli(given))
