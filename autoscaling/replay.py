"""A recorded autoscaler, decided again: an HPA's manifest and what its controller saw → the replicas it sets.

The manifest is what the chart renders or `kubectl get hpa NAME -o yaml` prints (`autoscaling.manifest`). The trace has
a JSON object a line for each sync of the controller, in order:

    {"at": 0, "replicas": 2, "metrics": {"slipway_in_flight": {"a": "3500m", "b": 5}}, "desired": 3}

    at        seconds, of any clock
    replicas  what the workload is set to; without it, what was decided at the line before
    pods      names, or objects with name, running, ready, deleting, started and became_ready (seconds of `at`; long ago
              unless told, where a pod that isn't ready never was; a pod that failed counts as deleting, not running);
              without it, those that the metrics name, and more up to the replicas, all ready
    metrics   by the metric's name (a resource's, `cpu`; of one container, `CONTAINER/cpu`): a mapping of pods to
              quantities, or one quantity (each pod's; External: the total; Object: the value). A pod or metric that is
              left out or null could not be had. Instead of a pod's quantity, an object with value, at and window: when
              it was taken, and over how many seconds (at the sync, and over 60, unless told)
    requests  for a utilization: the CPU that each pod asks for, or by the metric's name a quantity or a mapping of pods
              to quantities
    desired   what the real controller decided, to be compared with

Other keys of a line are left alone.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autoscaling.hpa import Autoscaler
from autoscaling.manifest import Scaler, Target, first_error
from autoscaling.quantities import milli
from autoscaling.recommendation import (
    CpuReadiness,
    ExternalAverage,
    ExternalValue,
    Metric,
    Pod,
    PodsMetric,
    Sample,
    Utilization,
)
from slipway.errors import SlipwayError

_MOST_REPLICAS = 1_000_000
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
    autoscaler = Autoscaler(scaler.minimum, scaler.maximum, scaler.behavior, scaler.controller)
    current, before = scaler.minimum, float("-inf")
    for number, read in _lines(trace):
        try:
            row = _Row.model_validate(read)
            _require_forward(before, row.at)
            current = _bounded(current if row.replicas is None else row.replicas)
            _require_known(row, scaler.targets)
            pods = _pods(row, current)
            readiness = scaler.controller.readiness
            metrics = [_metric(target, row, pods, readiness if target.of_cpu else None) for target in scaler.targets]
        except ValidationError as error:
            raise SlipwayError(f"{trace}, line {number}: {first_error(error)}.") from error
        except ValueError as error:
            raise SlipwayError(f"{trace}, line {number}: {error}.") from error
        wanted = autoscaler.reconcile(row.at, current, pods, metrics)
        yield Step(row.at, current, wanted, row.desired)
        current, before = wanted, row.at
    if before == float("-inf"):
        raise SlipwayError(f"{trace} has no lines; a trace has a JSON object for each sync.")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Sample(_Strict):
    value: Annotated[int, BeforeValidator(milli)]
    at: float | None = None
    window: Annotated[float, Field(ge=0)] = 60.0


class _Pod(_Strict):
    name: str
    running: bool = True
    ready: bool = True
    deleting: bool = False
    started: float = _LONG_AGO
    became_ready: float | None = None


class _Row(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    at: float
    replicas: Annotated[int, Field(ge=0)] | None = None
    pods: list[Annotated[_Pod, BeforeValidator(lambda given: {"name": given} if isinstance(given, str) else given)]] | (
        None
    ) = None
    metrics: dict[str, Any] | None = None
    requests: Any = None
    desired: Annotated[int, Field(ge=0)] | None = None


def _lines(trace: Path) -> Iterator[tuple[int, Any]]:
    try:
        with trace.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(trace, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise SlipwayError(f"{trace} can't be read: {error}") from error


def _parsed(trace: Path, number: int, line: str) -> Any:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SlipwayError(f"{trace} is not JSON lines: line {number}: {error}") from error
    if not isinstance(row, dict):
        raise SlipwayError(f"{trace}, line {number}: an object is needed.")
    return row


def _require_forward(before: float, now: float) -> None:
    if now < before:
        raise ValueError(f"at goes back from {before:g} to {now:g}")


def _bounded(replicas: int) -> int:
    if replicas > _MOST_REPLICAS:
        raise ValueError(f"{replicas} replicas are more than the {_MOST_REPLICAS:,} that are replayed")
    return replicas


def _require_known(row: _Row, targets: Sequence[Target]) -> None:
    """More metrics than the autoscaler's are left alone; one of another name in the place of its own is a mistake."""
    names, given = [target.name for target in targets], row.metrics or {}
    unknown = [name for name in given if name not in names]
    if unknown and not all(name in given for name in names):
        raise ValueError(f"metrics.{unknown[0]} is none of the manifest's metrics: {', '.join(names)}")


