"""The autoscaling settings of a deployment, as the chart's `values.yaml` has them under `autoscaling`.

autoscaling:
  minReplicas: 2
  maxReplicas: 20
  targets: {inFlight: 4, queueMs: 10}      # averages per pod; the larger demand decides; null: what suits, or none
  behavior:                                 # as in autoscaling/v2; null: the API's defaults
    scaleUp: {stabilizationWindowSeconds: 0, policies: [{type: Percent, value: 100, periodSeconds: 30}]}
    scaleDown: {stabilizationWindowSeconds: 300, policies: [{type: Percent, value: 25, periodSeconds: 60}]}

What is left out is the chart's: mappings are merged with its own and lists replace its own, as Helm does it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoscaling.hpa import DEFAULT_DOWN, DEFAULT_UP, Autoscaler, Behavior, ScalingPolicy, ScalingRules
from autoscaling.policies import ByMetrics, FromZero
from autoscaling.traffic import Traffic
from slipway.errors import SlipwayError

BUSY = 0.7
"""Share of its instances, and so of its capacity, that a replica is kept at."""
_SIGNALS = {"inFlight": "in_flight", "queueMs": "queue_ms", "busyInstances": "busy_instances"}


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyValues(_Values):
    """One policy of a direction."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(gt=0)]
    periodSeconds: Annotated[int, Field(gt=0, le=1800)]  # noqa: N815


class RuleValues(_Values):
    """One direction."""

    stabilizationWindowSeconds: Annotated[int, Field(ge=0, le=3600)] | None = None  # noqa: N815
    policies: Annotated[list[PolicyValues], Field(min_length=1)] | None = None
    selectPolicy: Literal["Max", "Min", "Disabled"] = "Max"  # noqa: N815
    tolerance: Annotated[float, Field(ge=0)] = 0.1

    def rules(self, default: ScalingRules) -> ScalingRules:
        """With the API's defaults where nothing is said."""
        window = self.stabilizationWindowSeconds
        return ScalingRules(
            default.stabilization_s if window is None else window,
            tuple(ScalingPolicy(each.type, each.value, each.periodSeconds) for each in self.policies)
            if self.policies
            else default.policies,
            self.selectPolicy,
            self.tolerance if "tolerance" in self.model_fields_set else default.tolerance,
        )


class BehaviorValues(_Values):
    """Both directions."""

    scaleUp: RuleValues = RuleValues()  # noqa: N815
    scaleDown: RuleValues = RuleValues()  # noqa: N815


class AutoscalingValues(_Values):
    """Everything under `autoscaling` that decides about replicas."""

    minReplicas: Annotated[int, Field(ge=0)] = 2  # noqa: N815
    maxReplicas: Annotated[int, Field(ge=1)] = 20  # noqa: N815
    targets: dict[Literal["inFlight", "queueMs", "busyInstances"], Annotated[float, Field(gt=0)]]
    behavior: BehaviorValues = BehaviorValues()
    cooldownPeriod: Annotated[int, Field(ge=0)] = 300  # noqa: N815
    """Of `keda`, where `minReplicas` is 0."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "AutoscalingValues":
        if self.minReplicas > self.maxReplicas:
            raise ValueError(f"minReplicas {self.minReplicas} is more than maxReplicas {self.maxReplicas}")
        if not self.targets:
            raise ValueError("targets needs at least one signal")
        return self

    def policy(self, traffic: Traffic) -> ByMetrics | FromZero:
        """An autoscaler with these settings that has seen nothing yet of `traffic`; KEDA where there may be none."""
        behavior = Behavior(self.behavior.scaleUp.rules(DEFAULT_UP), self.behavior.scaleDown.rules(DEFAULT_DOWN))
        targets = {_SIGNALS[name]: value for name, value in self.targets.items()}
        autoscaler = Autoscaler(max(1, self.minReplicas), self.maxReplicas, behavior)
        by_metrics = ByMetrics(autoscaler, targets, name="autoscaler")
        return by_metrics if self.minReplicas else FromZero(by_metrics, traffic, self.cooldownPeriod)


def defaults(instances: int) -> AutoscalingValues:
    """What the chart sets for a replica of so many model instances, if nothing is said.

    Two signals, because neither does alone (`docs/autoscaling.md` has figures): how busy the instances are sizes the
    workload while its queues are short; requests in flight tell how much is missing when they are not.
    """
    return AutoscalingValues(
        targets=_suiting({}, instances),
        behavior=BehaviorValues(
            scaleUp=RuleValues(
                policies=[
                    PolicyValues(type="Percent", value=100, periodSeconds=30),
                    PolicyValues(type="Pods", value=4, periodSeconds=30),
                ]
            ),
            scaleDown=RuleValues(policies=[PolicyValues(type="Percent", value=25, periodSeconds=60)]),
        ),
    )


def _suiting(values: dict[str, Any], instances: int) -> dict[str, float]:
    """What the chart scales by where the values say nothing, with a GPU's duty under its own name."""
    hardware, serve = str(values.get("hardware") or "cpu"), values.get("serve")
    on_gpu = (values.get("modelConfig") or ("cpu" if hardware in ("cpu", "own") else "gpu")) == "gpu"
    layout = serve.get("layout") if isinstance(serve, dict) else None
    # A GPU needs more at a time, for its batches.
    found = {"inFlight": (16.0 if on_gpu else 2.0) * instances}
    if (layout or ("ensemble" if on_gpu else "fused")) == "fused":
        return found | {"busyInstances": BUSY * instances}
    return found | {"gpuDuty": BUSY} if on_gpu and not hardware.startswith("mig-") else found


def _targets(given: dict[str, Any], suits: dict[str, float], instances: int) -> dict[str, Any]:
    """With the chart's meaning of null: what suits, or no such signal."""
    found = suits | {name: value for name, value in given.items() if value is not None}
    duty = found.pop("gpuDuty", None)
    if isinstance(duty, int | float):
        # A GPU works while an instance on it does.
        found["busyInstances"] = min(found.get("busyInstances", instances), duty * instances)
    return found


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As Helm puts values over a chart's own; a null takes away what is there."""
    found = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merged(found[name], value) if both else value
    return {name: value for name, value in found.items() if value is not None}


def read_values(path: Path | None, instances: int) -> AutoscalingValues:
    """The settings under `autoscaling` of a values file, over the chart's own.

    Raises `SlipwayError` that names the key.
    """
    if path is None:
        return defaults(instances)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SlipwayError(f"{path} can't be read as values: {' '.join(str(error).split())}") from error
    given = found.get("autoscaling", {}) if isinstance(found, dict) else None
    if not isinstance(given, dict):
        raise SlipwayError(f"{path}: autoscaling must be a mapping.")
    kept = {name: value for name, value in given.items() if name in AutoscalingValues.model_fields}
    keda = given.get("keda")
    if isinstance(keda, dict) and "cooldownPeriod" in keda:
        kept["cooldownPeriod"] = keda["cooldownPeriod"]
    targets = given.get("targets", {})
    kept["targets"] = _targets(targets, _suiting(found, instances), instances) if isinstance(targets, dict) else targets
    usual = defaults(instances).model_dump(exclude={"targets"})
    try:
        return AutoscalingValues.model_validate(_merged(usual, kept))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("autoscaling", *first["loc"]))
        raise SlipwayError(f"{path}: {where}: {first['msg']}; it is {first['input']!r}.") from error
