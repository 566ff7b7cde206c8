"""The manifest of a HorizontalPodAutoscaler, as the chart renders it or `kubectl get hpa NAME -o yaml` prints it.

autoscaling/v2 and v2beta2, and v1 where it has nothing that only v2 can say. What a manifest leaves out has the API's
defaults, so one that was never applied is decided by like one that was: without metrics, CPU at 80 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from autoscaling.hpa import DEFAULT_DOWN, DEFAULT_UP, USUAL_CONTROLLER, Behavior, Controller
from autoscaling.quantities import exact, milli
from autoscaling.settings import BehaviorValues
from slipway.errors import SlipwayError

_KIND = "HorizontalPodAutoscaler"
_DEFAULT_CPU_PERCENT = 80
_ONLY_V2 = ("autoscaling.alpha.kubernetes.io/metrics", "autoscaling.alpha.kubernetes.io/behavior")
"""Annotations by which the API shows in v1 what v1 has no fields for."""


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
    of_cpu: bool = False
    """Of which alone the controller asks whether a pod was ready."""


@dataclass(frozen=True)
class Scaler:
    """An HPA's manifest, read."""

    minimum: int
    maximum: int
    behavior: Behavior | None
    targets: tuple[Target, ...]
    controller: Controller = USUAL_CONTROLLER

    @classmethod
    def read(cls, file: Path, controller: Controller = USUAL_CONTROLLER) -> "Scaler":
        """Of the one HorizontalPodAutoscaler in `file`; raises `SlipwayError` that names what can't be replayed."""
        try:
            documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise SlipwayError(f"{file} can't be read: {' '.join(str(error).split())}") from error
        found = [manifest for document in documents for manifest in _autoscalers(document)]
        if len(found) != 1:
            raise SlipwayError(f"{file} has {len(found) or 'no'} {_KIND}{'s'[: len(found)]}; it must have exactly one.")
        spec = _as_v2(file, found[0])
        try:
            read = _Spec.model_validate(spec)
        except ValidationError as error:
            raise SlipwayError(f"{file}: {first_error(error, 'spec')}.") from error
        targets = tuple(each.target() for each in read.metrics)
        return cls(read.minReplicas, read.maxReplicas, _behavior(read.behavior, controller), targets, controller)


def first_error(error: ValidationError, *within: str) -> str:
    """What was wrong first, in one line: where, what is allowed, what is there."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in (*within, *first["loc"]))
    message, given = first["msg"].removeprefix("Value error, "), first["input"]
    if isinstance(given, dict | list) or message.startswith(repr(given)):
        return f"{where}: {message}"
    return f"{where}: {message}; it is {given!r}"


def _autoscalers(document: Any) -> Iterator[dict[str, Any]]:
    """The HPAs of a document, which may be a `List`."""
    if isinstance(document, dict) and document.get("kind") == _KIND:
        yield document
    elif isinstance(document, dict) and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _autoscalers(item)


def _as_v2(file: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The spec; raises `SlipwayError` for a version that says it otherwise."""
    version, spec, metadata = (
        manifest.get("apiVersion", "autoscaling/v2"),
        manifest.get("spec"),
        manifest.get("metadata"),
    )
    if not isinstance(spec, dict):
        raise SlipwayError(f"{file}: the {_KIND} has no spec.")
    if version in ("autoscaling/v2", "autoscaling/v2beta2"):
        return spec
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if version != "autoscaling/v1" or any(name in (annotations or {}) for name in _ONLY_V2):
        raise SlipwayError(
            f"{file}: {version} can't be replayed; `kubectl get hpa.v2.autoscaling NAME -o yaml` prints autoscaling/v2."
        )
    percent = spec.get("targetCPUUtilizationPercentage")
    cpu = _cpu(_DEFAULT_CPU_PERCENT if percent is None else percent)
    return {name: each for name, each in spec.items() if name in ("minReplicas", "maxReplicas")} | {"metrics": [cpu]}