def _pods(row: _Row, current: int) -> list[Pod]:
    if row.pods is None:
        return [Pod(name, True, True, _LONG_AGO, _LONG_AGO) for name in _names(row, current)]
    for name, times in Counter(pod.name for pod in row.pods).items():
        if times > 1:
            raise ValueError(f"pods: {name} is there {times} times")
    return [
        Pod(
            name=pod.name,
            running=pod.running,
            ready=pod.ready,
            started_s=pod.started,
            became_ready_s=pod.started if pod.became_ready is None else pod.became_ready,
            deleting=pod.deleting,
        )
        for pod in row.pods
    ]


def _names(row: _Row, current: int) -> list[str]:
    """Of a row without pods: what the metrics have, and more where those are fewer than the replicas."""
    found = [name for by_pod in (row.metrics or {}).values() if isinstance(by_pod, Mapping) for name in by_pod]
    names = list(dict.fromkeys(found))
    return names + [f"(no metric) {number}" for number in range(len(names), current)]


def _metric(target: Target, row: _Row, pods: Sequence[Pod], readiness: CpuReadiness | None) -> Metric:
    where = f"metrics.{target.name}"
    value = (row.metrics or {}).get(target.name)
    if target.kind in ("External", "Object"):
        if isinstance(value, Mapping):
            raise ValueError(
                f"{where}: one quantity is needed for a metric of type {target.kind}, not one for each pod"
            )
        number = None if value is None else _quantity(where, value)
        return ExternalAverage(number, target.milli) if target.averages else ExternalValue(number, target.milli)
    if isinstance(value, Mapping):
        samples = {name: _sample(f"{where}.{name}", each, row.at) for name, each in value.items() if each is not None}
    elif value is None:
        samples = {}
    else:
        samples = dict.fromkeys([pod.name for pod in pods], Sample(_quantity(where, value), row.at))
    if target.percent is None:
        return PodsMetric(samples, target.milli, readiness)
    return Utilization(samples, _requests(target, row, pods), target.percent, readiness)


def _sample(where: str, given: Any, now: float) -> Sample:
    if not isinstance(given, Mapping):
        return Sample(_quantity(where, given), now)
    try:
        read = _Sample.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"{where}.{first_error(error)}") from error
    return Sample(read.value, now if read.at is None else read.at, read.window)


def _quantity(where: str, given: Any) -> int:
    try:
        return milli(given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _requests(target: Target, row: _Row, pods: Sequence[Pod]) -> Mapping[str, int]:
    given, where = row.requests, f"requests.{target.name}"
    if isinstance(given, Mapping):
        given = given.get(target.name)
    elif not target.of_cpu:
        given = None  # a bare quantity is of CPU
    if given is None:
        raise ValueError(f"requests of {target.name} are needed for its utilization")
    if isinstance(given, Mapping):
        return {name: _quantity(f"{where}.{name}", each) for name, each in given.items() if each is not None}
    return dict.fromkeys([pod.name for pod in pods], _quantity(where, given))
