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
from pathlib import Path
from typing import Any

from autoscaling.hpa import Autoscaler, ExternalAverage, ExternalValue, Metric, Pod, PodsMetric, Sample, Utilization
from autoscaling.manifest import Scaler, Target
from autoscaling.quantities import milli
from slipway.errors import SlipwayError

_LONG_AGO = -1e9


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