def _cpu(percent: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": percent}}}


_Quantity = Annotated[int, BeforeValidator(milli), Field(gt=0)]


class _Identifier(BaseModel):
    name: str


class _MetricTarget(BaseModel):
    type: str | None = None
    averageUtilization: Annotated[int, Field(gt=0)] | None = None  # noqa: N815
    averageValue: _Quantity | None = None  # noqa: N815
    value: _Quantity | None = None


class _Named(BaseModel):
    metric: _Identifier
    target: _MetricTarget


class _Resource(BaseModel):
    name: str
    target: _MetricTarget


class _ContainerResource(_Resource):
    container: str


class _Metric(BaseModel):
    type: Literal["Resource", "ContainerResource", "Pods", "Object", "External"]
    resource: _Resource | None = None
    containerResource: _ContainerResource | None = None  # noqa: N815
    pods: _Named | None = None
    object: _Named | None = None
    external: _Named | None = None

    @model_validator(mode="after")
    def _says_a_target(self) -> "_Metric":
        self.target()
        return self

    def target(self) -> Target:
        """What the controller takes of it, in its order of precedence; raises `ValueError` if there is nothing."""
        section = getattr(self, self.type[0].lower() + self.type[1:])
        if section is None:
            raise ValueError(f"a metric of type {self.type} needs its {self.type[0].lower() + self.type[1:]}")
        given = section.target
        if isinstance(section, _Resource):
            name = f"{section.container}/{section.name}" if isinstance(section, _ContainerResource) else section.name
            of_cpu = section.name == "cpu"
            if given.averageValue is not None:
                return Target(self.type, name, True, given.averageValue, of_cpu=of_cpu)
            if given.averageUtilization is not None:
                return Target(self.type, name, True, 0, given.averageUtilization, of_cpu)
            raise ValueError("the target needs averageUtilization or averageValue")
        name = section.metric.name
        if given.averageValue is not None and not (self.type == "Object" and given.type == "Value"):
            return Target(self.type, name, True, given.averageValue)
        if given.value is not None and self.type != "Pods":
            return Target(self.type, name, False, given.value)
        raise ValueError(f"the target needs averageValue{'' if self.type == 'Pods' else ' or value'}")


def _without_nulls(given: Any) -> Any:
    if isinstance(given, dict):
        return {name: _without_nulls(each) for name, each in given.items() if each is not None}
    return [_without_nulls(each) for each in given] if isinstance(given, list) else given


def _as_values(given: Any) -> Any:
    """A behavior as the chart's values have it: without nulls, tolerances as numbers."""
    found = _without_nulls(given)
    for rules in found.values() if isinstance(found, dict) else ():
        if isinstance(rules, dict) and "tolerance" in rules:
            rules["tolerance"] = float(exact(rules["tolerance"]))
    return found


def _or_cpu(given: Any) -> Any:
    return given or [_cpu(_DEFAULT_CPU_PERCENT)]


class _Spec(BaseModel):
    minReplicas: Annotated[int, BeforeValidator(lambda given: 1 if given is None else given), Field(ge=0)] = 1  # noqa: N815
    maxReplicas: Annotated[int, Field(ge=1)]  # noqa: N815
    metrics: Annotated[
        list[_Metric],
        BeforeValidator(_or_cpu),
        Field(validate_default=True),
    ] = []
    behavior: Annotated[BehaviorValues | None, BeforeValidator(_as_values)] = None

    @model_validator(mode="after")
    def _is_a_range(self) -> "_Spec":
        if self.minReplicas > self.maxReplicas:
            raise ValueError(f"minReplicas {self.minReplicas} is more than maxReplicas {self.maxReplicas}")
        return self


def _behavior(read: BehaviorValues | None, controller: Controller) -> Behavior | None:
    """None without one: the controller then has rules of its own."""
    if read is None:
        return None
    up = replace(DEFAULT_UP, tolerance=controller.tolerance)
    down = replace(DEFAULT_DOWN, tolerance=controller.tolerance, stabilization_s=controller.downscale_stabilization_s)
    return Behavior(read.scaleUp.rules(up), read.scaleDown.rules(down))
